"""The dense segmentation: a layer that fills while the worker writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_unet3d.worker.room import viewing_memory
from napari_unet3d.worker.shared import SharedArray

from . import layers
from .previewing import slice_in_view
from .segmentation_file import probabilities_beside

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_unet3d.io.lazy_array import LazyArray
    from napari_unet3d.worker.client import WorkerClient
    from napari_unet3d.worker.protocol import (
        SegmentDone,
        SegmentOpened,
        SegmentProgress,
    )

    from .classes import Classes
    from .volumes import VolumeChoice

REFRESH_MS = 250
"""Between two looks at what the worker has written."""


class Segmenting(QObject):
    """Ask for a segmentation and show what is done of it.

    The worker writes into the array behind the layer, or into an OME-Zarr of which the
    layer reads what is looked at; here it is only drawn again.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        client: WorkerClient,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._client = client
        self.generation = -1
        self.path = ""
        self._choice: VolumeChoice | None = None
        self._shown: VolumeChoice | None = None
        """Of which volume the layers are."""
        self._targets: list[SharedArray | str] = []
        self._classes: Classes = ()
        self._config: dict[str, Any] = {}
        self.layer: Labels | None = None
        self._probabilities: Image | None = None
        self._arrays: list[SharedArray] = []
        self._files: list[tuple[str, LazyArray]] = []
        """Where each output will be, and what shows it."""
        self._edited = False
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.setInterval(REFRESH_MS)
        self._redraw.timeout.connect(self._refresh)

    def begin(
        self,
        choice: VolumeChoice,
        number: int,
        classes: Classes,
        config: dict[str, Any],
        probabilities: bool = False,
        path: str = "",
    ) -> None:
        """Segment a volume, into a layer or a file."""
        self.generation = -1
        self._config, self.path = config, path
        self._arrays.clear()
        self._files.clear()
        targets: list[SharedArray | str]
        if path:
            targets = [path, *([probabilities_beside(path)] if probabilities else [])]
        else:
            self._arrays.append(SharedArray.create(choice.shape, np.uint8))
            if probabilities:
                shape = (len(classes), *choice.shape)
                self._arrays.append(SharedArray.create(shape, np.uint8))
            targets = [*self._arrays]
            self._show(choice, classes, [each.array for each in self._arrays])
        self._targets = targets
        self._choice, self._classes = choice, classes
        where = slice_in_view(self._viewer, choice)
        self.generation = self._client.segment(
            number,
            targets[0],
            targets[1] if len(targets) > 1 else None,
            config,
            begin_at=where.position if where is not None and where.axis == 0 else 0,
            resumable=bool(path),
        )

    def opened(self, event: SegmentOpened) -> None:
        """Show files that are being written, chunk by chunk as they are complete."""
        assert self._choice is not None
        paths = [str(target) for target in self._targets]
        arrays = [_opened(*each) for each in zip(event.folders, paths, strict=True)]
        self._files = list(zip(paths, arrays, strict=True))
        self._show(self._choice, self._classes, arrays)
        for layer, (path, _) in zip(
            (self.layer, self._probabilities), self._files, strict=False
        ):
            assert layer is not None
            layer.editable = False
            layers.remember(layer, {"path": path})

    def is_of(self, choice: VolumeChoice) -> bool:
        """Whether this is the image that is, or was last, segmented."""
        return self._choice is not None and self._choice.layer == choice.layer

    @property
    def volume(self) -> VolumeChoice | None:
        """The volume that is, or was last, segmented."""
        return self._choice

    def cancel(self) -> None:
        """End the segmentation; what is done stays."""
        self._client.cancel_segmentation(self.generation)

    def progressed(self, event: SegmentProgress) -> None:
        """Draw what is new, soon."""
        for _, array in self._files:
            lead = array.ndim - len(event.region)
            array.cache.forget([*((0, n) for n in array.shape[:lead]), *event.region])
        if not self._redraw.isActive():
            self._redraw.start()

    def done(self, event: SegmentDone | None = None) -> None:
        """Show the end, and write down in the layer how it came about."""
        if event is not None:
            # Complete, they have got their names.
            for path, array in self._files:
                array.reopen(f"{path}/0")
        self._refresh()
        if event is not None:
            facts = {
                "model": {
                    "step": event.model.step,
                    "class_names": list(event.model.class_names),
                    "spacing": list(event.model.spacing),
                    "held_out_iou": event.model.held_out_iou,
                    "version": event.model.version,
                },
                "settings": self._config,
                "seconds": event.seconds,
            }
            for layer in (self.layer, self._probabilities):
                if layer is not None and layer in self._viewer.layers:
                    layers.remember(layer, facts)

    def close(self) -> None:
        """Draw nothing any more."""
        self._redraw.stop()

    def _show(self, choice: VolumeChoice, classes: Classes, arrays: list[Any]) -> None:
        """Put arrays into layers: the existing ones unless they were edited."""
        old = self.layer if self.layer in self._viewer.layers else None
        same = self._shown is not None and self._shown.same_as(choice)
        if old is not None and same and not self._edited:
            old.data = arrays[0]
            old.editable = True
            layers.set_classes(old, classes, hide_background=True)
        else:
            self.layer = layers.add_labels(
                self._viewer, choice, "segmentation", arrays[0], classes, 0.6
            )
            self.layer.events.paint.connect(self._on_edit)
            self.layer.events.data.connect(self._on_edit)
        self._shown = choice
        self._edited = False
        if len(arrays) < 2:
            return
        if self._probabilities in self._viewer.layers and same:
            self._viewer.layers.remove(self._probabilities)
        self._probabilities = layers.add_image(
            self._viewer,
            choice,
            "probabilities",
            # Class 1 is what remains; the others are looked at one by one.
            arrays[1],
            **layers.class_grid_of(choice.layer),
        )
        self._probabilities.visible = False

    def _refresh(self) -> None:
        for layer in (self.layer, self._probabilities):
            if layer is not None and layer in self._viewer.layers:
                layers.refresh(layer)

    def _on_edit(self, event: object = None) -> None:
        self._edited = True


def _opened(folder: str, target: str) -> LazyArray:
    """Open a file that is being written, or complete by now."""
    from napari_unet3d.io.lazy_array import open_lazy

    capacity = viewing_memory()
    try:
        return open_lazy(f"{folder}/0", capacity)
    except (OSError, ValueError):
        return open_lazy(f"{target}/0", capacity)
