"""Python objects, one by one, over a pair of pipes."""

from __future__ import annotations

import pickle
import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import RawIOBase

_HEADER = struct.Struct("<Q")
_PIECE = 2**20
"""Bytes handed to the system at once; some systems refuse very large ones."""


class Channel:
    """Send and receive picklable objects.

    Both ends belong to the same program and the pipes to nobody else, so what arrives
    can be trusted.

    Parameters
    ----------
    reader, writer : RawIOBase
        Unbuffered: a thread that waits in a buffered file holds a lock, on which the
        interpreter's end fails.
    """

    def __init__(self, reader: RawIOBase, writer: RawIOBase) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = threading.Lock()

    def send(self, content: Any) -> None:
        """Send an object; from any thread.

        Raises
        ------
        OSError
            Where the other end is closed.
        """
        data = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._write(_HEADER.pack(len(data)))
            self._write(data)

    def receive(self) -> Any:
        """Wait for an object.

        Raises
        ------
        EOFError
            Where the other end is closed.
        """
        (size,) = _HEADER.unpack(self._read(_HEADER.size))
        return pickle.loads(self._read(size))

    def close(self) -> None:
        """Close this end of both pipes."""
        self._reader.close()
        self._writer.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._writer.write(rest[:_PIECE]) or 0 :]

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            count = self._reader.readinto(rest[:_PIECE])
            if not count:
                raise EOFError("the other end is closed")
            rest = rest[count:]
        return data
