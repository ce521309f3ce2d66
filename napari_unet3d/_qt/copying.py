"""One image on its way to the worker, in a thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.worker.room import fits_in_memory

from .layers import is_lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_unet3d.io.lazy_image import StoredImage
    from napari_unet3d.worker.client import WorkerClient

    from .volumes import VolumeChoice

PROGRESS_SECONDS = 0.2
"""Between two lines about an image that is copied."""


class Copy(threading.Thread):
    """Make a volume known in a thread, without touching Qt or the view of a layer."""

    def __init__(
        self,
        client: WorkerClient,
        choice: VolumeChoice,
        ended: Callable[[Copy], None],
        progressed: Callable[[Copy, str], None],
    ) -> None:
        super().__init__(name="napari-unet3d-copy", daemon=True)
        self.cancelled = threading.Event()
        self.choice = choice
        self.number: int | None = None
        self.spooled: StoredImage | None = None
        self.problem = ""
        self._client = client
        self._ended, self._progressed = ended, progressed
        self.grid = choice.spacing, choice.unit
        self._name = str(choice.layer.name)
        self._last = time.monotonic()

    def run(self) -> None:
        """Say where the voxels are, or copy them; tell the end however it comes."""
        try:
            self.number = self._open()
        except Exception as error:  # noqa: BLE001 (of a lazy layer: any whatever)
            self.problem = str(error) or type(error).__name__
        if not self.cancelled.is_set() or self.number is not None:
            self._ended(self)

    def _open(self) -> int:
        choice, stored = self.choice, self._origin()
        copied = None
        if stored is None:
            lazy = any(is_lazy(layer) for layer in (choice.layer, *choice.others))
            if lazy and not fits_in_memory(choice.nbytes):
                from .spooling import spool

                stored = self.spooled = spool(choice, self._on_progress)
            else:
                copied = _Slabs(choice)
        return self._client.open_volume(
            copied,
            stored=stored,
            spacing=self.grid[0],
            unit=self.grid[1],
            name=self._name,
            progress=self._on_progress,
        )

    def _origin(self) -> StoredImage | None:
        if not may_be_stored(self.choice):
            return None
        from .voxel_origin import stored_image_of

        return stored_image_of(self.choice)

    def _on_progress(self, share: float) -> None:
        if self.cancelled.is_set():
            raise EngineError("it is not wanted any more")
        if time.monotonic() - self._last > PROGRESS_SECONDS:
            self._last = time.monotonic()
            verb = "Reading" if fits_in_memory(self.choice.nbytes) else "Copying"
            self._progressed(self, f"{verb} “{self._name}” … {share:.0%}")


def may_be_stored(choice: VolumeChoice) -> bool:
    """Whether it is worth looking for the files in which a volume lies."""
    return all(
        not isinstance(data, np.ndarray)
        or isinstance(data, np.memmap)
        or isinstance(data.base, np.memmap)
        for data, _ in choice.parts()
    )


class _Slabs:
    """A volume (C, Z, Y, X) that is read slices by slices."""

    def __init__(self, choice: VolumeChoice) -> None:
        self._choice = choice
        self.shape = (choice.n_channels, *choice.shape)
        self.dtype = choice.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self._choice.read((index[1], slice(None), slice(None)))
