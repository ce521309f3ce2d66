"""Foreground IoU after a fixed number of steps, for settings side by side.

    python benchmarks/compare_settings.py nuclei_1135 medulla_centre --steps 400
        --setting "augmentation.contrast=0.6 augmentation.noise=0.2"
        --setting training.loss=focal

The defaults are always measured too. With `--forest` the mean of the probabilities with
those of a random forest is scored as well. With `--at 0 50 200` a training is measured
after those of its steps as well. Steps instead of seconds make the figures independent
of what else the machine does; what a step costs is not compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import datasets
import yaml
from random_forest import forest_probabilities
from reporting import (
    add_options,
    machine,
    medians,
    prepare,
    print_table,
    write_json,
)

from napari_unet3d.engine import (
    Annotation,
    AugmentationConfig,
    ModelConfig,
    SegmentationConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    segment,
)

if TYPE_CHECKING:
    import numpy as np

COLUMNS = {
    "set": ("set", ""),
    "setting": ("setting", ""),
    "step": ("step", "d"),
    "foreground IoU": ("mean_foreground_iou", ".3f"),
    "with the forest": ("with_forest", ".3f"),
    "seeds": ("repeats", ""),
}
SECTIONS = ("model", "training", "augmentation", "segmentation")


def parsed(setting: str) -> dict[str, dict[str, Any]]:
    """Turn "section.field=value ..." into fields by section."""
    found: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for part in setting.split():
        name, _, value = part.partition("=")
        section, _, field = name.partition(".")
        if section not in found or not field or not value:
            raise SystemExit(
                f"{part!r} is not understood; give section.field=value with a section "
                f"of {', '.join(SECTIONS)}"
            )
        found[section][field] = yaml.safe_load(value)
    return found


def measure(
    case,
    labels: np.ndarray,
    setting: str,
    options: argparse.Namespace,
    seed: int,
    forest: np.ndarray | None = None,
) -> Iterator[dict[str, Any]]:
    """Train with one setting and score the moving average of the weights."""
    fields = parsed(setting)
    steps = 50 if options.quick else options.steps
    volume = TrainingVolume(case.image, Annotation.from_labels(labels), case.spacing)
    training = TrainingConfig(
        steps=steps,
        seed=seed,
        augmentation=AugmentationConfig(**fields["augmentation"]),
        **fields["training"],
    )
    trainer = Trainer([volume], ModelConfig(**fields["model"]), training)
    config = SegmentationConfig(**{"weights": "average", **fields["segmentation"]})
    for step in sorted({*options.at, steps}):
        for _ in trainer.run(stop_after=step - trainer.step):
            pass
        found = segment(trainer.checkpoint(), case.image, config, probabilities=True)
        row = {"set": case.name, "setting": setting or "defaults", "seed": seed}
        row |= {"step": step} | datasets.score(found.labels, case.truth, labels)
        if forest is not None:
            mean = (found.probabilities / 255 + forest).argmax(axis=0) + 1
            scores = datasets.score(mean, case.truth, labels)
            row["with_forest"] = scores["mean_foreground_iou"]
        yield row


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", default=["nuclei_1135"])
    parser.add_argument("--setting", action="append", default=[], metavar="A.B=C ...")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--at", type=int, nargs="+", default=[], metavar="STEP")
    parser.add_argument("--slices", type=int, default=1, help="slices per axis")
    parser.add_argument("--forest", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    add_options(parser)
    options = parser.parse_args(arguments)
    prepare(options.threads)
    facts = machine()
    print(facts)
    rows = []
    for name in options.sets:
        case = datasets.load(name)
        labels = datasets.annotate(case.truth, options.slices)
        forest = forest_probabilities(case.image, labels) if options.forest else None
        for setting in ["", *options.setting]:
            for seed in options.seeds:
                for row in measure(case, labels, setting, options, seed, forest):
                    rows.append(row)
                    print(name, row["setting"], seed, row["step"], end=" ")
                    print(f"{row['mean_foreground_iou']:.3f}", flush=True)
    merged = medians(rows, ("set", "setting", "step"))
    print_table(merged, COLUMNS)
    write_json(options.json, facts, rows=rows, medians=merged)


if __name__ == "__main__":
    main()
