"""Masks of a volume, read lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

from .reading import open_image

if TYPE_CHECKING:
    import os

    from .volume import Volume


def open_mask(path: str | os.PathLike[str], axes: str | None = None) -> Mask:
    """Open a volume of one channel as a mask.

    Parameters
    ----------
    path : str or path-like
        As for `open_image`.
    axes : str, optional
        What the axes are where the file does not say.

    Raises
    ------
    EngineError
        As `open_image`, or where there are several channels.
    """
    return Mask(open_image(path, axes=axes, override=False))


class Mask:
    """Show a volume of one channel as (Z, Y, X), not 0 where it is set."""

    def __init__(self, volume: Volume) -> None:
        self._data: Any = volume.data
        if self._data.shape[0] != 1:
            raise EngineError(
                f"the mask {volume.source} has {self._data.shape[0]} channels; save "
                "one of them"
            )
        self.shape = tuple(self._data.shape[1:])

    def __getitem__(self, key: Any) -> Any:
        """Read a block selected by three integers or slices."""
        return self._data[(0, *key)]
