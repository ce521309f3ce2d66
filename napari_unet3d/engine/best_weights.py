"""Keep the weights that are best on the held-out labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .optimization import copied

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, Weights
    from .metrics import Scores
    from .optimization import Optimization
    from .validation import HeldOut

TOLERANCE = 0.05
"""Newer weights replace the best ones unless their IoU is lower by more than this.

The figures of a few hundred held-out voxels vary by some hundredths from one
measurement to the next while the segmentation hardly changes; what must be caught is a
training that collapses.
"""


class BestWeights:
    """The best weights so far and what was measured with them."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        """Their "step" and "iou", the highest while its labels were held out.

        "labels" tells on which voxels it was measured, and "learned" is the highest IoU
        of these after they were learned.
        """
        self.weights: Weights = {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over those of a checkpoint."""
        self.figures = dict(checkpoint.best)
        self.weights = dict(checkpoint.weights.get("best", {}))

    def measure(
        self,
        held_out: HeldOut,
        optimization: Optimization,
        step: int,
        apart: bool = True,
    ) -> tuple[Scores, bool] | None:
        """Measure the moving average and keep it where it is about the best.

        Parameters
        ----------
        held_out : HeldOut
            What to measure on.
        optimization : Optimization
            Has the average.
        step : int
            Steps trained.
        apart : bool
            Whether the labels are kept from the training, still.

        Returns
        -------
        scores : Scores
        is_best : bool
            Whether it was kept. `None` in place of both where nothing is held out.
        """
        if self.figures.get("labels") != held_out.fingerprint:
            # Nothing to compare with: other labels than those are held out now.
            self.figures, self.weights = {}, {}
        scores = held_out.measure(optimization.average, optimization.autocast())
        if scores is None:
            return None
        mean, name = scores.mean_iou, "iou" if apart else "learned"
        best = max(self.figures.get(key, -1.0) for key in ("iou", "learned"))
        is_best = mean >= best - TOLERANCE
        if is_best:
            self.figures |= {
                name: max(mean, best),
                "step": float(step),
                "labels": held_out.fingerprint,
            }
            self.weights = copied(optimization.average.state_dict())
        return scores, is_best
