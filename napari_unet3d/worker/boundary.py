"""What an exception means to the person."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from napari_unet3d.engine.device import is_out_of_memory
from napari_unet3d.engine.errors import EngineError

from .answers import Failed

if TYPE_CHECKING:
    from .answers import What

REMEDIES = {
    "training": "use fewer base_channels, a smaller patch_size or another device",
    "segmentation": "give segmentation less memory, so that it takes smaller parts",
}
"""What helps where memory ran out."""

OTHER_REMEDY = "close other images and programs, or use another device"


def failure(error: Exception, what: What, generation: int = 0) -> Failed:
    """Describe an exception.

    Examples
    --------
    >>> failure(ValueError("no such thing"), "model").sentence
    'model failed: no such thing (ValueError)'
    """
    details = "".join(traceback.format_exception(error))
    if isinstance(error, EngineError):
        sentence = str(error)
    elif is_out_of_memory(error):
        sentence = f"memory ran out: {REMEDIES.get(what, OTHER_REMEDY)}"
    else:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        sentence = f"{what} failed: {reason} ({type(error).__name__})"
    return Failed(sentence, what, generation, details)


def is_fatal(error: Exception) -> bool:
    """Tell whether the device is of no more use to this process."""
    return "CUDA error" in str(error) and not is_out_of_memory(error)
