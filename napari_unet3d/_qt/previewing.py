"""The prediction of the slice in view, in any orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from . import layers
from .annotation_tools import Slice
from .sparse_volume import SparseVolume, empty_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_unet3d.worker.client import WorkerClient
    from napari_unet3d.worker.protocol import PreviewReady

    from .classes import Classes
    from .volumes import VolumeChoice

FOLLOW_MS = 60
"""From the slider's last move to the request."""


class Previewing(QObject):
    """Ask for the slice in view, and show the answers.

    Every request has a new generation; answers to older ones are dropped.

    Parameters
    ----------
    viewer : ViewerModel
        Whose view is followed.
    client : WorkerClient
        Of the worker.
    number_of : callable
        Returns the number of a volume that the worker knows, else none.
    on_shown : callable
        Called when a slice was shown.
    """

    shown_changed = Signal(bool)
    """The labels are to be seen or not, by the eye of their layer or a result."""

    def __init__(
        self,
        viewer: ViewerModel,
        client: WorkerClient,
        number_of: Callable[[VolumeChoice], int | None],
        on_shown: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._client = client
        self._number_of = number_of
        self._on_shown = on_shown
        self._generation = -1
        self._choice: VolumeChoice | None = None
        self._classes: Classes = ()
        self._shown = True
        self._aside = False
        """Whether the labels are hidden only until the next training."""
        self._probability_of: int | None = None
        self._entropy = False
        self._layers: dict[str, Layer] = {}
        self._known: dict[Slice, int] = {}
        """The model's step that each slice was predicted at."""
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(FOLLOW_MS)
        self._delay.timeout.connect(self._ask)

    def begin(self, choice: VolumeChoice, classes: Classes) -> None:
        """Preview this volume from now on."""
        if self._choice is not None and not self._choice.same_as(choice):
            self._layers.clear()
            self._known.clear()
        self._choice, self._classes = choice, classes
        if (layer := self._layer("preview")) is not None:
            layers.set_classes(layer, classes, hide_background=True)
        self.follow()

    def is_of(self, choice: VolumeChoice) -> bool:
        """Whether this is the image that is previewed."""
        return self._choice is not None and self._choice.layer == choice.layer

    def end(self) -> None:
        """Preview nothing any more; what is shown stays."""
        self._generation = -1
        self._delay.stop()
        self._choice = None
        self._layers.clear()
        self._known.clear()
        self._client.stop_preview()

    def show(self, labels: bool, probability_of: int | None, entropy: bool) -> None:
        """Choose what is shown."""
        self._shown, self._entropy = labels, entropy
        self._aside = self._aside and not labels
        if probability_of != self._probability_of:
            self._blank("probability")
        self._probability_of = probability_of
        for kind, wanted in (
            ("preview", labels),
            ("probability", probability_of is not None),
            ("uncertainty", entropy),
        ):
            layer = self._layer(kind)
            if layer is not None:
                layer.visible = wanted
        self.follow()

    def follow(self) -> None:
        """Ask for the slice in view, soon."""
        if self._choice is not None:
            self._delay.start()

    def forget(self) -> None:
        """Drop what was predicted, as by a model that is no more."""
        self._known.clear()
        for kind in ("preview", "probability", "uncertainty"):
            self._blank(kind)

    def put_aside(self) -> None:
        """Hide the labels until the next training: the segmentation is to be seen."""
        if self._shown:
            self.shown_changed.emit(False)
            self._aside = True

    def take_up(self) -> None:
        """Show the labels again if they were only put aside."""
        if self._aside:
            self.shown_changed.emit(True)

    def close(self) -> None:
        """Let go of the layers."""
        self._delay.stop()
        self._layers.clear()

    def prediction(self, where: Slice) -> np.ndarray | None:
        """Return the prediction of a slice, if there is one."""
        layer = self._layer("preview")
        if layer is None or where not in self._known:
            return None
        plane: np.ndarray = where.of(layer.data)
        return plane

    def receive(self, event: PreviewReady) -> None:
        """Show a slice that was predicted."""
        if event.generation != self._generation or self._choice is None:
            return
        where = Slice(event.axis, event.position)
        self._known[where] = event.step
        self._write("preview", where, event.labels, self._shown)
        if event.probability is not None:
            self._write("probability", where, event.probability, True)
        if event.entropy is not None:
            self._write("uncertainty", where, event.entropy, True)
        self._on_shown()

    def slice_in_view(self) -> Slice | None:
        """Return the slice that is looked at; none in 3D or across time."""
        if self._choice is None:
            return None
        return slice_in_view(self._viewer, self._choice)

    def _ask(self) -> None:
        where = self.slice_in_view()
        # Asked for anew each time: a volume whose scale was corrected gets another.
        number = None if self._choice is None else self._number_of(self._choice)
        wanted = self._shown or self._entropy or self._probability_of is not None
        if where is None or number is None or not wanted:
            self._generation = -1
            self._client.stop_preview()
            return
        self._generation = self._client.request_preview(
            number,
            where.axis,
            where.position,
            probability_of=self._probability_of,
            entropy=self._entropy,
        )

    def _layer(self, kind: str) -> Layer | None:
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _write(self, kind: str, where: Slice, plane: Any, visible: bool) -> None:
        layer = self._layer(kind)
        if layer is None:
            if not visible:
                return
            layer = self._made(kind)
        layer.data[where.key] = plane
        layers.refresh(layer)

    def _made(self, kind: str) -> Layer:
        assert self._choice is not None
        old = layers.find(self._viewer, self._choice, kind)
        if old is not None:
            # Of an earlier training; its memory is not written by anybody else.
            self._viewer.layers.remove(old)
        data = empty_volume(self._choice.shape)
        if kind == "preview":
            layer: Layer = layers.add_labels(
                self._viewer, self._choice, kind, data, self._classes, 0.45
            )
            layer.events.visible.connect(self._on_eye)
        else:
            layer = layers.add_image(self._viewer, self._choice, kind, data)
        self._layers[kind] = layer
        return layer

    def _on_eye(self, event: object = None) -> None:
        layer = self._layer("preview")
        if layer is not None and layer.visible != self._shown:
            self.shown_changed.emit(layer.visible)

    def _blank(self, kind: str) -> None:
        layer = self._layer(kind)
        if layer is not None:
            data = layer.data
            if isinstance(data, SparseVolume):
                data.clear()
            else:
                data[...] = 0
            layers.refresh(layer)


def slice_in_view(viewer: ViewerModel, choice: VolumeChoice) -> Slice | None:
    """Return which slice of a volume a viewer shows; none in 3D or across time."""
    dims = viewer.dims
    if dims.ndisplay != 2 or choice.layer not in viewer.layers:
        return None
    hidden = set(range(dims.ndim)) - set(dims.displayed)
    spatial = [axis - (dims.ndim - 3) for axis in hidden if axis >= dims.ndim - 3]
    if len(spatial) != 1:
        return None
    where = np.asarray(choice.layer.world_to_data(dims.point))[-3:]
    axis = spatial[0]
    position = int(np.clip(np.round(where[axis]), 0, choice.shape[axis] - 1))
    return Slice(axis, position)


def show_slice(viewer: ViewerModel, choice: VolumeChoice, where: Slice) -> None:
    """Turn the viewer to a slice of a volume."""
    dims = viewer.dims
    dims.ndisplay = 2
    spatial = range(dims.ndim - 3, dims.ndim)
    others = [axis for axis in dims.order if axis not in spatial]
    across = dims.ndim - 3 + where.axis
    if across in dims.displayed or any(axis in dims.displayed for axis in others):
        shown = [axis for axis in spatial if axis != across]
        dims.order = (*others, across, *shown)
    middle = (np.array(choice.shape) - 1) / 2
    middle[where.axis] = where.position
    lead = np.zeros(choice.layer.ndim - 3)
    world = choice.layer.data_to_world((*lead, *middle))
    dims.set_point(across, world[-3:][where.axis])
