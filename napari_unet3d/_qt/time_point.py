"""The time point that is annotated, kept in step with the one in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from .data_section import DataSection
    from .volumes import VolumeChoice


class TimePoint(QObject):
    """Begin with the time in view, show the one that is chosen, say where they differ.

    Going through a movie does not choose: its other times are looked at while one is
    annotated.
    """

    def __init__(
        self, viewer: ViewerModel, section: DataSection, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._section = viewer, section
        self._seen: tuple[Image, str] | None = None
        section.changed.connect(self._on_choice)
        viewer.dims.events.current_step.connect(self._compare)

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.dims.events.current_step.disconnect(self._compare)

    def _on_choice(self) -> None:
        choice = self._section.choice()
        before, self._seen = self._seen, None
        if choice is not None and "T" in choice.axes:
            self._seen = choice.layer, choice.axes
            if self._seen == before:
                self._show(choice)
            else:
                self._section.set_time(self._in_view(choice))
        self._compare()

    def _compare(self, event: object = None) -> None:
        choice = self._section.choice()
        in_view = None
        if choice is not None and "T" in choice.axes:
            in_view = self._in_view(choice)
        self._section.show_time_in_view(in_view)

    def _in_view(self, choice: VolumeChoice) -> int:
        axis = choice.axes.index("T")
        where = choice.layer.world_to_data(self._viewer.dims.point)
        return round(float(where[axis]))

    def _show(self, choice: VolumeChoice) -> None:
        dims, axis = self._viewer.dims, choice.axes.index("T")
        across = dims.ndim - choice.layer.ndim + axis
        if across in dims.displayed or self._in_view(choice) == choice.time:
            return
        where = np.zeros(choice.layer.ndim)
        where[axis] = choice.time
        dims.set_point(across, choice.layer.data_to_world(where)[axis])
