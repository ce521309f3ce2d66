"""How far a training is, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .config import TrainingConfig

MINUTES, MOST_MINUTES, STEPS = 1.0, 3.0, 300
"""Length of a training where nothing is said, and how long it may take at most to do so
many steps where the machine is slow or busy.

With a few annotated slices more makes the segmentation no better, on average; then
another slice does (docs/benchmarks.md).
"""

RISE = 40
"""Steps over which the learning rate rises, however long the training is.

A quarter of a training of few steps, but 10 at least. Adaptive moments are unreliable
at first, and would shake what is known already.
"""


class Schedule:
    """How far the training is, and the learning rate there.

    The rate rises, stays, and falls to zero, over steps or over minutes.

    Parameters
    ----------
    training : TrainingConfig
        Its `steps`, or else its `minutes`, are the length; a minute by default, or up
        to three where that is too little for 300 steps.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self._training = training
        self.step = 0
        """Steps trained, earlier schedules of the model included."""
        self.seconds = 0.0
        """Seconds trained, likewise."""
        self.start: dict[str, float] = {"step": 0, "seconds": 0.0}
        """Where the present schedule began, and where it began to learn all labels."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint stands, or begin anew where that is the end."""
        # A schedule at its end is not stretched by other settings: a new one begins.
        former = Schedule(checkpoint.training)
        former.step, former.seconds = checkpoint.step, checkpoint.seconds
        former.start |= checkpoint.schedule
        former.begin()
        self.step, self.seconds, self.start = former.step, former.seconds, former.start

    @property
    def progress(self) -> float:
        """Share that is done; 1 or more at the end."""
        steps = self.step - self.start["step"]
        if self._training.steps:
            return steps / self._training.steps
        minutes = (self.seconds - self.start["seconds"]) / 60
        if self._training.minutes:
            return minutes / self._training.minutes
        return max(min(minutes / MINUTES, steps / STEPS), minutes / MOST_MINUTES)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        progress = min(1.0, self.progress)
        warmup, decay = self._training.warmup, self._training.decay
        most = min(RISE, max(10, (self._training.steps or 4 * RISE) // 4))
        rise = (self.step - self.start["step"] + 1) / most
        if warmup:
            rise = min(rise, (progress + 1e-3) / warmup)
        fall = (1 - progress) / decay if decay else 1.0
        return self._training.learning_rate * min(1.0, rise, max(fall, 0.01))

    def begin(self) -> None:
        """Begin a new schedule where the old one is at its end."""
        if self.progress >= 1:
            self.start = {"step": self.step, "seconds": self.seconds}

    @property
    def learns_all(self) -> bool:
        """Whether the held-out labels are learned too.

        A model that goes on after its schedule has learned them before.
        """
        until = self._training.hold_out_until
        begun = "all_from" in self.start or self.start["step"] > 0
        return until == 0 or (until < 1 and begun)

    @property
    def is_to_learn_all(self) -> bool:
        """Whether the held-out labels are to be learned from now on."""
        until = self._training.hold_out_until
        return not self.learns_all and until < 1 and self.progress >= until

    def learn_all(self) -> None:
        """Have the held-out labels learned from this step on."""
        self.start["all_from"] = self.step
