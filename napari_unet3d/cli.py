"""The command line: napari-unet3d demo | train | segment | evaluate | inspect."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from ._thread_waiting import wait_briefly

if TYPE_CHECKING:
    from .engine.ranks import Ranks

COMMANDS = {
    "demo": "train on a generated volume, segment and score it",
    "train": "train a model on sparsely annotated volumes",
    "segment": "segment a volume with a trained model",
    "evaluate": "score a segmentation against the truth",
    "inspect": "print a model or configuration, or look at training data",
}


def main(arguments: Sequence[str] | None = None, ranks: Ranks | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of those of the process.
    ranks : Ranks, optional
        Where this process is one of several that run the same command together.

    Returns
    -------
    int
        Exit status: 0 done, 2 for anything the person has to change, 130 interrupted,
        141 where nobody reads the output any more, 143 terminated.
    """
    wait_briefly()
    try:
        status = _status(sys.argv[1:] if arguments is None else arguments, ranks)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is flushed at the end of the process has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _status(arguments: Sequence[str], ranks: Ranks | None) -> int:
    """Run the program and turn every way in which it may end into a status."""
    from .engine.errors import EngineError
    from .engine.memory import check_limit

    try:
        check_limit()
        with _prepared():
            _run(arguments, ranks)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except EngineError as error:
        return _failed(str(error).rstrip("."))
    except MemoryError:
        return _failed(
            "memory ran out; use fewer --base-channels, a smaller --patch-size or less "
            "--memory"
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _failed(f"cannot use{place}: {error.strerror or error}; choose another")
    except KeyboardInterrupt:
        print("napari-unet3d: interrupted", file=sys.stderr)
        return 130
    return 0


def _failed(sentence: str) -> int:
    print(f"napari-unet3d: {_with_flags(sentence)}", file=sys.stderr)
    return 2


def _with_flags(sentence: str) -> str:
    """Name flags where a sentence names the arguments of a function."""
    from .engine.config import ModelConfig, TrainingConfig
    from .engine.config_values import field_names

    sentence = re.sub(r"\baxes='(\w+)'", r"--axes \1", sentence)
    sentence = re.sub(r"\bchannels=\[([-\d, ]+)\]", r"--channels \1", sentence)
    names = [*field_names(ModelConfig), *field_names(TrainingConfig)]
    # Names of two words; others may be words of the sentence. Not in paths.
    fields = "|".join(name for name in names if "_" in name)
    return re.sub(
        rf"(?<![\w./\\-])(?:{fields})(?![\w./\\-])",
        lambda found: "--" + found[0].replace("_", "-"),
        sentence,
    )


def _run(arguments: Sequence[str], ranks: Ranks | None) -> None:
    """Parse, importing only the module of the chosen command, and do it."""
    name = next((word for word in arguments if not word.startswith("-")), "")
    root = _Parser(
        prog="napari-unet3d",
        description="Dense segmentation of volumes from a few annotated slices.",
        epilog="napari-unet3d COMMAND --help lists the flags of a command.",
    )
    root.add_argument(
        "--version", action="version", version=__version__, help="print the version"
    )
    parsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen, parser = None, root
    for command, summary in COMMANDS.items():
        sub = parsers.add_parser(
            command,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        if command == name:
            chosen = importlib.import_module(f".commands.{command}", __package__)
            chosen.add_arguments(sub)
            parser = sub
    # A command may have to be started again in other processes.
    given = argparse.Namespace(words=tuple(arguments), ranks=ranks)
    options, unknown = root.parse_known_args(arguments, given)
    if unknown:
        parser.error(_unknown(unknown, parser))
    assert chosen is not None
    chosen.run(options)


class _Formatter(argparse.HelpFormatter):
    """Give the names of flags room, so that most have their help beside them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


class _Parser(argparse.ArgumentParser):
    """Say what is wrong in one line, instead of after a page of usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with the message."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def flags(self) -> list[str]:
        """Names of all flags."""
        return list(self._option_string_actions)


def _unknown(words: Sequence[str], parser: _Parser) -> str:
    """Name the first word that is not understood, and what may have been meant."""
    flag = next((word for word in words if word.startswith("-")), words[0])
    near = difflib.get_close_matches(flag.split("=")[0], parser.flags(), 1, 0.7)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{flag} is not understood{hint}"


@contextmanager
def _prepared() -> Iterator[None]:
    """Keep libraries from talking, and let SIGTERM clean up as an interrupt does."""
    logger = logging.getLogger("tifffile")
    level, former = logger.level, None
    # What it logs about a damaged file, an error says as well.
    logger.setLevel(logging.CRITICAL + 1)
    if threading.current_thread() is threading.main_thread():
        former = signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.")
            yield
    finally:
        logger.setLevel(level)
        if former is not None:
            signal.signal(signal.SIGTERM, former)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
