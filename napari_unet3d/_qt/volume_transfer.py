"""Images on their way to the worker: where they lie, or a copy in shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, Signal

from .copying import Copy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from napari_unet3d.io.lazy_image import StoredImage
    from napari_unet3d.worker.client import WorkerClient

    from .volumes import VolumeChoice


MOST_SPARE = 1
"""Volumes that stay known though nothing needs them, for coming back to."""


@dataclass(frozen=True, eq=False)
class _Wish:
    """Volumes that something needs, and what to do with their numbers."""

    choices: tuple[VolumeChoice, ...]
    then: Callable[[list[int]], None]


class VolumeTransfer(QObject):
    """Keep track of which volumes the worker knows.

    Images are looked up, or copied, in a thread, one at a time.

    Parameters
    ----------
    client : WorkerClient
        Of the worker.
    in_use : callable
        Returns the numbers of the volumes that must stay as they are.
    needed : callable
        Returns the volumes that should stay known.
    """

    failed = Signal(str, str)
    """What the volume was for, and a sentence why it cannot be had."""
    progressed = Signal(str)
    """A line about the image that is being copied; empty once it is there."""
    opened = Signal()
    """The worker knows one more volume."""
    _copied = Signal(object, str)
    _ended = Signal(object)
    """Emitted in the thread of a `Copy`, received in the main one."""

    def __init__(
        self,
        client: WorkerClient,
        in_use: Callable[[], Collection[int]],
        needed: Callable[[], Iterable[VolumeChoice | None]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._client, self._in_use, self._needed = client, in_use, needed
        self._known: list[tuple[int, VolumeChoice]] = []
        self._grids: dict[int, tuple[object, ...]] = {}
        """What the worker was told of their voxels, by number."""
        self._spooled: dict[int, StoredImage] = {}
        """Volumes that were written to the cache folder, by number."""
        self._wishes: dict[str, _Wish] = {}
        self._copying: Copy | None = None
        queued = Qt.ConnectionType.QueuedConnection
        self._ended.connect(self._on_ended, queued)  # type: ignore[call-arg]
        self._copied.connect(self._on_copied, queued)  # type: ignore[call-arg]

    def choices(self) -> list[VolumeChoice]:
        """Return the volumes that the worker knows."""
        return [choice for _, choice in self._known]

    def number_of(self, choice: VolumeChoice | None) -> int | None:
        """Return the number of a volume that the worker knows."""
        return next((n for n, known in self._known if known.same_as(choice)), None)

    def numbers_at(self, choice: VolumeChoice) -> list[int]:
        """Return the numbers under which an image is known, whatever its channels."""
        return [number for number, known in self._known if known.is_at(choice)]

    def forget_number(self, number: int) -> None:
        """Let go of a volume that the worker could not open, to try it again."""
        if any(number == known for known, _ in self._known):
            self._close(number)

    def open(
        self,
        what: str,
        choices: Iterable[VolumeChoice],
        then: Callable[[list[int]], None],
    ) -> None:
        """Make volumes known to the worker, then call with their numbers.

        Parameters
        ----------
        what : str
            What they are for; a later call for the same takes the place of one that
            has not been answered.
        choices : iterable of VolumeChoice
            The volumes.
        then : callable
            Takes the numbers.
        """
        self._wishes[what] = _Wish(tuple(choices), then)
        for choice in self._wishes[what].choices:
            self._close_if_outdated(choice)
        self._go_on()

    def cancel(self, what: str) -> bool:
        """Give up what was wanted for this, and tell whether something was."""
        wish = self._wishes.pop(what, None)
        self._go_on()
        return wish is not None

    def close(self) -> None:
        """Give up a copy that is under way, and wait for its end."""
        self._wishes.clear()
        copy = self._copying
        self._go_on()
        if copy is not None:
            # A disk that does not answer is not waited for; the thread is a daemon.
            copy.join(2)
            self._remove(copy.spooled)
        for number in list(self._spooled):
            self._remove(self._spooled.pop(number))

    def forget(self, choice: VolumeChoice) -> list[str]:
        """Let go of a volume, as its data were replaced or its layer deleted.

        Returns
        -------
        list of str
            For what it was waited, in vain now.
        """
        for number, known in list(self._known):
            if known.layer == choice.layer:
                self._close(number)
        return self._give_up(choice)

    def _close_if_outdated(self, choice: VolumeChoice) -> None:
        """Let go of a volume whose voxels have another size than the worker knows."""
        number = self.number_of(choice)
        if number is None or number in self._in_use():
            return
        if self._grids[number] != (choice.spacing, choice.unit):
            self._close(number)

    def _close_spare(self) -> None:
        """Let go of volumes that were only looked at: each may be a copy in memory."""
        wanted = [each for wish in self._wishes.values() for each in wish.choices]
        kept = [*self._needed(), *wanted]
        in_use = self._in_use()
        spare = [
            number
            for number, known in self._known
            if number not in in_use and not any(known.same_as(each) for each in kept)
        ]
        for number in spare[:-MOST_SPARE]:
            self._close(number)

    def _close(self, number: int) -> None:
        self._client.close_volume(number)
        self._known = [each for each in self._known if each[0] != number]

    def _give_up(self, choice: VolumeChoice) -> list[str]:
        vain = [
            what
            for what, wish in self._wishes.items()
            if any(each.layer == choice.layer for each in wish.choices)
        ]
        for what in vain:
            self.cancel(what)
        return vain

    def _go_on(self) -> None:
        """Answer what can be answered, and copy what is still missing."""
        missing: list[VolumeChoice] = []
        for what, wish in list(self._wishes.items()):
            numbers = [self.number_of(choice) for choice in wish.choices]
            if None not in numbers:
                del self._wishes[what]
                wish.then([number for number in numbers if number is not None])
            missing += [c for c in wish.choices if self.number_of(c) is None]
        copying = self._copying
        if copying is not None:
            if any(choice.same_as(copying.choice) for choice in missing):
                return
            copying.cancelled.set()
            self._copying = None
        if missing:
            self._copying = Copy(
                self._client, missing[0], self._ended.emit, self._copied.emit
            )
            self._copying.start()

    def _on_copied(self, copy: Copy, line: str) -> None:
        if copy is self._copying:
            self.progressed.emit(line)

    def _on_ended(self, copy: Copy) -> None:
        if copy is not self._copying:
            if copy.number is not None:
                self._client.close_volume(copy.number)
            self._remove(copy.spooled)
            return
        self._copying = None
        self.progressed.emit("")
        if copy.number is not None:
            self._known.append((copy.number, copy.choice))
            self._grids[copy.number] = copy.grid
            if copy.spooled is not None:
                self._spooled[copy.number] = copy.spooled
            self._close_spare()
            self._go_on()
            self.opened.emit()
            return
        for what in self._give_up(copy.choice):
            self.failed.emit(what, f"The image cannot be read: {copy.problem}")

    def _remove(self, spooled: StoredImage | None) -> None:
        if spooled is not None:
            from .spooling import remove_spooled

            remove_spooled(spooled)
