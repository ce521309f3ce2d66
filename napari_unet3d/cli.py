"""The command line: napari-unet3d demo | train | segment | evaluate | inspect."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from . import __version__

COMMANDS = {
    "demo": "train on a generated volume, segment and score it",
    "train": "train a model on sparsely annotated volumes",
    "segment": "segment a volume with a trained model",
    "evaluate": "score a segmentation against the truth",
    "inspect": "print a model or configuration, or look at training data",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 2 for anything the person has to change, 130 interrupted.
    """
    from .engine.errors import EngineError

    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, chosen = _parser(given)
    options = parser.parse_args(given)
    try:
        chosen.run(options)
    except EngineError as error:
        print(f"napari-unet3d: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(
            "napari-unet3d: memory ran out; use fewer --base-channels, a smaller "
            "--patch-size or less --memory",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("napari-unet3d: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser(given: Sequence[str]):  # type: ignore[no-untyped-def]
    """Make the parser; only the chosen command's module is imported."""
    parser = argparse.ArgumentParser(
        prog="napari-unet3d",
        description="Dense segmentation of volumes from a few annotated slices.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = None
    name = next((word for word in given if not word.startswith("-")), "")
    for command, help_text in COMMANDS.items():
        sub = commands.add_parser(
            command,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            allow_abbrev=False,
        )
        if command == name:
            chosen = importlib.import_module(f".commands.{command}", __package__)
            chosen.add_arguments(sub)
    return parser, chosen


if __name__ == "__main__":
    raise SystemExit(main())
