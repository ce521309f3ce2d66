"""One viewer writes to a project: another one with the same image gets its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from qtpy.QtCore import QLockFile

from .projects import Project, projects_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari.layers import Layer

    from .volumes import VolumeChoice

MOST_PROJECTS = 9
"""Of one image, for as many viewers at a time."""


class ProjectLocks:
    """The projects that this viewer writes to.

    A lock that a killed napari has left is not respected.

    Parameters
    ----------
    layers : iterable of Layer
        All layers of the viewer, as they are at any time.
    """

    def __init__(self, layers: Iterable[Layer] = ()) -> None:
        self._layers = layers
        self._held: dict[Project, QLockFile] = {}

    def project_of(self, choice: VolumeChoice) -> Project:
        """Return the project of an image that nobody else writes to, the newest first.

        Where no lock can be written the first one is returned.
        """
        known = list(_candidates(Project.of(choice, self._layers)))
        for project in known:
            if project in self._held:
                return project
        for project in sorted(known, key=_age):
            if self._lock(project):
                return project
        return known[0]

    def close(self) -> None:
        """Let others write."""
        for lock in self._held.values():
            lock.unlock()
        self._held.clear()

    def _lock(self, project: Project) -> bool:
        try:
            projects_folder().mkdir(parents=True, exist_ok=True)
        except OSError:
            return True
        lock = QLockFile(str(projects_folder() / f".{project.folder.name}.lock"))
        # Only the end of its process makes a lock stale, however old it is.
        lock.setStaleLockTime(0)
        if not lock.tryLock(0) and lock.error() == QLockFile.LockError.LockFailedError:
            if not _of_another_machine(lock):
                return False
            lock.removeStaleLockFile()
            lock.tryLock(0)
        self._held[project] = lock
        return True


def _of_another_machine(lock: QLockFile) -> bool:
    """Whether nobody can tell if the process that holds a lock still lives."""
    info = lock.getLockInfo()
    host = info[2] if len(info) == 4 else info[1]
    return bool(host) and str(host) != socket.gethostname()


def _candidates(first: Project) -> Iterator[Project]:
    yield first
    for number in range(2, MOST_PROJECTS + 1):
        yield Project(first.folder.with_name(f"{first.folder.name}-{number}"))


def _age(project: Project) -> float:
    try:
        return -project.annotation.stat().st_mtime
    except OSError:
        return 0.0
