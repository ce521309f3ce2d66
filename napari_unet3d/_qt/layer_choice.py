"""The boxes of image and annotation layers, kept in step with the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from .classes import METADATA
from .layers import is_annotation_for, put_on_grid, remember
from .volumes import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.events import Event

    from .annotated_volume import AnnotatedVolume
    from .data_section import DataSection
    from .learning import Learning
    from .volumes import VolumeChoice


class LayerChoice(QObject):
    """Offer the layers of a viewer, and tell when one that is in use goes away."""

    image_lost = Signal(object, str)
    """A `VolumeChoice` that cannot be used any more, and a sentence why."""
    regridded = Signal()
    """An image in use was moved or scaled."""

    def __init__(
        self,
        viewer: ViewerModel,
        section: DataSection,
        learning: Learning,
        known: Callable[[], Iterable[VolumeChoice]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._known = known
        self._viewer = viewer
        self._section = section
        self._learning = learning
        self._watched: tuple[VolumeChoice, ...] = ()
        self._bereft: list[VolumeChoice] = []
        """Volumes whose annotation was removed, and that have got no other."""
        self._names: list[tuple[Layer, str]] = []
        """Of the images, before one is renamed."""
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._on_layers)
        viewer.layers.events.renamed.connect(self._on_renamed)
        learning.dropped.connect(self._on_dropped)

    def start(self) -> None:
        """Offer what is there."""
        self._on_layers()
        self.watch()

    def close(self) -> None:
        """Let go of the viewer."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed):
            event.disconnect(self._on_layers)
        events.renamed.disconnect(self._on_renamed)
        self._learning.dropped.disconnect(self._on_dropped)
        self._watch(())
        self._names.clear()
        self._bereft.clear()

    def watch(self) -> None:
        """Watch the chosen image, annotated ones and those that the worker knows."""
        self._bereft = [
            choice
            for choice in self._bereft
            if choice.layer in self._viewer.layers and self._learning.of(choice) is None
        ]
        chosen = self._section.choice()
        self._watch(
            (
                *((chosen,) if chosen is not None else ()),
                *(volume.choice for volume in self._learning.volumes),
                *self._known(),
            )
        )

    def offer_annotations(self) -> None:
        """Offer the layers that can hold the annotation of the chosen image."""
        choice = self._section.choice()
        fitting: list[Labels] = []
        if choice is not None and problem_of(choice) is None:
            fitting = [
                layer
                for layer in self._viewer.layers
                if isinstance(layer, Labels) and is_annotation_for(layer, choice)
            ]
        chosen = self._annotation_of(choice, fitting) if choice is not None else None
        self._section.set_annotations(fitting, chosen)

    def reconsider(self) -> None:
        """See which annotations still fit their images."""
        self._learning.drop_missing()
        self.offer_annotations()

    def _annotation_of(
        self, choice: VolumeChoice, fitting: list[Labels]
    ) -> Labels | None:
        """Return the layer that holds the annotation of a volume, as far as known."""
        remembered = self._learning.of(choice)
        if remembered is not None and remembered.layer in fitting:
            return remembered.layer
        taken = [volume.layer for volume in self._learning.volumes]
        free = [
            layer
            for layer in fitting
            if layer not in taken and not _is_of_another(layer, choice)
        ]
        # A training may be under way: where its annotation was removed it must not go
        # on with other labels unless the person says so. Nor are labels of other tools
        # taken, which may be anything: instances by the thousand, dense results.
        own = [layer for layer in free if METADATA in layer.metadata]
        if any(bereft.is_at(choice) for bereft in self._bereft):
            own = []
        chosen = own or [layer for layer in free if _is_empty(layer)]
        return chosen[-1] if chosen else None

    def _on_dropped(self, volume: AnnotatedVolume) -> None:
        """Note that a volume has lost its annotation, unless that is still there."""
        if volume.is_lost(self._viewer):
            self._bereft.append(volume.choice)

    def _watch(self, choices: tuple[VolumeChoice, ...]) -> None:
        for layer in _layers_of(self._watched):
            layer.events.data.disconnect(self._on_data)
            for event in _grid_events(layer):
                event.disconnect(self._on_grid)
        self._watched = choices
        for layer in _layers_of(choices):
            layer.events.data.connect(self._on_data)
            for event in _grid_events(layer):
                event.connect(self._on_grid)

    def _on_layers(self, event: object = None) -> None:
        layers = list(self._viewer.layers)
        lost = [
            choice
            for choice in self._watched
            if any(layer not in layers for layer in (choice.layer, *choice.others))
        ]
        self._learning.drop_missing()
        images = [layer for layer in layers if _is_image(layer)]
        self._names = [(layer, layer.name) for layer in images]
        self._section.set_images(images, self._preferred())
        self.offer_annotations()
        self.watch()
        self._tell(lost, "“{}” was removed.")

    def _on_renamed(self, event: object = None) -> None:
        """Let what was made for an image follow its new name."""
        self._section.show_names()
        names = [layer.name for layer in self._viewer.layers]
        if len(set(names)) < len(names):
            # For a moment: napari is about to give one of them another name.
            return
        for image, name in self._names:
            if image.name != name:
                for layer in self._viewer.layers:
                    if layer.metadata.get(METADATA, {}).get("image") == name:
                        remember(layer, {"image": image.name})
        self._names = [(image, image.name) for image, _ in self._names]

    def _on_data(self, event: Event) -> None:
        self._learning.drop_missing()
        lost = [
            choice
            for choice in self._watched
            if event.source in (choice.layer, *choice.others)
        ]
        self._tell(lost, "The data of “{}” were replaced.")
        self.offer_annotations()

    def _on_grid(self, event: Event) -> None:
        """Move the plugin's layers with their image."""
        for layer in self._viewer.layers:
            made_for = layer.metadata.get(METADATA, {}).get("image")
            if made_for == event.source.name and layer.ndim in (3, 4):
                put_on_grid(layer, event.source)
        self.regridded.emit()

    def _tell(self, lost: list[VolumeChoice], sentence: str) -> None:
        told: list[VolumeChoice] = []
        for choice in lost:
            # A chosen image is watched twice where it is annotated too.
            if not any(choice.same_as(each) for each in told):
                self.image_lost.emit(choice, sentence.format(choice.layer.name))
                told.append(choice)

    def _preferred(self) -> Layer | None:
        active = self._viewer.layers.selection.active
        return active if active is not None and _is_image(active) else None


def _is_image(layer: Layer) -> bool:
    """Whether a layer is an image that the plugin has not made itself."""
    return isinstance(layer, Image) and "kind" not in layer.metadata.get(METADATA, {})


def _is_empty(layer: Labels) -> bool:
    """Whether nothing is labelled: a layer just made with napari's own button."""
    data = layer.data
    in_memory = isinstance(data, np.ndarray) and not isinstance(data, np.memmap)
    return in_memory and not data.any()


def _is_of_another(layer: Labels, choice: VolumeChoice) -> bool:
    """Whether a layer was made for another image, or another time."""
    made_for = layer.metadata.get(METADATA, {})
    name = made_for.get("image", choice.layer.name)
    if name != choice.layer.name:
        return True
    return bool(made_for.get("time", choice.time) != choice.time)


def _grid_events(layer: Image) -> tuple[Any, ...]:
    events = layer.events
    return events.scale, events.translate, events.rotate, events.shear, events.affine


def _layers_of(choices: tuple[VolumeChoice, ...]) -> list[Image]:
    """List the layers of volumes, each once."""
    layers: list[Image] = []
    for choice in choices:
        layers += [e for e in (choice.layer, *choice.others) if e not in layers]
    return layers
