"""One command on several devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.errors import EngineError

from .interruption import stopped_by_signals

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
        raise EngineError(f"--devices must be at least 1, got {count}")
    if count == 1:
        return
    import torch

    if ":" in training.device:
        raise EngineError(
            f"--device {training.device} names one device but --devices is {count}; "
            f"give --device {training.device.split(':')[0]}, or leave out --devices"
        )
    device = choose_device(training.device)
    if not torch.distributed.is_available() or device.type == "mps":
        raise EngineError(
            f"--devices {count} does not work with {device.type} and torch "
            f"{torch.__version__} here; leave it out, or give --device cpu"
        )
    if device.type == "cuda" and count > (found := torch.cuda.device_count()):
        raise EngineError(
            f"--devices is {count} but torch sees {found} GPU{'s'[: found != 1]}; give "
            f"--devices {found}, or --device cpu"
        )
    if training.batch_size and training.batch_size < count:
        raise EngineError(
            f"--batch-size is {training.batch_size}, which {count} devices cannot "
            f"share; give --batch-size {count} or more, or --devices "
            f"{training.batch_size}"
        )


def train_on_devices(words: Sequence[str], count: int) -> NoReturn:
    """Run a training in as many processes, and end as they end.

    Parameters
    ----------
    words : sequence of str
        Command line after ``napari-unet3d``.
    count : int
        How many processes.
    """
    from napari_unet3d.distributed.processes import run_processes

    with stopped_by_signals() as stop:
        status = run_processes(words, count, stop)
    raise SystemExit(status)
