"""Pictures of volumes with classes over them, as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_unet3d.engine.errors import EngineError

COLORS = (
    "#4477aa",
    "#ee6677",
    "#ccbb44",
    "#228833",
    "#66ccee",
    "#aa3377",
    "#ee8866",
    "#bbbbbb",
    "#44bb99",
    "#ffaabb",
)
"""Colours of the classes 1, 2, ..., distinct to colour-blind eyes (Paul Tol)."""

PLANES = ("XY", "XZ", "YZ")
_GAP, _TEXT, _FONT = 8, 20, 13


def gray_levels(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch a plane between its 1st and 99th percentiles."""
    low, high = np.percentile(plane, [1, 99])
    scaled = (plane - low) / max(high - low, 1e-12)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def overlay(
    plane: NDArray[Any],
    labels: NDArray[Any] | None,
    opacity: float = 0.45,
) -> NDArray[np.uint8]:
    """Colour the labelled pixels of a plane (H, W).

    Returns
    -------
    (H, W, 3) ndarray of uint8
    """
    picture = np.repeat(gray_levels(plane)[..., None], 3, axis=-1)
    if labels is None:
        return picture
    colors = np.array([_rgb(color) for color in COLORS], float)
    painted = labels > 0
    chosen = colors[(labels[painted].astype(int) - 1) % len(COLORS)]
    picture[painted] = (1 - opacity) * picture[painted] + opacity * chosen
    return picture


def three_planes(
    volume: NDArray[Any],
    labels: NDArray[Any] | None,
    position: Sequence[int],
    aspect: Sequence[float] = (1.0, 1.0, 1.0),
) -> list[NDArray[np.uint8]]:
    """Cut a volume (Z, Y, X) through `position` in XY, XZ and YZ.

    Voxels are repeated so that lengths look right under the spacing `aspect`.
    """
    pictures = []
    for axis in range(3):
        plane = volume.take(position[axis], axis)
        over = None if labels is None else labels.take(position[axis], axis)
        rows, columns = (other for other in range(3) if other != axis)
        picture = overlay(plane, over)
        shape = [
            round(picture.shape[1] * aspect[columns] / min(aspect)),
            round(picture.shape[0] * aspect[rows] / min(aspect)),
        ]
        scaled = Image.fromarray(picture).resize(
            (shape[0], shape[1]), Image.Resampling.NEAREST
        )
        pictures.append(np.asarray(scaled))
    return pictures


def save_table(
    path: str | Path,
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]],
    columns: Sequence[str],
    zoom: int = 2,
) -> None:
    """Write rows of pictures with captions as one PNG.

    Raises
    ------
    EngineError
        Where the file cannot be written.
    """
    zoomed = [
        (caption, [np.repeat(np.repeat(p, zoom, 0), zoom, 1) for p in pictures])
        for caption, pictures in rows
    ]
    widths = [
        max(pictures[k].shape[1] for _, pictures in zoomed)
        for k in range(len(zoomed[0][1]))
    ]
    heights = [max(p.shape[0] for p in pictures) for _, pictures in zoomed]
    size = (
        sum(widths) + _GAP * (len(widths) + 1),
        _TEXT + sum(h + _TEXT + _GAP for h in heights) + _GAP,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.font = ImageFont.load_default(_FONT)
    lefts = np.cumsum([_GAP, *(w + _GAP for w in widths)]).tolist()
    for left, name in zip(lefts, columns, strict=False):
        draw.text((left, 2), name, fill="black")
    top = _TEXT
    for (caption, pictures), height in zip(zoomed, heights, strict=True):
        draw.text((_GAP, top + 2), caption, fill="#555555")
        for left, picture in zip(lefts, pictures, strict=False):
            sheet.paste(Image.fromarray(picture), (int(left), top + _TEXT))
        top += height + _TEXT + _GAP
    _save(sheet, Path(path))


def _save(sheet: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        sheet.save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise EngineError(
            f"cannot write the picture {path}: {error.strerror or error}; choose a "
            "folder that exists, may be written to and has room"
        ) from error


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
