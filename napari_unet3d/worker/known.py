"""What a worker was told, so that another one can be told again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from .requests import CloseVolume, OpenVolume, SaveModel, Train, UpdateAnnotation
from .sparse import SparseLabels

if TYPE_CHECKING:
    from .requests import Request


class Known:
    """The volumes and labels that were sent, and the files that may be written."""

    def __init__(self) -> None:
        self._opened: dict[int, OpenVolume] = {}
        self._painted: dict[int, SparseLabels] = {}
        self._model_files: set[str] = set()

    def remember(self, request: Request) -> None:
        """Note a request that is sent."""
        match request:
            case OpenVolume():
                self._opened[request.volume] = request
                self._painted[request.volume] = SparseLabels()
            case CloseVolume():
                self._opened.pop(request.volume, None)
                self._painted.pop(request.volume, None)
            case UpdateAnnotation() if request.volume in self._painted:
                before = self._painted[request.volume]
                before = SparseLabels() if request.replace else before
                painted = before.changed(request.index, request.labels)
                self._painted[request.volume] = painted
            case Train() if request.save_to:
                self._model_files.add(request.save_to)
            case SaveModel():
                self._model_files.add(request.path)

    def again(self) -> list[Request]:
        """Return what tells another worker all that this one was told."""
        requests: list[Request] = []
        for number, request in self._opened.items():
            painted = self._painted[number]
            requests.append(request)
            requests.append(
                UpdateAnnotation(number, painted.index, painted.labels, replace=True)
            )
        return requests

    def remove_leftovers(self, pid: int) -> None:
        """Remove what a process that was killed had not finished writing."""
        for file in map(Path, self._model_files):
            with contextlib.suppress(OSError):
                file.with_name(f".{file.name}.{pid}.part").unlink(missing_ok=True)
