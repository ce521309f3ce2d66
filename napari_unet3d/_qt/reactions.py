"""What follows when layers, annotation or view change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QTimer

from .sentences import describe_kept
from .state import Phase
from .telling import Telling
from .volumes import problem_of

if TYPE_CHECKING:
    from .annotation_scan import Changes, Labelled
    from .classes import Classes
    from .volumes import VolumeChoice

COURTESY_SECONDS = 0.3


class Reactions(Telling):
    """React to layers, view and time."""

    _last_courtesy = 0.0
    _late_warning = ""

    def connect_sources(self) -> None:
        """Listen to everything that tells something."""
        self.connection.received.connect(self.receive)
        self.annotating.changed.connect(self._on_annotation)
        self.annotating.classes_changed.connect(self._on_classes)
        self.annotating.label_selected.connect(self.widget.classes.select)
        self.annotating.painting.connect(self._be_courteous)
        self.annotating.reshaped.connect(self.layer_choice.offer_annotations)
        self.annotating.unusable.connect(show_warning)
        self.transfer.failed.connect(self._on_unreadable)
        self.autosave.due.connect(self.keep)
        self.autosave.failed.connect(show_warning)
        self.layer_choice.image_lost.connect(self._on_image_lost)
        self.widget.data.changed.connect(self._on_image)
        self.widget.data.annotation_changed.connect(self._on_layer)
        self.widget.preview.changed.connect(self._on_preview_choice)
        self.previewing.shown_changed.connect(self.widget.preview.shown.setChecked)
        for event in self._view_events():
            event.connect(self._on_view)
        self.viewer.events.theme.connect(self._on_theme)
        self._on_theme()

    def disconnect_sources(self) -> None:
        """Let go of the viewer."""
        for event in self._view_events():
            event.disconnect(self._on_view)
        self.viewer.events.theme.disconnect(self._on_theme)

    def _view_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _on_image(self) -> None:
        choice = self.widget.data.choice()
        if choice is not None and choice.same_as(self.choice):
            return
        self.keep()
        if self.choice is not None:
            self.previewing.end()
        self.choice = choice
        # Whoever removes the image with its annotation needs no word about the latter.
        self._late_warning = ""
        self.layer_choice.watch(choice)
        self.layer_choice.offer_annotations()
        self._on_layer()
        self.project = None
        sentence = None
        if choice is not None and problem_of(choice) is None:
            self.project = self.locks.project_of(choice)
            kept = self.autosave.offer(self.project)
            sentence = describe_kept(kept, self.project) if kept else None
        self.widget.data.offer_restore(sentence)
        self.preview_if_possible()
        self.refresh()

    def _on_layer(self) -> None:
        layer = self.widget.data.annotation()
        self._keep_lost_annotation()
        if layer is None or layer != self.annotating.layer:
            self.annotating.use(layer, self.choice)
            self._send_labels()
        self._show_annotation()

    def _keep_lost_annotation(self) -> None:
        """Keep what was painted in a layer that cannot be used any more; offer it."""
        lost, project = self.annotating.layer, self.project
        if lost is None or project is None or self.choice != self.annotating.choice:
            return
        labelled = self.annotating.look()
        if labelled is None or not len(labelled.index):
            return
        removed = lost not in self.viewer.layers
        if not removed and tuple(lost.data.shape) == labelled.shape:
            return
        self.keep()
        self.autosave.release(project)
        kept = self.autosave.offer(project)
        if kept is None:
            return
        self.widget.data.offer_restore(describe_kept(kept, project))
        what = "removed" if removed else "given data of another shape"
        self._warn_later(
            f"“{lost.name}” was {what}. What was painted is kept: press Restore under "
            "Data to have it back."
        )

    def _on_annotation(self, changes: Changes, labelled: Labelled) -> None:
        number = self.transfer.number_of(self.choice)
        if number is not None:
            self.client.update_annotation(number, changes.index, changes.labels)
        self._show_annotation()

    def _on_classes(self, classes: Classes) -> None:
        layer = self.annotating.layer
        selected = None if layer is None else int(layer.selected_label)
        self.widget.classes.show_classes(classes, selected)
        self.widget.preview.show_classes(classes)
        self._show_annotation()

    def _show_annotation(self) -> None:
        self.widget.classes.show_counts(self.annotating.counts())
        self.widget.annotate.show_slices(self.annotating.slices())
        self.refresh()

    def _send_labels(self) -> None:
        number, labelled = (
            self.transfer.number_of(self.choice),
            self.annotating.labelled,
        )
        if number is not None and labelled is not None:
            self.client.replace_annotation(number, labelled.index, labelled.labels)

    def _on_view(self, event: object = None) -> None:
        self.previewing.follow()
        self._be_courteous()
        self.refresh()

    def _be_courteous(self) -> None:
        """Ask the worker to leave the processor to the viewer for a moment."""
        now = time.monotonic()
        if self.state.busy and now - self._last_courtesy > COURTESY_SECONDS / 2:
            self._last_courtesy = now
            self.client.be_courteous(COURTESY_SECONDS)

    def _on_theme(self, event: object = None) -> None:
        from napari.utils.theme import get_theme

        theme = get_theme(str(self.viewer.theme))
        self.widget.training.set_colors(theme.background.as_hex(), theme.text.as_hex())

    def _on_preview_choice(self) -> None:
        section = self.widget.preview
        self.previewing.show(
            section.shown.isChecked(),
            section.probability_of,
            section.uncertainty.isChecked(),
        )

    def _on_unreadable(self, sentence: str) -> None:
        self.set_state(phase=Phase.IDLE)
        show_error(sentence)

    def _on_image_lost(self, lost: VolumeChoice, sentence: str) -> None:
        """Deal with an image whose layer was removed or whose data were replaced."""
        self.previewing.end()
        self.transfer.cancel()
        if self.state.phase in (Phase.TRAINING, Phase.PAUSED):
            self.client.stop()
            self.set_state(phase=Phase.STOPPING)
            self._warn_later(
                f"{sentence} The training was stopped and its best model kept."
            )
        elif self.state.phase is Phase.SEGMENTING:
            self.segmenting.cancel()
            said = "The segmentation was cancelled"
            if self.state.training_held:
                self.client.stop()
                self.set_state(phase=Phase.STOPPING, training_held=False)
                said += ", the training stopped and its best model kept"
            self._warn_later(f"{sentence} {said}.")
        self.transfer.forget(lost)
        self.refresh()

    def _warn_later(self, sentence: str) -> None:
        """Warn unless all this happens because the viewer is being closed."""
        self._late_warning = sentence
        QTimer.singleShot(0, self._warn)

    def _warn(self) -> None:
        sentence, self._late_warning = self._late_warning, ""
        if sentence and not self._closed:
            show_warning(sentence)
