"""Nothing painted or trained is lost: it is kept in the image's project folder."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.engine.errors import EngineError

from . import annotation_file
from .annotation_file import AnnotationFile
from .layers import grid_of
from .projects import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .annotation_scan import Labelled
    from .classes import Classes
    from .projects import Project
    from .volumes import VolumeChoice

EVERY_MS = 60_000

_logger = logging.getLogger(__name__)


class Autosave(QObject):
    """Keep the annotation of each image in a file; the worker keeps models beside it.

    Files are written in a thread, one after the other.
    """

    due = Signal()
    """A minute has passed."""
    failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._writer = ThreadPoolExecutor(1, "napari-unet3d-autosave")
        self._pending: list[Future[None]] = []
        self._written: dict[Project, tuple[Labelled, Classes]] = {}
        self._complained = False
        self._claimed: set[Project] = set()
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self._on_time)
        self._timer.start()

    def save(
        self,
        project: Project,
        choice: VolumeChoice,
        labelled: Labelled,
        classes: Classes,
    ) -> None:
        """Write the annotation of an image if it is not what was written last."""
        if not len(labelled.index) and project not in self._claimed:
            return
        self.claim(project)
        if project in self._written:
            before, named = self._written[project]
            if (
                named == classes
                and np.array_equal(before.index, labelled.index)
                and np.array_equal(before.labels, labelled.labels)
            ):
                return
        self._written[project] = (labelled, classes)
        content = AnnotationFile(labelled, classes, plain_grid(choice))
        self._pending.append(self._writer.submit(_write, project, content))

    def claim(self, project: Project, restored: bool = False) -> None:
        """Write into a project from now on; what it held of another time is kept."""
        if project in self._claimed:
            return
        self._claimed.add(project)
        if not restored:
            self._try(project.set_aside)
        self._try(project.make)

    def set_model_aside(self, project: Project) -> None:
        """Keep the model of a project from being overwritten."""
        self._try(project.set_model_aside)

    def release(self, project: Project) -> None:
        """Write everything, and then keep it from being overwritten."""
        self.finish()
        self._claimed.discard(project)
        self._written.pop(project, None)

    def offer(self, project: Project) -> AnnotationFile | None:
        """Return what was kept for an image another time, if there is something."""
        return None if project in self._claimed else restorable(project.annotation)

    def recall(self, project: Project) -> tuple[AnnotationFile | None, Path]:
        """Return annotation and model that were offered, though set aside since."""
        kept = project.previous if project in self._claimed else project
        return restorable(kept.annotation), kept.model

    def finish(self) -> None:
        """Wait until everything is written."""
        pending, self._pending = self._pending, []
        for each in pending:
            self._try(each.result)

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._timer.stop()
        self.finish()
        self._writer.shutdown(wait=True)

    def _on_time(self) -> None:
        if all(each.done() for each in self._pending):
            self.finish()
        self.due.emit()

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (EngineError, OSError) as error:
            self._written.clear()
            _logger.warning("autosave failed: %s", error)
            if not self._complained:
                self._complained = True
                reason = str(error)
                if isinstance(error, OSError) and error.filename:
                    reason = f"{error.filename}: {error.strerror}"
                self.failed.emit(
                    f"The annotation is not being kept: {reason}. Save it with File → "
                    "Save Selected Layers, or name another folder in the environment "
                    f"variable {VARIABLE} and open napari again."
                )


def restorable(path: Path) -> AnnotationFile | None:
    """Return the annotation that was kept in a file, if there is one."""
    if not path.exists():
        return None
    try:
        content = annotation_file.load(path)
    except EngineError as error:
        _logger.warning("%s", error)
        return None
    return content if len(content.labelled.index) else None


def plain_grid(choice: VolumeChoice) -> dict[str, Any]:
    """Return where an annotation lies, as values that JSON can hold."""
    grid = {}
    for name, value in grid_of(choice.layer).items():
        if isinstance(value, tuple):
            grid[name] = [str(each) for each in value]
        else:
            grid[name] = np.asarray(value, float).tolist()
    return grid


def _write(project: Project, content: AnnotationFile) -> None:
    """Write an annotation; runs in a thread and touches no Qt."""
    project.make()
    annotation_file.save(content, project.annotation)
