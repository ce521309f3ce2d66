"""What the viewer's process and the worker say to each other.

Everything is a frozen, picklable record of plain values and numpy arrays. Volumes have
numbers that the client gives. A generation numbers the requests that are answered
later, so that answers to older ones can be told apart.
"""

from __future__ import annotations

from napari_unet3d.engine.events import (
    Saved,
    Started,
    StepDone,
    Trained,
    Validated,
    Warned,
)

from .answers import (
    Event,
    Failed,
    ModelChanged,
    ModelSummary,
    Paused,
    PreviewReady,
    Ready,
    Resumed,
    SegmentCancelled,
    SegmentDone,
    SegmentOpened,
    SegmentProgress,
    WorkerDied,
)
from .requests import (
    CancelSegment,
    CloseVolume,
    Courtesy,
    ImageFile,
    LoadModel,
    NewModel,
    OpenVolume,
    Pause,
    Request,
    RequestPreview,
    Resume,
    SaveModel,
    Segment,
    Shutdown,
    Stop,
    StopPreview,
    Train,
    UpdateAnnotation,
)

__all__ = [
    "CancelSegment",
    "CloseVolume",
    "Courtesy",
    "Event",
    "Failed",
    "ImageFile",
    "LoadModel",
    "ModelChanged",
    "ModelSummary",
    "NewModel",
    "OpenVolume",
    "Pause",
    "Paused",
    "PreviewReady",
    "Ready",
    "Request",
    "RequestPreview",
    "Resume",
    "Resumed",
    "SaveModel",
    "Saved",
    "Segment",
    "SegmentCancelled",
    "SegmentDone",
    "SegmentOpened",
    "SegmentProgress",
    "Shutdown",
    "Started",
    "StepDone",
    "Stop",
    "StopPreview",
    "Train",
    "Trained",
    "UpdateAnnotation",
    "Validated",
    "Warned",
    "WorkerDied",
]
