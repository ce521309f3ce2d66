"""The viewer's side of the worker's process: start, talk, end.

The process is started as ``python -m napari_unet3d.worker`` with a pipe each way, not
by `multiprocessing`, for these reasons. The latter runs the main module again in the
child, which in napari may be anything: a script that opens a viewer, a notebook, the
launcher of a bundle. Here the environment that OpenMP reads before torch is loaded
belongs to the child alone. And pipes tell either side at once that the other is gone;
they need no address, no key and no third process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from multiprocessing import spawn
from typing import IO, TYPE_CHECKING, cast

from napari_unet3d._thread_waiting import ENVIRONMENT

from .answers import WorkerDied
from .channel import Channel
from .requests import Shutdown

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase

    from .answers import Event
    from .requests import Request

KILLED = (
    "the worker was ended by the system, probably because memory ran out; close other "
    "programs or choose a smaller patch size, and start it again"
)
ENDED = "the worker ended unexpectedly (exit code {}); start it again"


class WorkerProcess:
    """A child process and the two threads that talk with it.

    Parameters
    ----------
    on_event : callable
        Called with each event, in a thread of its own. Where it raises, the process is
        ended.
    on_send : callable
        Called with each request just before it is sent, in another thread.
    """

    def __init__(
        self, on_event: Callable[[Event], None], on_send: Callable[[Request], None]
    ) -> None:
        self._on_event, self._on_send = on_event, on_send
        self._outbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._is_expected = False
        # A file, because nobody would read a pipe while the process writes its last.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed at the end
        self._process = _start(self._errors)
        self._channel = Channel(
            cast("RawIOBase", self._process.stdout),
            cast("RawIOBase", self._process.stdin),
        )
        self._threads = [
            threading.Thread(target=target, name=f"unet3d {name}", daemon=True)
            for target, name in ((self._read, "events"), (self._write, "requests"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def send(self, request: Request) -> None:
        """Send a request; returns at once."""
        self._outbox.put(request)

    def end(self, seconds: float) -> None:
        """End the process, by force if it has not ended itself after some seconds."""
        self._is_expected = True
        self._outbox.put(Shutdown())
        self._outbox.put(None)
        for force in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(max(0.0, seconds))
                break
            except subprocess.TimeoutExpired:
                if force:
                    force()
                seconds = 1.0
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(1.0)

    def _write(self) -> None:
        while (request := self._outbox.get()) is not None:
            self._on_send(request)
            with contextlib.suppress(OSError, ValueError):  # it may be gone
                self._channel.send(request)

    def _read(self) -> None:
        try:
            while True:
                try:
                    event = self._channel.receive()
                except (EOFError, OSError):
                    break
                if not self._is_expected:
                    self._on_event(event)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Say why the process is gone, unless it should be."""
        try:
            exitcode = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            exitcode = self._process.wait()
        self._channel.close()
        with self._errors:
            details = _tail(self._errors)
        if not self._is_expected:
            self._on_event(WorkerDied(exitcode, _reason(exitcode), details))


def _start(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process with a low priority and what it needs to find this package."""
    environment = {
        **ENVIRONMENT,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(_search_path()),
    }
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
    executable = os.fsdecode(spawn.get_executable() or sys.executable)
    return subprocess.Popen(
        [executable, "-P", "-m", "napari_unet3d.worker", str(os.getpid())],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        creationflags=flags,
    )


def _search_path() -> list[str]:
    """List where this process finds modules; "" means the working directory."""
    return list(dict.fromkeys(os.path.abspath(path) for path in sys.path))


def _reason(exitcode: int) -> str:
    # SIGKILL is what the system uses when memory runs out; Windows has no such sign.
    return KILLED if exitcode == -9 else ENDED.format(exitcode)


def _tail(errors: IO[bytes], most: int = 32_000) -> str:
    # A crash is named in the first line, above the stacks of all threads.
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - most))
    return errors.read().decode(errors="replace")
