"""The boxes of image and annotation layers, kept in step with the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from .classes import METADATA
from .layers import is_annotation_for
from .volumes import problem_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from .data_section import DataSection
    from .volumes import VolumeChoice


class LayerChoice(QObject):
    """Offer the layers of a viewer, and tell when one that is in use goes away."""

    image_lost = Signal(object, str)
    """A `VolumeChoice` that cannot be used any more, and a sentence why."""

    def __init__(
        self, viewer: ViewerModel, section: DataSection, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._section = section
        self._watched: VolumeChoice | None = None
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._on_layers)
        viewer.layers.events.renamed.connect(self._on_renamed)

    def start(self) -> None:
        """Offer what is there."""
        self._on_layers()
        self.watch(self._section.choice())

    def close(self) -> None:
        """Let go of the viewer."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed):
            event.disconnect(self._on_layers)
        events.renamed.disconnect(self._on_renamed)
        self.watch(None)

    def watch(self, choice: VolumeChoice | None) -> None:
        """Watch this image from now on."""
        if self._watched is not None:
            for layer in (self._watched.layer, *self._watched.others):
                layer.events.data.disconnect(self._on_data)
        self._watched = choice
        if choice is not None:
            for layer in (choice.layer, *choice.others):
                layer.events.data.connect(self._on_data)

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
        own = [layer for layer in fitting if METADATA in layer.metadata]
        preferred = (own or fitting or [None])[-1]
        self._section.set_annotations(fitting, preferred)

    def _on_layers(self, event: object = None) -> None:
        lost = self._watched
        layers = list(self._viewer.layers)
        gone = lost is not None and any(
            layer not in layers for layer in (lost.layer, *lost.others)
        )
        self._section.set_images(
            [layer for layer in layers if _is_image(layer)], self._preferred()
        )
        self.offer_annotations()
        if gone and lost is not None:
            self.image_lost.emit(lost, f"“{lost.layer.name}” was removed.")

    def _on_renamed(self, event: object = None) -> None:
        self._section.show_names()

    def _on_data(self, event: object = None) -> None:
        lost = self._watched
        if lost is not None:
            name = lost.layer.name
            self.image_lost.emit(lost, f"The data of “{name}” were replaced.")
            self.offer_annotations()

    def _preferred(self) -> Layer | None:
        active = self._viewer.layers.selection.active
        return active if active is not None and _is_image(active) else None


def _is_image(layer: Layer) -> bool:
    """Whether a layer is an image that the plugin has not made itself."""
    return isinstance(layer, Image) and "kind" not in layer.metadata.get(METADATA, {})
