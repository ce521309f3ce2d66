"""The record of finished blocks beside an unfinished output.

Its first line says what is made, each further line is the number of a finished block:
what a block costs does not depend on how many there are.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from napari_unet3d.engine.errors import EngineError

from .replacing import remove
from .sentences import unreadable, unwritable
from .unfinished import unfinished_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "napari-unet3d unfinished segmentation"


class BlockRecord:
    """Which blocks of an output are finished, and what it is made from.

    The file is at any moment either as before a block or as after it: a line that is
    not whole does not count.

    Parameters
    ----------
    target : Path
        The output.
    made_from : mapping of str to str
        Everything that decides the result, by what a person calls it.
    blocks : int
        How many there are.
    memory : float
        Bytes that the blocks were planned for.
    at_once : int
        Blocks at the same time that they were planned for.
    finished : set of int, optional
        Numbers of the finished ones.
    """

    def __init__(
        self,
        target: Path,
        made_from: Mapping[str, str],
        blocks: int,
        memory: float,
        at_once: int = 1,
        finished: set[int] | None = None,
    ) -> None:
        self.path = _path(target)
        self.made_from = dict(made_from)
        self.blocks = blocks
        self.memory = memory
        self.at_once = at_once
        self.finished = finished or set()
        self._is_whole = False
        """Whether a line may be added to the file."""

    @classmethod
    def read(cls, target: Path) -> BlockRecord | None:
        """Read the record of an output; `None` where there is none.

        Raises
        ------
        EngineError
            If it is damaged.
        """
        path = _path(target)
        if not path.exists():
            return None
        damage = (OSError, ValueError, KeyError, TypeError, AttributeError)
        try:
            with unreadable(str(path), damage, "JSON"):
                first, *numbers = path.read_text(encoding="utf-8").split("\n")
                content = json.loads(first)
                if content["format"] != FORMAT:
                    raise ValueError(f"its format is {content['format']!r}")
                record = cls(
                    target,
                    {str(k): str(v) for k, v in content["made_from"].items()},
                    int(content["blocks"]),
                    float(content["memory"]),
                    int(content["at_once"]),
                    # After the last end of a line is nothing, or what was cut short
                    {int(k) for k in numbers[:-1]},
                )
                if not all(0 <= k < record.blocks for k in record.finished):
                    raise ValueError("it has numbers of no block")
        except EngineError as error:
            sentence = str(error).split(". ")[0]
            raise EngineError(f"{sentence}; begin anew with --restart") from error
        return record

    @property
    def is_complete(self) -> bool:
        """Whether all blocks are finished."""
        return len(self.finished) == self.blocks

    def add(self, block: int) -> None:
        """Note that a block is finished.

        Raises
        ------
        EngineError
            If the disk is full or gone.
        """
        self.finished.add(block)
        if not self._is_whole:
            self.write()
            return
        self._is_whole = False
        with unwritable(str(self.path), self.path.parent):
            # Without creating it: where its folder is gone, so is the output
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{block}\n")
                file.flush()
                os.fsync(descriptor)
        self._is_whole = True

    def write(self) -> None:
        """Write the whole record under a temporary name, then rename it.

        Raises
        ------
        EngineError
            If the disk is full or gone.
        """
        content = {
            "format": FORMAT,
            "made_from": self.made_from,
            "blocks": self.blocks,
            "memory": self.memory,
            "at_once": self.at_once,
        }
        lines = [json.dumps(content), *map(str, sorted(self.finished))]
        temporary = self.path.with_suffix(".part")
        with unwritable(str(self.path), self.path.parent):
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        self._is_whole = True

    def remove(self) -> None:
        """Remove the record."""
        remove(self.path.with_suffix(".part"))
        remove(self.path)


def differences(former: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say in words in what two outputs differ that are made from other things.

    Examples
    --------
    >>> differences({"weights": "best"}, {"weights": "latest"})
    ['weights best instead of latest']
    """
    return [
        f"{name} {former.get(name, 'unknown')} instead of "
        f"{now.get(name, 'unknown').removeprefix('of ')}"
        for name in {**former, **now}
        if former.get(name) != now.get(name)
    ]


def _path(target: Path) -> Path:
    name = unfinished_name(target)
    return name.with_name(name.name + ".jsonl")
