"""The time point that is annotated, kept in step with the one in view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from .volumes import time_points

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from .data_section import DataSection
    from .volumes import VolumeChoice

    Movie = tuple[Image, str]
    """A layer and what its axes mean."""


class TimePoint(QObject):
    """Begin with the time in view, show the one that is chosen, say where they differ.

    Going through a movie does not choose: its other times are looked at while one is
    annotated. Whoever comes back to a movie finds the time that was chosen before.
    """

    def __init__(
        self, viewer: ViewerModel, section: DataSection, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._section = viewer, section
        self._movie: Movie | None = None
        """The one that is chosen."""
        self._times: list[tuple[Movie, int]] = []
        """What was chosen last of each."""
        section.changed.connect(self._on_choice)
        for event in self._view_events():
            event.connect(self._compare)

    def close(self) -> None:
        """Let go of the viewer."""
        self._section.changed.disconnect(self._on_choice)
        for event in self._view_events():
            event.disconnect(self._compare)
        self._movie = None
        self._times.clear()

    def _view_events(self) -> tuple[Any, ...]:
        events = self._viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _on_choice(self) -> None:
        choice, movie = self._section.choice(), None
        if choice is not None and "T" in choice.axes:
            movie = choice.layer, choice.axes
            if movie == self._movie:
                self._show(choice.time)
            elif (known := self._known(movie)) is not None:
                self._section.set_time(known)
                self._show(known)
            elif (in_view := self._in_view()) is not None:
                self._section.set_time(in_view)
            self._remember(movie)
        self._movie = movie
        self._compare()

    def _known(self, movie: Movie) -> int | None:
        times = (time for each, time in self._times if each == movie)
        return next(times, None)

    def _remember(self, movie: Movie) -> None:
        layers = self._viewer.layers
        self._times = [
            (each, time)
            for each, time in self._times
            if each != movie and each[0] in layers
        ]
        self._times.append((movie, self._section.time.value()))

    def _compare(self, event: object = None) -> None:
        self._section.show_time_in_view(self._in_view())

    def _in_view(self) -> int | None:
        """Return the time of the chosen movie that is seen; none across time."""
        choice = self._section.choice()
        if choice is None or "T" not in choice.axes:
            return None
        if self._axis(choice) in self._viewer.dims.displayed:
            return None
        where = choice.layer.world_to_data(self._viewer.dims.point)
        time = round(float(where[choice.axes.index("T")]))
        # A longer movie beside it may go on.
        return time if time in range(time_points(choice.layer, choice.axes)) else None

    def _show(self, time: int) -> None:
        choice, dims = self._section.choice(), self._viewer.dims
        assert choice is not None
        across, axis = self._axis(choice), choice.axes.index("T")
        if across in dims.displayed or self._in_view() == time:
            return
        where = np.zeros(choice.layer.ndim)
        where[axis] = time
        dims.set_point(across, choice.layer.data_to_world(where)[axis])

    def _axis(self, choice: VolumeChoice) -> int:
        """Return the viewer's axis across time."""
        return self._viewer.dims.ndim - choice.layer.ndim + choice.axes.index("T")
