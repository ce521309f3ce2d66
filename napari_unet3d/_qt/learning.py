"""The annotated volumes of a session, and which of them are learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from .annotated_volume import AnnotatedVolume
from .layers import is_annotation_for, remember_origin
from .sentences import doubt_about_spacing, why_not_together
from .state import OtherVolume
from .volumes import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Labels

    from .classes import Classes
    from .projects import Project
    from .volumes import VolumeChoice


class Learning(QObject):
    """Remember the volumes that were annotated, and choose which to learn from."""

    changed = Signal(object, object)
    """An `AnnotatedVolume` and its `Changes`."""
    classes_changed = Signal(object)
    painting = Signal()
    reshaped = Signal()
    unusable = Signal(str)
    dropped = Signal(object)
    """An `AnnotatedVolume` whose image or annotation has gone."""

    def __init__(
        self,
        viewer: ViewerModel,
        project_of: Callable[[VolumeChoice], Project],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._project_of = project_of
        self.volumes: list[AnnotatedVolume] = []

    def hold(self, choice: VolumeChoice, layer: Labels) -> AnnotatedVolume:
        """Remember a volume with its annotation; a layer belongs to one volume only."""
        found = self.of(choice)
        if found is not None and found.layer == layer:
            if not found.choice.same_as(choice):
                found.choice, found.project = choice, self._project_of(choice)
            return found
        classes = self.classes(choice)
        if found is not None:
            self._forget(found)
        for each in [v for v in self.volumes if v.layer == layer]:
            self._drop(each)
        remember_origin(layer, choice)
        made = AnnotatedVolume(
            self._viewer, choice, layer, self._project_of(choice), classes, self
        )
        made.changed.connect(self.changed)
        made.classes_changed.connect(self.classes_changed)
        made.painting.connect(self.painting)
        made.reshaped.connect(self.reshaped)
        made.unusable.connect(self.unusable)
        made.complain()
        self.volumes.append(made)
        return made

    def of(self, choice: VolumeChoice | None) -> AnnotatedVolume | None:
        """Return the remembered volume of an image, whatever its channels."""
        if choice is None:
            return None
        same = (volume for volume in self.volumes if volume.choice.is_at(choice))
        return next(same, None)

    def learned_from(self, choice: VolumeChoice | None) -> list[AnnotatedVolume]:
        """Return what is learned from while an image is chosen, that one first."""
        own = self.of(choice)
        return [*([own] if own else []), *filter(self._is_ticked(choice), self.volumes)]

    def classes(self, choice: VolumeChoice | None) -> Classes:
        """Return the classes of all that is learned from, or of what was first."""
        learned = self.learned_from(choice) or self.volumes[:1]
        return max((volume.classes for volume in learned), key=len, default=())

    def others(self, choice: VolumeChoice | None) -> tuple[OtherVolume, ...]:
        """Describe what else could be learned from."""
        own, is_ticked = self.of(choice), self._is_ticked(choice)
        return tuple(
            OtherVolume(
                number,
                f"{volume.choice.layer.name}{volume.choice.at_time}",
                len(volume.labelled.index),
                is_ticked(volume),
                self._why_not(volume, choice),
                doubt_about_spacing(volume.choice, choice),
            )
            for number, volume in enumerate(self.volumes)
            if volume is not own
        )

    def tick(self, number: int, ticked: bool) -> None:
        """Learn from a volume, or do not, whenever another one is chosen."""
        self.volumes[number].ticked = ticked

    def set_classes(self, choice: VolumeChoice | None, classes: Classes) -> None:
        """Give names and colours to all layers that share their classes."""
        for volume in self._sharing(choice):
            volume.set_classes(classes + volume.classes[len(classes) :])

    def remove_class(self, choice: VolumeChoice | None, label: int) -> None:
        """Erase a class in all layers that share it; those behind it move up."""
        for volume in self._sharing(choice):
            if label <= len(volume.classes):
                volume.remove_class(label)

    def look(self) -> None:
        """Look at all layers now."""
        for volume in self.volumes:
            volume.look()

    def drop_missing(self) -> None:
        """Forget volumes whose layers were removed, or fit each other no more."""
        layers = list(self._viewer.layers)
        for volume in list(self.volumes):
            parts = (volume.layer, volume.choice.layer, *volume.choice.others)
            if not all(part in layers for part in parts) or not is_annotation_for(
                volume.layer, volume.choice
            ):
                self._drop(volume)

    def close(self) -> None:
        """Let go of all layers."""
        for volume in list(self.volumes):
            self._forget(volume)

    def _is_ticked(
        self, choice: VolumeChoice | None
    ) -> Callable[[AnnotatedVolume], bool]:
        own = self.of(choice)

        def is_ticked(volume: AnnotatedVolume) -> bool:
            if volume is own or self._why_not(volume, choice):
                return False
            if volume.ticked is None:
                return doubt_about_spacing(volume.choice, choice) is None
            return volume.ticked

        return is_ticked

    def _why_not(
        self, volume: AnnotatedVolume, choice: VolumeChoice | None
    ) -> str | None:
        if choice is None:
            return "There is no image."
        if problem := problem_of(choice):
            return problem
        first = self.of(choice) or self.volumes[0]
        return why_not_together(volume.choice, volume.classes, choice, first.classes)

    def _sharing(self, choice: VolumeChoice | None) -> list[AnnotatedVolume]:
        """Return the chosen volume and those learned from with it."""
        return self.learned_from(choice) if self.of(choice) else []

    def _drop(self, volume: AnnotatedVolume) -> None:
        if tuple(volume.layer.data.shape) == volume.labelled.shape:
            volume.look()
        self._forget(volume)
        self.dropped.emit(volume)

    def _forget(self, volume: AnnotatedVolume) -> None:
        volume.close()
        self.volumes.remove(volume)
        volume.deleteLater()
