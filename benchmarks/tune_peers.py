"""Choose width, learning rate and patches of the peers' networks.

    python benchmarks/tune_peers.py [SET ...] [--seconds 60 180]

Every combination is trained on one annotated slice per axis of each volume. The second
table is the mean over the volumes, best first.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import asdict

import datasets
from peer_networks import SETTINGS, PeerTraining, Settings, train_peer
from reporting import add_options, machine, prepare, print_table, write_json

COLUMNS = {
    "set": ("set", ""),
    "method": ("method", ""),
    "base": ("base", "d"),
    "learning rate": ("learning_rate", "g"),
    "patch": ("patch", "d"),
    "batch": ("batch", "d"),
    "seconds": ("at", "g"),
    "steps": ("steps", "d"),
    "foreground IoU": ("mean_foreground_iou", ".3f"),
}


def main(arguments=None) -> None:
    """Compare settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0])
    parser.add_argument("--bases", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--patches", nargs="+", default=["4x32", "2x48"])
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.bases, options.patches = [8], ["4x32"]
        options.seconds = [20.0]
    prepare(options.threads)
    facts = machine()
    rows = []
    for name in options.sets or ("nuclei_1135", "medulla"):
        case = datasets.load(name)
        labels = datasets.annotate(case.truth)
        for method, base, rate, patches in itertools.product(
            options.methods, options.bases, options.rates, options.patches
        ):
            count, edge = (int(n) for n in patches.split("x"))
            settings = Settings(base, rate, edge, count)
            began = time.perf_counter()
            training = PeerTraining(method, case.image, labels, settings=settings)
            times = sorted(options.seconds)
            points = train_peer(training, began, times)
            for at, (seconds, steps) in zip(times, points, strict=True):
                scores = datasets.score(training.segment(), case.truth, labels)
                row = {"set": name, "method": method, **asdict(settings), "at": at}
                row |= {"seconds": seconds, "steps": steps, **scores}
                rows.append(row)
                print(row, flush=True)
    print_table(rows, COLUMNS)
    print_table(means(rows), COLUMNS)
    write_json(options.json, facts, rows=rows)


def means(rows):
    """Average the IoU over the volumes; the best first, by method and time."""
    names = ("method", "base", "learning_rate", "patch", "batch", "at")
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    merged = [
        dict(zip(names, key, strict=True))
        | {
            "set": "mean",
            "steps": round(statistics.mean(row["steps"] for row in group)),
            "mean_foreground_iou": statistics.mean(
                row["mean_foreground_iou"] for row in group
            ),
        }
        for key, group in groups.items()
    ]
    return sorted(
        merged, key=lambda row: (row["method"], row["at"], -row["mean_foreground_iou"])
    )


if __name__ == "__main__":
    main()
