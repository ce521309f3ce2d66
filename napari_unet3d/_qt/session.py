"""What is going on: the state, and what follows from worker, layers and time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_unet3d.engine.errors import EngineError

from . import shortcuts, state_changes
from .annotating import Annotating
from .annotation_scan import Labelled
from .autosave import Autosave
from .classes import make_classes
from .connection import Connection
from .layer_choice import LayerChoice
from .learning import Learning
from .previewing import Previewing
from .project_locks import ProjectLocks
from .segmentation_file import must_go_to_disk, target_beside
from .segmenting import Segmenting
from .sentences import why_model_does_not_fit, why_not_trainable
from .state import Phase, State
from .time_point import TimePoint
from .volume_transfer import VolumeTransfer
from .volumes import problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_unet3d.worker.protocol import ModelSummary

    from .classes import Classes
    from .connection import ClientFactory
    from .projects import Project
    from .volumes import VolumeChoice
    from .widget import AnnotateAndTrain

TRAINING, SEGMENTATION, PREVIEW = "training", "segmentation", "preview"
"""What the worker needs volumes for."""


class Session(QObject):
    """Hold the state, and be the only one who speaks with viewer, worker and widget.

    Parameters
    ----------
    viewer : ViewerModel
        Whose layers are used.
    widget : AnnotateAndTrain
        Tells what was pressed and shows the state.
    client : callable, optional
        What makes the worker's client.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        widget: AnnotateAndTrain,
        client: ClientFactory | None = None,
    ) -> None:
        super().__init__(widget)
        self.viewer = viewer
        self.widget = widget
        self.state = State()
        self.summary: ModelSummary | None = None
        self.project: Project | None = None
        self.model_file: Path | None = None
        """Where the model was opened from, or is kept since the last training."""
        self.begun_from: Path | None = None
        """The file of the model that the last training went on from."""
        self.trained: set[int] = set()
        """Numbers of the volumes that the training under way learns from."""
        self.saving = ""
        self.pace = state_changes.Pace()
        self.connection = Connection(client, self)
        self.client = self.connection.client
        self.annotating = Annotating(viewer, self)
        self.locks = ProjectLocks(viewer.layers)
        self.learning = Learning(viewer, self.locks.project_of, self)
        self.transfer = VolumeTransfer(
            self.client,
            lambda: self.trained if self.state.is_training else (),
            self._needed_volumes,
            self,
        )
        self.previewing = Previewing(
            viewer, self.client, self.transfer.number_of, self.refresh, self
        )
        self.segmenting = Segmenting(viewer, self.client, self)
        self.autosave = Autosave(self)
        self.layer_choice = LayerChoice(
            viewer, widget.data, self.learning, self.transfer.choices, self
        )
        self.time_point = TimePoint(viewer, widget.data, self)
        self.choice: VolumeChoice | None = None
        self._closed = False

    def set_state(self, **facts: Any) -> None:
        """Change the state and show it."""
        self.state = replace(self.state, **facts)
        self.refresh()

    def refresh(self) -> None:
        """Show the state, with what follows from layers and annotation."""
        if self._closed:
            return
        where = self.previewing.slice_in_view()
        self.state = replace(
            self.state,
            problem=problem_of(self.choice),
            annotation_problem=why_not_trainable(
                [v.labelled for v in self.learning.learned_from(self.choice)],
                self.learning.classes(self.choice),
                self.summary,
                offered=self.widget.data.annotations.count() > 0,
            ),
            has_annotation=self.annotating.labelled is not None,
            others=self.learning.others(self.choice),
            has_prediction=where is not None
            and self.previewing.prediction(where) is not None,
        )
        self.widget.show_state(self.state)

    def keep(self) -> None:
        """Write every annotation to its image's project, now."""
        for each in self.learning.volumes:
            self.autosave.save(each.project, each.choice, each.labelled, each.classes)

    def close(self) -> None:
        """Keep everything and end the worker; may be called twice."""
        if self._closed:
            return
        self.learning.look()
        self.keep()
        self._closed = True
        shortcuts.unbind(self.viewer, shortcuts.ALL)
        self.disconnect_sources()
        self.layer_choice.close()
        self.time_point.close()
        self.annotating.close()
        self.learning.close()
        self.transfer.close()
        self.previewing.close()
        self.segmenting.close()
        self.connection.close()
        self.autosave.close()
        self.locks.close()

    def disconnect_sources(self) -> None:
        """Let go of the viewer."""

    def restart(self) -> None:
        """Start a worker again; it knows the volumes and what is painted."""
        self.set_state(phase=Phase.STARTING, device="starting the worker …")
        self.client.restart()
        if self.kept_model is not None:
            self.load_model(str(self.kept_model))

    def load_model(self, path: str) -> None:
        """Open a model file."""
        self.set_state(opening_model=True)
        self.client.load_model(path)

    @property
    def kept_model(self) -> Path | None:
        """The file of the newest model, if there is one."""
        files = (self.model_file, self.begun_from)
        return next((file for file in files if file and file.exists()), None)

    def project_of(self, choice: VolumeChoice) -> Project:
        """Return the project of an image; an annotated one keeps that it has."""
        held = self.learning.of(choice)
        return held.project if held else self.locks.project_of(choice)

    def train_on(
        self, choice: VolumeChoice, learned: list[VolumeChoice], numbers: list[int]
    ) -> None:
        """Train on volumes that the worker knows.

        The chosen one is among them even before anything is painted in it, so that what
        is painted later is learned from.
        """
        classes = self.learning.classes(choice)
        if self.state.has_model:
            # The model keeps the classes at its end that are not painted any more.
            classes = (*classes, *self.model_classes()[len(classes) :])
        # Another image may have been chosen since Train was pressed.
        project = self.project_of(choice)
        self.autosave.claim(project)
        self.begun_from = former = self.kept_model if self.state.has_model else None
        there = project.model
        if there.exists() and not (former and former.samefile(there)):
            # Of a model that is not trained on.
            self.autosave.set_model_aside(project)
        self.model_file = project.model
        for each, number in zip(learned, numbers, strict=True):
            self.send_labels(each, number)
        self.trained = set(numbers)
        self.client.train(
            numbers,
            self.widget.advanced.values("model"),
            self.widget.advanced.values("training"),
            class_names=[each.name for each in classes],
            class_colors=[each.color for each in classes],
            save_to=self.model_file,
            proceed=self.state.has_model,
            **self.widget.advanced.values("parallel"),
        )
        if choice.same_as(self.choice):
            self.previewing.begin(choice, classes)
            self.previewing.take_up()

    def send_labels(self, choice: VolumeChoice, number: int) -> None:
        """Tell the worker all that is painted in a volume."""
        volume = self.learning.of(choice)
        labelled = volume.labelled if volume else Labelled(choice.shape)
        self.client.replace_annotation(number, labelled.index, labelled.labels)

    def segment_now(self, choice: VolumeChoice, path: str, numbers: list[int]) -> None:
        """Segment a volume that the worker knows."""
        if self.summary is None or self.state.phase is not Phase.SEGMENTING:
            return
        classes = self.model_classes()
        probabilities = self.widget.segmenting.probabilities.isChecked()
        many = len(classes) if probabilities else 0
        try:
            if not path and must_go_to_disk(choice, many):
                path = str(target_beside(choice, self.project_of(choice)))
            self.segmenting.begin(
                choice,
                numbers[0],
                classes,
                self.widget.advanced.values("segmentation"),
                probabilities,
                path,
            )
        except (EngineError, OSError) as error:
            sentence = f"The segmentation cannot begin: {error}"
            self.transfer.failed.emit(SEGMENTATION, sentence)

    def preview_if_possible(self) -> None:
        """Preview with the model that is there, making the volume known if need be."""
        if (
            self.choice is not None
            and self.state.problem is None
            and why_model_does_not_fit(self.summary, self.choice) is None
            and self.summary is not None
        ):
            self.transfer.open(
                PREVIEW, [self.choice], partial(self._preview, self.choice)
            )

    def model_classes(self) -> Classes:
        """Return the classes that the model tells apart, with their colours."""
        if self.summary is None:
            return self.learning.classes(self.choice)
        return make_classes(self.summary.class_names, self.summary.class_colors)

    def _needed_volumes(self) -> list[VolumeChoice | None]:
        """Return the volumes that the worker should go on to know."""
        annotated = [volume.choice for volume in self.learning.volumes]
        return [self.choice, *annotated, self.segmenting.volume]

    def _preview(self, choice: VolumeChoice, numbers: list[int]) -> None:
        if choice.same_as(self.choice):
            self.previewing.begin(choice, self.model_classes())
