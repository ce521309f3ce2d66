"""What follows when layers, annotation or view change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QTimer

from . import state_changes
from .sentences import describe_kept, describe_size
from .session import PREVIEW, SEGMENTATION, TRAINING
from .state import Phase
from .telling import Telling
from .volumes import problem_of
from .voxel_size import size_in_file

if TYPE_CHECKING:
    from .annotated_volume import AnnotatedVolume
    from .annotation_scan import Changes
    from .projects import Project
    from .volumes import VolumeChoice

COURTESY_SECONDS = 0.3


class Reactions(Telling):
    """React to layers, view and time."""

    _last_courtesy = 0.0
    _late_warning = ""

    def connect_sources(self) -> None:
        """Listen to everything that tells something."""
        self.connection.received.connect(self.receive)
        self.annotating.label_selected.connect(self.widget.classes.select)
        self.learning.changed.connect(self._on_annotation)
        self.learning.classes_changed.connect(self._on_classes)
        self.learning.painting.connect(self._be_courteous)
        self.learning.dropped.connect(self._on_dropped)
        self.learning.reshaped.connect(self.layer_choice.reconsider)
        self.learning.unusable.connect(show_warning)
        self.transfer.failed.connect(self._on_unreadable)
        self.transfer.opened.connect(self.previewing.follow)
        self.transfer.progressed.connect(lambda line: self.set_state(reading=line))
        self.autosave.due.connect(self.keep)
        self.autosave.failed.connect(show_warning)
        self.layer_choice.image_lost.connect(self._on_image_lost)
        self.layer_choice.regridded.connect(self._on_grid)
        self.widget.data.changed.connect(self._on_image)
        self.widget.data.annotation_changed.connect(self._on_layer)
        self.widget.preview.changed.connect(self._on_preview_choice)
        self.previewing.shown_changed.connect(self.widget.preview.shown.setChecked)
        for event in self._view_events():
            event.connect(self._on_view)
        for event in self._layers_events():
            event.connect(self._on_layers)
        self.viewer.events.theme.connect(self._on_theme)
        self._on_theme()

    def disconnect_sources(self) -> None:
        """Let go of the viewer."""
        for event in self._view_events():
            event.disconnect(self._on_view)
        for event in self._layers_events():
            event.disconnect(self._on_layers)
        self.viewer.events.theme.disconnect(self._on_theme)

    def _view_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _layers_events(self) -> tuple[Any, ...]:
        events = self.viewer.layers.events
        return events.inserted, events.removed

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
        self.layer_choice.offer_annotations()
        self._on_layer()
        self._on_grid()
        self._look_for_kept(self._present_project())
        self.preview_if_possible()
        self.refresh()

    def _on_grid(self) -> None:
        size = size_in_file(self.choice) if self.choice is not None else None
        self.widget.data.offer_size(
            describe_size(self.choice, *size) if size and self.choice else None
        )

    def _present_project(self) -> Project | None:
        choice = self.choice
        if choice is None or problem_of(choice) is not None:
            return None
        return self.project_of(choice)

    def _look_for_kept(self, project: Project | None) -> None:
        """Use the files of an image, and offer what was kept in them."""
        self.project = project
        kept = self.autosave.offer(project) if project else None
        self.widget.data.offer_restore(
            describe_kept(kept, project) if kept and project else None
        )

    def _on_layers(self, event: object = None) -> None:
        """See whether more images of the same file have come, or have gone."""
        if self.learning.of(self.choice) is None:
            project = self._present_project()
            if project != self.project:
                self._look_for_kept(project)

    def _on_layer(self) -> None:
        layer = self.widget.data.annotation()
        if self.choice is None or layer is None:
            self.annotating.use(None)
        else:
            before = self.learning.of(self.choice)
            volume = self.learning.hold(self.choice, layer)
            self.annotating.use(volume)
            number = self.transfer.number_of(self.choice)
            if volume is not before and number is not None:
                self.send_labels(self.choice, number)
        self.layer_choice.watch()
        self._show_classes()

    def _on_annotation(self, volume: AnnotatedVolume, changes: Changes) -> None:
        for number in self.transfer.numbers_at(volume.choice):
            self.client.update_annotation(number, changes.index, changes.labels)
        self._show_annotation()

    def _on_dropped(self, volume: AnnotatedVolume) -> None:
        """Learn no more from an annotation that is gone."""
        if volume.layer == self.annotating.layer:
            self.annotating.use(None)
            self._show_classes()
        for number in self.transfer.numbers_at(volume.choice):
            self.client.replace_annotation(number, (), ())
        self._keep_lost_annotation(volume)
        self.refresh()

    def _keep_lost_annotation(self, lost: AnnotatedVolume) -> None:
        """Keep what was painted in a layer that cannot be used any more; offer it."""
        self.autosave.save(lost.project, lost.choice, lost.labelled, lost.classes)
        if not len(lost.labelled.index) or not lost.is_lost(self.viewer):
            return
        self.autosave.release(lost.project)
        kept = self.autosave.offer(lost.project)
        if kept is None or lost.choice.layer not in self.viewer.layers:
            return
        where = f"Choose “{lost.choice.layer.name}” and press Restore under Data"
        if lost.choice.same_as(self.choice):
            self.widget.data.offer_restore(describe_kept(kept, lost.project))
            where = "Press Restore under Data"
        removed = lost.layer not in self.viewer.layers
        what = "removed" if removed else "given data of another shape"
        self._warn_later(
            f"“{lost.layer.name}” was {what}. What was painted is kept. {where} to "
            "have it back."
        )

    def _on_classes(self, volume: AnnotatedVolume) -> None:
        if volume.layer == self.annotating.layer:
            self._show_classes()

    def _show_classes(self) -> None:
        layer, classes = self.annotating.layer, self.annotating.classes
        selected = None if layer is None else int(layer.selected_label)
        self.widget.classes.show_classes(classes, selected)
        self.widget.preview.show_classes(self.learning.classes(self.choice))
        self._show_annotation()

    def _show_annotation(self) -> None:
        self.widget.classes.show_counts(self.annotating.counts())
        self.widget.annotate.show_slices(self.annotating.slices())
        self.refresh()

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

    def _on_unreadable(self, what: str, sentence: str) -> None:
        self._not_begun(what)
        show_error(sentence)

    def _not_begun(self, what: str) -> None:
        """Do without something that waited for a volume in vain."""
        if what == TRAINING:
            self.state = state_changes.training_over(self.state)
        elif what == SEGMENTATION:
            self.state = state_changes.segmentation_over(self.state)
        self.refresh()

    def _on_image_lost(self, lost: VolumeChoice, sentence: str) -> None:
        """Deal with an image whose layer was removed or whose data were replaced."""
        number = self.transfer.number_of(lost)
        if self.previewing.is_of(lost):
            self.previewing.end()
        said, stopped = [], False
        if self.state.is_training and number in self.trained:
            stopped = not self._train_without(number)
            said.append(
                "The training was stopped and its best model kept."
                if stopped
                else "The training goes on without it."
            )
        cancelled = self.state.phase is Phase.SEGMENTING and self.segmenting.is_of(lost)
        if cancelled:
            self.segmenting.cancel()
            said.append("The segmentation was cancelled.")
        if stopped and (cancelled or self.state.phase is not Phase.SEGMENTING):
            self.set_state(phase=Phase.STOPPING, training_held=False)
        for what in self.transfer.forget(lost):
            self._not_begun(what)
            if what != PREVIEW:
                said.append(f"The {what} was not begun.")
        if said:
            self._warn_later(" ".join([sentence, *said]))
        if self.choice is not None and self.choice.layer in self.viewer.layers:
            self.preview_if_possible()
        self.refresh()

    def _train_without(self, number: int) -> bool:
        """Learn from a volume no more; stop where nothing labelled is left."""
        self.trained.remove(number)
        self.client.replace_annotation(number, (), ())
        goes_on = any(
            self.transfer.number_of(volume.choice) in self.trained
            and len(volume.labelled.index)
            for volume in self.learning.volumes
        )
        if not goes_on:
            self.client.stop()
        return goes_on

    def _warn_later(self, sentence: str) -> None:
        """Warn unless all this happens because the viewer is being closed."""
        self._late_warning = sentence
        QTimer.singleShot(0, self._warn)

    def _warn(self) -> None:
        sentence, self._late_warning = self._late_warning, ""
        if sentence and not self._closed:
            show_warning(sentence)
