"""What happens when something is pressed."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QFileDialog

from . import shortcuts, state_changes
from .classes import DEFAULT_CLASSES
from .reactions import Reactions
from .segmentation_file import why_not_into
from .sentences import doubt_about_model, why_model_does_not_fit
from .session import SEGMENTATION, TRAINING
from .state import Phase
from .volumes import problem_of
from .voxel_size import NO_SIZE, size_in_file, use_size

if TYPE_CHECKING:
    from .classes import Classes


class Controller(Reactions):
    """Do what the person asks for in the widget or by a key."""

    def start(self) -> None:
        """Listen to everything, and look at what the viewer has."""
        self.connect_sources()
        self.connect_widget()
        self.layer_choice.start()
        self._on_image()
        self.refresh()

    def connect_widget(self) -> None:
        """Connect everything that can be pressed."""
        widget = self.widget
        widget.data.new_annotation.connect(self.new_annotation)
        widget.data.restore.connect(self.restore)
        widget.data.keep_aside.connect(self.keep_aside)
        widget.data.use_size.connect(self.use_size)
        widget.data.others.ticked.connect(self.tick)
        widget.classes.edited.connect(self.edit_classes)
        widget.classes.removed.connect(self.remove_class)
        widget.classes.selected.connect(self.annotating.select)
        widget.annotate.next_slice.connect(self.annotating.go_on)
        widget.annotate.fill.connect(self.annotating.fill_background)
        widget.annotate.accept.connect(self.accept)
        widget.annotate.clear.connect(self.annotating.clear)
        widget.annotate.jump.connect(self.annotating.show)
        widget.training.train.connect(self.train)
        widget.training.pause.connect(self.pause)
        widget.training.stop.connect(self.stop)
        widget.training.restart.connect(self.restart)
        widget.segmenting.segment.connect(lambda: self.segment())
        widget.segmenting.choose_file.connect(self.choose_file)
        widget.segmenting.cancel.connect(self.cancel)
        widget.model.new.connect(self.new_model)
        widget.model.load.connect(self.choose_model)
        widget.model.save.connect(self.choose_model_file)
        shortcuts.bind(
            self.viewer,
            {
                shortcuts.NEXT: self.annotating.go_on,
                shortcuts.FILL: self.annotating.fill_background,
                shortcuts.ACCEPT: self.accept,
                shortcuts.PREVIEW: widget.preview.shown.toggle,
            },
        )

    def train(self) -> None:
        """Train on what is painted, or train the present model on."""
        choice = self.widget.data.choice()
        self.learning.look()
        self.refresh()
        why_not = self.state.why_not_train or self.widget.advanced.problem()
        if why_not or choice is None:
            show_warning(why_not or "There is nothing to train on.")
            return
        self.keep()
        self.trained = set()
        self.pace.reset()
        if not self.state.has_model:
            self.widget.training.plot("clear_points")
            self.set_state(step=0, loss=None, held_out_iou=None)
        self.set_state(phase=Phase.TRAINING, rate=0.0, time_left=None)
        others = self.learning.learned_from(choice)
        learned = [choice, *(v.choice for v in others if not v.choice.same_as(choice))]
        self.transfer.open(TRAINING, learned, partial(self.train_on, choice, learned))

    def use_size(self) -> None:
        """Give the image the size of the voxels that its file tells."""
        size = size_in_file(self.choice) if self.choice is not None else None
        if self.choice is not None and size is not None:
            use_size(self.viewer, self.choice, *size)
            if self.state.has_model or self.state.is_training:
                show_warning(
                    f"The model was trained on voxels of {NO_SIZE[0]:g} × "
                    f"{NO_SIZE[1]:g} × {NO_SIZE[2]:g} and keeps that size: press New "
                    "under Model, then Train, to have one that knows the true one."
                )

    def pause(self) -> None:
        """Hold the training, or let it go on."""
        held = self.state.phase is Phase.PAUSED
        (self.client.resume if held else self.client.pause)()

    def stop(self) -> None:
        """End the training and keep the best model."""
        self.keep()
        if self.transfer.cancel(TRAINING):
            self.state = state_changes.training_over(self.state)
            self.refresh()
            # The worker may know the image no more, where its scale was corrected.
            self.preview_if_possible()
            return
        self.client.stop()
        if self.state.phase in (Phase.TRAINING, Phase.PAUSED):
            self.set_state(phase=Phase.STOPPING)

    def segment(self, path: str = "") -> None:
        """Segment the whole volume, into a layer or a file."""
        choice = self.widget.data.choice()
        self.refresh()
        why_not = self.state.why_not_segment or why_model_does_not_fit(
            self.summary, choice
        )
        why_not = why_not or self.widget.advanced.problem()
        if why_not or choice is None:
            show_warning(why_not or "There is nothing to segment.")
            return
        doubt = doubt_about_model(self.summary, choice)
        if doubt:
            show_warning(doubt)
        self.state = state_changes.segmenting(self.state)
        self.refresh()
        self.transfer.open(
            SEGMENTATION, [choice], partial(self.segment_now, choice, path)
        )

    def cancel(self) -> None:
        """End the segmentation, or the copying of its image."""
        if self.transfer.cancel(SEGMENTATION):
            self.state = state_changes.segmentation_over(self.state)
            self.refresh()
            return
        self.segmenting.cancel()

    def choose_file(self) -> None:
        """Segment into a file that the person chooses."""
        path = self._file_to_write(
            "Segment into a file", "", "OME-Zarr (*.ome.zarr)", ".zarr", ".ome.zarr"
        )
        choice = self.widget.data.choice()
        if not path or choice is None:
            return
        probabilities = self.widget.segmenting.probabilities.isChecked()
        problem = why_not_into(path, choice, probabilities)
        if problem:
            show_warning(problem)
            return
        self.segment(path)

    def new_annotation(self) -> None:
        """Add an annotation layer and work on it."""
        choice = self.widget.data.choice()
        if choice is not None and problem_of(choice) is None:
            known = self.learning.classes(choice) or self.model_classes()
            layer = self.annotating.add(choice, known or DEFAULT_CLASSES)
            self.widget.data.choose_annotation(layer)

    def tick(self, number: int, ticked: bool) -> None:
        """Learn from another annotated image too, or do not."""
        self.learning.tick(number, ticked)
        self.refresh()

    def edit_classes(self, classes: Classes) -> None:
        """Take over names and colours."""
        self.learning.set_classes(self.choice, classes)

    def remove_class(self, label: int) -> None:
        """Erase a class; those behind it move up."""
        if self.state.busy:
            show_warning(
                "A class cannot be removed now: the model at work knows the others by "
                "their numbers, which would change. Stop it first."
            )
            return
        self.learning.remove_class(self.choice, label)

    def restore(self) -> None:
        """Open what was kept of this image, and the model with it."""
        choice, project = self.widget.data.choice(), self.project
        if choice is None or project is None:
            return
        kept, model = self.autosave.recall(project)
        self.widget.data.offer_restore(None)
        if kept is None:
            show_warning(f"Nothing that was kept in {project.folder} can be read.")
            return
        self.autosave.claim(project, restored=True)
        layer = self.annotating.add(choice, kept.classes, kept.labelled.dense())
        self.widget.data.choose_annotation(layer)
        if model.exists() and not self.state.has_model and not self.state.busy:
            self.load_model(str(model))

    def keep_aside(self) -> None:
        """Begin anew; what was kept of this image is put aside."""
        if self.project is not None:
            self.autosave.claim(self.project)
        self.widget.data.offer_restore(None)

    def accept(self) -> None:
        """Take over the preview of the slice in view."""
        where = self.annotating.in_view()
        if where is None:
            return
        prediction = self.previewing.prediction(where)
        if prediction is None:
            show_info("There is no preview of this slice yet: train first.")
            return
        self.annotating.accept(where, prediction)

    def new_model(self) -> None:
        """Forget the model; its file is put aside when another one is trained."""
        self.model_file = self.begun_from = None
        self.client.new_model()
        self.previewing.forget()
        self.widget.training.plot("clear_points")
        self.set_state(step=0, loss=None, held_out_iou=None)

    def choose_model(self) -> None:
        """Open a model file that the person chooses."""
        path, _ = QFileDialog.getOpenFileName(
            self.widget, "Open a model", "", "Model (*.pt);;All files (*)"
        )
        if path:
            self.load_model(path)

    def choose_model_file(self) -> None:
        """Write the model to a file that the person chooses."""
        path = self._file_to_write(
            "Save the model", "model.pt", "Model (*.pt)", ".pt", ".pt"
        )
        if path:
            self.save_model(path)

    def save_model(self, path: str) -> None:
        """Write the model to a file."""
        self.saving = path
        self.client.save_model(path)

    def _file_to_write(
        self, title: str, name: str, kinds: str, ending: str, added: str
    ) -> str:
        """Let the person choose a file; empty where none was chosen.

        A name without an ending gets one. What has that name already was not asked
        about, and is not replaced.
        """
        path, _ = QFileDialog.getSaveFileName(self.widget, title, name, kinds)
        if not path or path.endswith(ending):
            return path
        path = f"{path}{added}"
        if os.path.exists(path):
            show_warning(
                f"{path} exists already: choose another name, or this file itself to "
                "replace it."
            )
            return ""
        return path
