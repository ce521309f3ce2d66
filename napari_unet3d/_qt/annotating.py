"""The annotation layer: making it, its classes, and whole slices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from . import annotation_tools, layers
from .classes import (
    MAX_CLASSES,
    Classes,
    classes_of,
    extended,
    set_classes,
    without,
)
from .previewing import show_slice, slice_in_view
from .watching import AnnotationWatch

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Labels

    from .annotation_scan import Changes, Labelled
    from .annotation_tools import Slice
    from .volumes import VolumeChoice


class Annotating(QObject):
    """Everything that is done to the annotation layer."""

    changed = Signal(object, object)
    """`Changes` and everything that is `Labelled` now."""
    classes_changed = Signal(object)
    label_selected = Signal(int)
    painting = Signal()
    reshaped = Signal()
    """The layer has got data of another shape."""
    unusable = Signal(str)
    """A sentence about labels that no class can have."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._watch = AnnotationWatch(viewer, self)
        self._watch.changed.connect(self._on_changed)
        self._watch.painting.connect(self.painting)
        self._watch.reshaped.connect(self.reshaped)
        self._choice: VolumeChoice | None = None
        self._complained = 0
        self.classes: Classes = ()

    @property
    def layer(self) -> Labels | None:
        """The layer that is painted on."""
        return self._watch.layer

    @property
    def choice(self) -> VolumeChoice | None:
        """The volume that the layer belongs to."""
        return self._choice

    @property
    def labelled(self) -> Labelled | None:
        """What was labelled at the last look."""
        return self._watch.labelled if self._watch.layer is not None else None

    def add(
        self,
        choice: VolumeChoice,
        classes: Classes,
        data: np.ndarray | None = None,
    ) -> Labels:
        """Add an annotation layer; it is worked on from `use` on."""
        return layers.add_annotation(self._viewer, choice, classes, data)

    def use(self, layer: Labels | None, choice: VolumeChoice | None) -> None:
        """Work on this layer from now on."""
        self._choice = choice
        self._complained = 0
        if self.layer is not None:
            self.layer.events.selected_label.disconnect(self._on_label)
        self.classes = ()
        if layer is not None:
            self.classes = classes_of(layer)
            set_classes(layer, self.classes)
            layer.events.selected_label.connect(self._on_label)
        self._watch.watch(layer)
        if layer is not None and self.labelled is not None:
            self._name_found(self.labelled)
        self.classes_changed.emit(self.classes)
        if layer is not None:
            self.label_selected.emit(int(layer.selected_label))

    def look(self) -> Labelled | None:
        """Look at the layer now, rather than a moment after the last stroke."""
        self._watch.flush()
        return self.labelled

    def close(self) -> None:
        """Let go of the layer."""
        if self.layer is not None:
            self.layer.events.selected_label.disconnect(self._on_label)
        self._watch.close()

    def set_classes(self, classes: Classes) -> None:
        """Take over names and colours."""
        if self.layer is None:
            return
        self.classes = classes
        set_classes(self.layer, classes)
        self.classes_changed.emit(classes)

    def remove_class(self, label: int) -> None:
        """Erase a class; those behind it move up."""
        if self.layer is not None:
            annotation_tools.remove_label(self.layer, label)
            self.set_classes(without(self.classes, label))

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
        if self._choice is not None:
            show_slice(self._viewer, self._choice, where)

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
        if self._choice is None:
            return None
        where = slice_in_view(self._viewer, self._choice)
        if where is None:
            show_info("Show a single slice of the volume first: no 3D view.")
        return where

    def _on_changed(self, changes: Changes, labelled: Labelled) -> None:
        self._name_found(labelled)
        self.changed.emit(changes, labelled)

    def _name_found(self, labelled: Labelled) -> None:
        """Give a class to every label that was painted without one."""
        largest = int(labelled.labels.max(initial=0))
        if labelled.unusable and labelled.unusable != self._complained:
            self._complained = labelled.unusable
            self.unusable.emit(
                f"Label {labelled.unusable} is left out: classes are 1 to "
                f"{MAX_CLASSES}. Paint with one of the table."
            )
        if largest > len(self.classes):
            self.set_classes(extended(self.classes, largest))

    def _on_label(self, event: object = None) -> None:
        if self.layer is not None:
            self.label_selected.emit(int(self.layer.selected_label))
