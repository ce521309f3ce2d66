"""What is going on, and which buttons follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NO_MODEL = "No model yet: Train makes one, Load opens one."


class Phase(Enum):
    """What the worker is doing."""

    STARTING = "starting"
    IDLE = "idle"
    TRAINING = "training"
    PAUSED = "paused"
    STOPPING = "stopping"
    SEGMENTING = "segmenting"
    DEAD = "dead"


@dataclass(frozen=True)
class OtherVolume:
    """A volume that could be learned from besides the chosen one."""

    number: int
    name: str
    voxels: int
    """That are labelled."""
    ticked: bool
    why_not: str | None = None
    """Why it cannot be learned from together with the chosen one."""
    doubt: str | None = None


@dataclass(frozen=True)
class State:
    """All that the widget shows of the plugin's condition."""

    phase: Phase = Phase.STARTING
    problem: str | None = None
    """Why nothing can be trained or segmented; `None` if it can."""
    annotation_problem: str | None = None
    """Why nothing can be trained, though it could be segmented."""
    has_annotation: bool = False
    others: tuple[OtherVolume, ...] = ()
    has_model: bool = False
    opening_model: bool = False
    """Whether one will be there soon: a training would not go on from it yet."""
    has_prediction: bool = False
    training_held: bool = False
    """Whether a training goes on after the segmentation."""
    pause_held: bool = False
    """Whether that training stays paused."""
    step: int = 0
    rate: float = 0.0
    """Steps a second."""
    time_left: float | None = None
    loss: float | None = None
    held_out_iou: float | None = None
    progress: float = 0.0
    """Of the segmentation."""
    reading: str = ""
    """How far the image is copied for the worker, if it must be."""
    written_to: str = ""
    """Where the segmentation goes, if it goes to the disk."""
    device: str = "starting the worker …"
    devices: int = 1
    """How many train together."""
    device_warning: str = ""
    model: str = NO_MODEL

    @property
    def busy(self) -> bool:
        """Whether a training or a segmentation is under way."""
        return self.phase in _BUSY

    @property
    def is_training(self) -> bool:
        """Whether a training is under way, be it held or coming to its end."""
        training = (Phase.TRAINING, Phase.PAUSED, Phase.STOPPING)
        return self.phase in training or self.training_held

    @property
    def why_not_train(self) -> str | None:
        """The sentence that stands in the way of a training."""
        if self.phase is Phase.DEAD:
            return "The worker process has ended: restart it."
        if self.busy:
            return "A training or segmentation is under way."
        if self.opening_model:
            return "The model is being opened: wait a moment."
        return self.problem or self.annotation_problem

    @property
    def why_not_segment(self) -> str | None:
        """The sentence that stands in the way of a segmentation."""
        if self.phase is Phase.DEAD:
            return "The worker process has ended: restart it."
        if self.phase is Phase.SEGMENTING:
            return "A segmentation is under way."
        if self.phase is Phase.STOPPING:
            return "The training is being stopped."
        if not self.has_model:
            return "There is no model yet: train one or load one."
        return self.problem

    @property
    def progress_line(self) -> str:
        """How the training stands, in a line."""
        if self.phase is Phase.STARTING or not self.step:
            return {
                Phase.TRAINING: self.reading or "Preparing the training …",
                Phase.STOPPING: "Stopping …",
            }.get(self.phase, "")
        parts = [f"step {self.step:,}"]
        if self.rate and self.phase is Phase.TRAINING:
            parts.append(f"{self.rate:.1f}/s")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.held_out_iou is not None:
            parts.append(f"held-out IoU {self.held_out_iou:.2f}")
        if self.time_left is not None and self.phase is Phase.TRAINING:
            minutes, seconds = divmod(round(self.time_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        said = {
            Phase.PAUSED: "paused",
            Phase.STOPPING: "stopping …",
            Phase.SEGMENTING: "held" if self.training_held else "",
        }.get(self.phase)
        return " · ".join([*parts, said] if said else parts)


_BUSY = (Phase.TRAINING, Phase.PAUSED, Phase.STOPPING, Phase.SEGMENTING)
