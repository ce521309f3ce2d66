"""IoU against the time a person waits: this project beside peers.

    python benchmarks/accuracy.py [SET ...] [--minutes 1 3] [--slices 1] [--seeds 0 1 2]
    python benchmarks/accuracy.py [SET ...] --at 5 10 20 40 60 120 180 300
        --methods ours forest monai pytorch-3dunet

Each set is annotated with whole slices across every axis, all methods learn from them,
and what was not annotated is scored. Seconds are wall-clock time from raw volume to
segmentation; the table's "train" is what a person waits before the first result.

With `--minutes`, every method is trained anew for each of them. With `--at`, one
training is measured at those seconds, which do not include the measuring; the columns
are the foreground IoU after so many seconds of training, and "segmenting" is what it
takes then to segment the volume. The forest, which cannot be had earlier, is shown
from the seconds on that it takes for all. `learning_curves.py` says which weights
segment, `peer_networks.py` and `tune_peers.py` how the peers are trained and tuned.

With `--folder` any folder of NAME_image.tif / NAME_labels.tif pairs is measured.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import datasets
from learning_curves import TITLES, forest_curve, own_curve, peer_curve
from reporting import add_options, machine, prepare, print_table, write_json

from napari_unet3d.engine import ModelConfig

DEFAULT_SETS = ("embryo_8cell", "nuclei_1135", "medulla")
QUICK_SETS = ("embryo_8cell", "nuclei_1135")
QUICK_TIMES = (10.0, 30.0, 60.0)


def measure(case, slices, seed, options):
    """Measure one annotation of one set with all methods, as rows of the table."""
    labels = datasets.annotate(case.truth, slices)
    known = {
        "set": case.name,
        "seed": seed,
        "slices_per_axis": slices,
        "labelled": float((labels > 0).mean()),
    }
    rows = []
    for method in options.methods:
        for minutes, point in points(method, case, labels, seed, options):
            row = {"method": TITLES[method], "minutes": minutes, "at": point.at}
            row |= {"seconds": point.seconds, **point.facts, **known}
            row |= datasets.score(point.labels, case.truth, labels)
            rows.append(row)
            print_row(row)
    return rows


def points(method, case, labels, seed, options):
    """Yield the segmentations of one method, each with the minutes it was given."""
    if method == "forest":
        for point in forest_curve(case, labels, seed):
            yield None, point
        return
    trainings = (
        [(None, options.at)]
        if options.at
        else [(minutes, [60 * minutes]) for minutes in options.minutes]
    )
    for minutes, times in trainings:
        if method == "ours":
            model = ModelConfig(base_channels=options.base_channels)
            device, precision = options.device, options.precision
            curve = own_curve(case, labels, times, seed, model, precision, device)
        else:
            curve = peer_curve(method, case, labels, times, seed, options.device)
        for point in curve:
            yield minutes, point


def print_row(row):
    """Print one measurement."""
    budget = f"{row['at']:g} s" if row["at"] else ""
    if row["minutes"]:
        budget = f"{row['minutes']:g} min"
    print(
        f"{row['set']:<16} {row['method']:<14} {budget:>8}  IoU "
        f"{row['mean_foreground_iou']:.3f}  {row['seconds']:6.1f} s  "
        f"{row.get('steps', '')}",
        flush=True,
    )


def summary(rows):
    """Merge the seeds: medians by set, annotation, method and minutes."""
    merged = []
    forest = TITLES["forest"]
    for key, group in grouped(rows, "set", "slices_per_axis", "method", "minutes"):
        name, slices, method, minutes = key
        peers = [
            row["mean_foreground_iou"]
            for row in rows
            if (row["set"], row["slices_per_axis"], row["method"])
            == (name, slices, forest)
        ]
        row = {
            "set": name,
            "slices": slices,
            "method": method + (f", {minutes:g} min" if minutes else ""),
            "iou": median(group, "mean_foreground_iou"),
            "seconds": median(group, "seconds"),
        }
        if peers:
            row["gain"] = row["iou"] - statistics.median(peers)
        merged.append(row)
    columns = {
        "set": ("set", ""),
        "slices": ("slices", "d"),
        "method": ("method", ""),
        "foreground IoU": ("iou", ".3f"),
        "seconds": ("seconds", ".0f"),
        "against the forest": ("gain", "+.3f"),
    }
    return merged, columns


def curves(rows, times):
    """Merge the seeds: one row a set, annotation and method, one column a time."""
    merged = []
    for key, group in grouped(rows, "set", "slices_per_axis", "method"):
        row = dict(zip(("set", "slices", "method"), key, strict=True))
        for at in times:
            ready = [r for r in group if is_ready(r, at)]
            if ready:
                row[str(at)] = median(ready, "mean_foreground_iou")
        waits = [r["seconds"] - r["train_seconds"] for r in group if r["at"]]
        if waits:
            row["segmenting"] = statistics.median(waits)
        merged.append(row)
    for (slices, method), group in grouped(merged, "slices", "method"):
        row = {"set": "mean", "slices": slices, "method": method}
        for at in map(str, times):
            if all(at in r for r in group):
                row[at] = statistics.mean(r[at] for r in group)
        merged.append(row)
    columns = {"set": ("set", ""), "slices": ("slices", "d"), "method": ("method", "")}
    columns |= {f"{at:g} s": (str(at), ".3f") for at in times}
    columns["segmenting, s"] = ("segmenting", ".1f")
    return merged, columns


def is_ready(row, at):
    """Tell whether a measurement is the one at some seconds, or could be had then."""
    return row["at"] == at if row["at"] else row["seconds"] <= at


def grouped(rows, *names):
    """Return the rows that agree in some fields, with those, in order."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.items())


def median(rows, name):
    """Return the median of a field."""
    return statistics.median(row[name] for row in rows)


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--folder", type=Path, help="folder of image and label pairs")
    parser.add_argument(
        "--methods", nargs="+", default=["ours", "forest"], choices=list(TITLES)
    )
    parser.add_argument(
        "--slices", type=int, nargs="+", default=[1], help="slices per axis"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, nargs="+", default=[3.0])
    budget.add_argument("--at", type=float, nargs="+", help="seconds of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--base-channels", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu", help="of the networks")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.at = list(QUICK_TIMES)

    prepare(options.threads)
    cases = [datasets.load(name) for name in options.sets]
    if options.folder:
        cases += datasets.folder_cases(options.folder)
    if not cases:
        names = QUICK_SETS if options.quick else DEFAULT_SETS
        cases = [datasets.load(name) for name in names]
    facts = machine(options.device)
    print(facts)
    rows = []
    for case in cases:
        for slices in options.slices:
            for seed in options.seeds:
                rows += measure(case, slices, seed, options)
    times = sorted(options.at or ())
    merged, columns = curves(rows, times) if times else summary(rows)
    print_table(merged, columns)
    write_json(options.json, facts, rows=rows, medians=merged)


if __name__ == "__main__":
    main()
