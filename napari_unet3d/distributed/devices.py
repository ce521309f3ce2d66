"""Whether there are as many devices as a training is to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from napari_unet3d.engine.config import TrainingConfig


def check_devices(count: int, training: TrainingConfig) -> None:
    """Refuse a number of devices that there are not, or that cannot share a batch.

    Raises
    ------
    EngineError
        With the number, and what to do.
    """
    if count < 1:
        raise EngineError(f"devices must be at least 1, got {count}")
    if count == 1:
        return
    if ":" in training.device:
        raise EngineError(
            f"{count} devices are to train but device is {training.device}, which is "
            f"one; give device {training.device.split(':')[0]}, or train on 1"
        )
    device = choose_device(training.device)
    if not torch.distributed.is_available() or device.type == "mps":
        raise EngineError(
            f"{count} devices cannot train together with {device.type} and torch "
            f"{torch.__version__} here; train on 1, or give device cpu"
        )
    if device.type == "cuda" and count > (found := torch.cuda.device_count()):
        raise EngineError(
            f"{count} devices are to train but torch sees {found} "
            f"GPU{'s'[: found != 1]}; train on {found}, or give device cpu"
        )
    if training.batch_size and training.batch_size < count:
        raise EngineError(
            f"{count} devices cannot share a batch_size of {training.batch_size}; give "
            f"a batch_size of {count} or more, or train on {training.batch_size}"
        )
