"""Segment a volume from a file into a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine import SegmentationConfig, Segmenter
from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.blockwise import Selection
from napari_unet3d.engine.device import name_of
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.model_file import load_with_digest
from napari_unet3d.io import Volume, create_volume, open_image
from napari_unet3d.io.location import existing, located
from napari_unet3d.io.unfinished import UnfinishedVolume

from . import on_workers, selection
from .blocks import Task, segment_all, segment_resumably
from .concurrent_blocks import on_devices, task_on_devices
from .described import descriptions
from .doubts import warn_of_little_memory, warn_of_spacing
from .files import check_outputs, expanded
from .flags import add_flags, given_flags
from .on_workers import Files, workers
from .origin import origin, read_from
from .progress import RemainingTime
from .selection import read_selection
from .settings import build_run, overlay_values, read_run

if TYPE_CHECKING:
    import argparse

    from napari_unet3d.engine.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = "%(prog)s --model FILE --image FILE --output FILE [options]"
    files = parser.add_argument_group("files")
    files.add_argument("--model", required=True, metavar="FILE", help="Trained model")
    files.add_argument(
        "--image", required=True, metavar="FILE", help="Volume to segment"
    )
    files.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="Segmentation to write, classes 1 to K; its ending decides the format",
    )
    files.add_argument(
        "--probabilities",
        metavar="FILE",
        help="Also write the probability of each class as a channel, 255 for certain",
    )
    files.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file whose sections segmentation and data are used; flags win over "
        "it",
    )
    files.add_argument(
        "--restart",
        action="store_true",
        help="Forget an unfinished earlier run that writes the same output",
    )
    group = parser.add_argument_group("segmentation")
    add_flags(group, "segmentation")
    selection.add_arguments(group)
    add_flags(parser.add_argument_group("data"), "data", only=("channels", "axes"))
    on_workers.add_arguments(parser.add_argument_group("many processes or machines"))


def run(options: argparse.Namespace) -> None:
    """Segment one volume."""
    flags = given_flags(options)
    file = read_run(options.config) if options.config else {}
    config = build_run(overlay_values(file, flags))
    segment_file(
        options.model,
        options.image,
        options.output,
        options.probabilities,
        config=config.segmentation,
        channels=config.data.channels,
        axes=config.data.axes,
        region=options.region,
        mask=options.mask,
        skip_below=options.skip_below,
        restart=options.restart,
        dask=options.dask,
        dask_local=options.dask_local,
    )


def segment_file(
    model: str | Path,
    image: str | Path,
    output: str | Path,
    probabilities: str | Path | None = None,
    *,
    config: SegmentationConfig | None = None,
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    region: str | None = None,
    mask: str | Path | None = None,
    skip_below: str | float | None = None,
    restart: bool = False,
    dask: str | None = None,
    dask_local: int | None = None,
) -> None:
    """Segment a volume; the outputs appear only once they are complete.

    OME-Zarrs are written block by block; where that ends early, the next call with the
    same arguments goes on.

    Parameters
    ----------
    model, image, output : path
        Trained model, volume to segment, file to write.
    probabilities : path, optional
        File to write the probability of each class to.
    config : SegmentationConfig, optional
        How to segment.
    channels, axes : optional
        As for `napari_unet3d.io.open_image`.
    region, mask, skip_below : optional
        What to segment, see `selection`.
    restart : bool
        Whether to forget an unfinished earlier run.
    dask : str, optional
        Address of a scheduler whose workers do it.
    dask_local : int, optional
        Number of processes to do it in.

    Raises
    ------
    EngineError
        Where a file cannot be read or written or does not fit the model.
    """
    outputs = [output] if probabilities is None else [output, probabilities]
    check_outputs(outputs, [image, model, *([] if mask is None else [mask])])
    other = next((p for p in outputs if located(p).kind != "OME-Zarr"), None)
    if other is not None and (dask, dask_local) != (None, None):
        raise EngineError(
            f"several processes write OME-Zarrs only, got {other}; choose a name that "
            "ends in .zarr"
        )
    keep_freed_memory()
    config = config or SegmentationConfig()
    checkpoint, digest = load_with_digest(expanded(model))
    volume = open_image(image, axes=axes, channels=channels)
    warn_of_spacing(
        volume.source,
        volume.spacing,
        volume.unit or "",
        checkpoint.model.spacing,
        checkpoint.unit,
    )
    chosen = read_selection(volume.data.shape[1:], region, mask, skip_below, axes)
    selected, with_probabilities = chosen or Selection(), len(outputs) > 1

    def check_inputs() -> None:
        """Make sure that all is there: a zarr that vanishes reads as zeros."""
        for path in (image,) if mask is None else (image, mask):
            existing(path)

    if other is None:
        files = [
            UnfinishedVolume(path, shape, "uint8", **description)
            for path, (shape, description) in zip(
                outputs, descriptions(checkpoint, volume), strict=False
            )
        ]
        with workers(dask, dask_local, config) as crew:
            if crew is None:
                segmenter = Segmenter(checkpoint, volume.data, config, read_ahead=True)
                config = replace(config, precision=name_of(segmenter.dtype))
                device, carry_out = segmenter.device.type, on_devices(segmenter)
                task = task_on_devices(segmenter, selected, with_probabilities)
            else:
                config = replace(config, precision=crew.precision)
                # Only to plan with.
                here = replace(config, device="cpu", recompute_statistics=False)
                segmenter = Segmenter(checkpoint, volume.data, here)
                device = crew.device
                task = Task(
                    segmenter,
                    selected,
                    crew.block_memory,
                    with_probabilities,
                    crew.at_once,
                )
                named = Files(model, digest, image, axes, channels, mask, files)
                carry_out = crew.carry_out(named, config)
            made_from = origin(digest, volume, segmenter.features.statistics, config)
            made_from["device"] = device
            segment_resumably(
                task,
                files,
                made_from
                | read_from(axes, channels, outputs[1:])
                | selection.origin(region, mask, skip_below),
                check_inputs,
                restart=restart,
                carry_out=carry_out,
                is_kept=crew is not None,
            )
    else:
        _segment_at_once(checkpoint, volume, config, outputs, chosen, check_inputs)
    print(f"wrote {' and '.join(map(str, outputs))}", file=sys.stderr)


def _segment_at_once(
    checkpoint: Checkpoint,
    volume: Volume,
    config: SegmentationConfig,
    outputs: Sequence[str | Path],
    chosen: Selection | None,
    check_inputs: Callable[[], None],
) -> None:
    """Segment into files that cannot be left unfinished."""
    with ExitStack() as files:
        arrays: list[Any] = [
            files.enter_context(create_volume(path, shape, "uint8", **description))
            for path, (shape, description) in zip(
                outputs, descriptions(checkpoint, volume), strict=False
            )
        ]
        segmenter = Segmenter(checkpoint, volume.data, config, read_ahead=True)
        carry_out = on_devices(segmenter)
        if chosen is None and carry_out is None:
            report = RemainingTime()
            for event in segmenter.run(*arrays):
                report(event)
        else:
            task = task_on_devices(segmenter, chosen or Selection(), len(outputs) > 1)
            warn_of_little_memory(task)
            blocks = task.plan(task.memory(), task.at_once)
            steps = (carry_out or segment_all)(task, blocks, *arrays)
            with closing(steps):
                for _ in steps:
                    pass
        check_inputs()
