"""A volume with its annotation layer, of which every stroke is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_unet3d.io.annotation_file import MAX_CLASSES

from .annotation_tools import is_undone, remove_label
from .classes import classes_of, extended, set_classes, with_class, without
from .watching import AnnotationWatch

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from .annotation_scan import Changes, Labelled
    from .classes import Classes, LabelClass
    from .projects import Project
    from .volumes import VolumeChoice


@dataclass
class _Removal:
    """A class that was removed; undoing that brings its labels back."""

    label: int
    removed: LabelClass
    change: object
    """What the layer's history holds of it."""
    is_undone: bool = False


class AnnotatedVolume(QObject):
    """A volume with the layer that holds its annotation, which is watched.

    Parameters
    ----------
    viewer : ViewerModel
        Where both are.
    choice : VolumeChoice
        The volume.
    layer : Labels
        Its annotation.
    project : Project
        Where it is kept.
    classes : tuple of LabelClass
        For a layer that does not name its own.
    """

    changed = Signal(object, object)
    """Itself, and the `Changes` since the last look."""
    classes_changed = Signal(object)
    painting = Signal()
    reshaped = Signal()
    """The layer has got data of another shape."""
    unusable = Signal(str)
    """A sentence about labels that no class can have, or that cannot be read."""

    def __init__(
        self,
        viewer: ViewerModel,
        choice: VolumeChoice,
        layer: Labels,
        project: Project,
        classes: Classes,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.choice, self.layer = choice, layer
        self.project = project
        self.ticked: bool | None = None
        """Whether to learn from it beside another; `None` before the person said."""
        self._watch = AnnotationWatch(viewer, self)
        self._watch.looked.connect(self._follow_undo)
        self._watch.changed.connect(self._on_changed)
        self._watch.unreadable.connect(self._on_unreadable)
        self._watch.painting.connect(self.painting)
        self._watch.reshaped.connect(self.reshaped)
        self._complained = 0
        self._removals: list[_Removal] = []
        self.set_classes(classes_of(layer, classes))
        self._watch.watch(layer)
        # Nobody listened during the first look.
        self._complained = 0

    @property
    def labelled(self) -> Labelled:
        """What was labelled at the last look."""
        return self._watch.labelled

    def is_lost(self, viewer: ViewerModel) -> bool:
        """Whether the annotation was removed, or given data of another shape."""
        return (
            self.layer not in viewer.layers
            or tuple(self.layer.data.shape) != self.labelled.shape
        )

    def look(self) -> Labelled:
        """Look at the layer now, rather than a moment after the last stroke."""
        return self._watch.flush()

    def set_classes(self, classes: Classes) -> None:
        """Take over names and colours."""
        self.classes = classes
        set_classes(self.layer, classes)
        self.classes_changed.emit(self)

    def remove_class(self, label: int) -> None:
        """Erase a class; those behind it move up. Undo brings its name back too."""
        self.look()
        if label > len(self.classes):
            return
        removed, change = self.classes[label - 1], remove_label(self.layer, label)
        self.set_classes(without(self.classes, label))
        if change is not None:
            self._removals.append(_Removal(label, removed, change))

    def complain(self) -> None:
        """Say once which label is of no use."""
        label = self.labelled.unusable
        if label and label != self._complained:
            self._complained = label
            self.unusable.emit(
                f"Label {label} is left out: classes are 1 to {MAX_CLASSES}. Paint "
                "with one of the table."
            )

    def close(self) -> None:
        """Let go of the layer."""
        self._watch.close()

    def _largest(self) -> int:
        return int(self.labelled.labels.max(initial=0))

    def _on_changed(self, changes: Changes, labelled: Labelled) -> None:
        # A label that was painted without a class gets one.
        if self._largest() > len(self.classes):
            self.set_classes(extended(self.classes, self._largest()))
        self.complain()
        self.changed.emit(self, changes)

    def _on_unreadable(self, sentence: str) -> None:
        self.unusable.emit(
            f"“{self.layer.name}”: {sentence}. What was painted before is kept; new "
            "strokes are learned from once it can be read again."
        )

    def _follow_undo(self) -> None:
        """Bring the names of removed classes back, or take them away again."""
        states = [(each, is_undone(self.layer, each.change)) for each in self._removals]
        self._removals = [each for each, undone in states if undone is not None]
        for removal, undone in reversed(states):
            if undone and not removal.is_undone:
                # Classes may have been removed since that nothing was labelled with.
                classes = extended(self.classes, removal.label - 1)
                self.set_classes(with_class(classes, removal.label, removal.removed))
                removal.is_undone = True
        for removal, undone in states:
            if undone is False and removal.is_undone:
                self.set_classes(without(self.classes, removal.label))
                removal.is_undone = False
