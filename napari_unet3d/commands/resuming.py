"""The settings of a model that is trained on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

from .flags import flag_of

if TYPE_CHECKING:
    from napari_unet3d.engine.checkpoint import Checkpoint

    from .settings import RunConfig


def settings_of(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the settings that a model was trained with; none without a model."""
    if checkpoint is None:
        return {}
    training = asdict(checkpoint.training)
    if training["steps"]:
        # It is what counted where both were given from Python.
        training["minutes"] = None
    return {"model": asdict(checkpoint.model), "training": training}


def check_same_network(config: RunConfig, checkpoint: Checkpoint) -> None:
    """Refuse settings that would need another network than the model's.

    Raises
    ------
    EngineError
        Naming the first such flag, and what the model has.
    """
    # The depth that was asked for may have been too much for a small volume.
    wanted = replace(
        config.model, depth=min(config.model.depth, checkpoint.model.depth)
    )
    for name, has in asdict(checkpoint.model).items():
        value = getattr(wanted, name)
        if value not in (None, has):
            raise EngineError(
                f"{flag_of([name])} is {_listed(value)}, but the model to go on from "
                f"has {_listed(has)}; leave it out, or train a new model without "
                "--resume"
            )


def _listed(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    nested = any(isinstance(part, tuple) for part in value)
    return ("/" if nested else ",").join(map(_listed, value))
