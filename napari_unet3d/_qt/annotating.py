"""The annotation layer: making it, going through it, and whole slices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from . import annotation_tools, layers
from .previewing import show_slice, slice_in_view

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Labels

    from .annotated_volume import AnnotatedVolume
    from .annotation_scan import Labelled
    from .annotation_tools import Slice
    from .classes import Classes
    from .volumes import VolumeChoice


class Annotating(QObject):
    """Everything that is done to the annotation layer."""

    label_selected = Signal(int)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._volume: AnnotatedVolume | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer that is painted on."""
        return self._volume.layer if self._volume is not None else None

    @property
    def labelled(self) -> Labelled | None:
        """What was labelled at the last look."""
        return self._volume.labelled if self._volume is not None else None

    @property
    def classes(self) -> Classes:
        """The classes that are told apart in the layer."""
        return self._volume.classes if self._volume is not None else ()

    def add(
        self,
        choice: VolumeChoice,
        classes: Classes,
        data: Any = None,
    ) -> Labels:
        """Add an annotation layer; it is worked on from `use` on."""
        return layers.add_annotation(self._viewer, choice, classes, data)

    def use(self, volume: AnnotatedVolume | None) -> None:
        """Work on the annotation of this volume from now on."""
        self.close()
        self._volume = volume
        if self.layer is not None:
            self.layer.events.selected_label.connect(self._on_label)
            self._on_label()

    def look(self) -> Labelled | None:
        """Look at the layer now, rather than a moment after the last stroke."""
        return self._volume.look() if self._volume is not None else None

    def close(self) -> None:
        """Let go of the layer."""
        if self.layer is not None:
            self.layer.events.selected_label.disconnect(self._on_label)
        self._volume = None

    def select(self, label: int) -> None:
        """Paint with a class."""
        if self.layer is not None and self.layer.selected_label != label:
            self.layer.selected_label = label

    def fill_background(self) -> None:
        """Label the rest of the slice in view as background."""
        where = self.in_view()
        if where is not None and self.layer is not None:
            annotation_tools.fill_background(self.layer, where)

    def clear(self) -> None:
        """Erase the labels of the slice in view."""
        where = self.in_view()
        if where is not None and self.layer is not None:
            annotation_tools.clear(self.layer, where)

    def accept(self, where: Slice, prediction: np.ndarray) -> None:
        """Take over a prediction where nothing is labelled."""
        if self.layer is not None:
            annotation_tools.accept(self.layer, where, prediction)

    def go_on(self) -> None:
        """Show the slice whose annotation is missing most."""
        labelled = self.look()
        if labelled is not None:
            self.show(annotation_tools.next_slice(labelled))

    def show(self, where: Slice) -> None:
        """Show a slice."""
        if self._volume is not None:
            show_slice(self._viewer, self._volume.choice, where)

    def slices(self) -> list[Slice]:
        """List the annotated slices."""
        labelled = self.labelled
        return annotation_tools.annotated_slices(labelled) if labelled else []

    def counts(self) -> list[tuple[int, int]]:
        """Count voxels and slices of each class."""
        labelled = self.labelled
        if labelled is None:
            return []
        count = len(self.classes)
        voxels = [labelled.voxels_of(k) for k in range(1, count + 1)]
        slices = annotation_tools.slices_per_class(labelled, self.slices(), count)
        return list(zip(voxels, slices, strict=True))

    def in_view(self) -> Slice | None:
        """Return the slice in view, or say that a single one must be."""
        if self._volume is None:
            return None
        where = slice_in_view(self._viewer, self._volume.choice)
        if where is None:
            show_info("Show a single slice of the volume first: no 3D view.")
        return where

    def _on_label(self, event: object = None) -> None:
        if self.layer is not None:
            self.label_selected.emit(int(self.layer.selected_label))
