from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from napari_unet3d import __version__, cli
from napari_unet3d.cli import COMMANDS, main
from napari_unet3d.engine.errors import EngineError


@pytest.fixture
def command(monkeypatch):
    """Have `evaluate` do something else."""

    def install(run):
        module = SimpleNamespace(add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(cli.importlib, "import_module", lambda *_: module)

    return install


def raising(error):
    def run(options):
        raise error

    return run


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and summary in out for name, summary in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: napari-unet3d")
    assert not captured.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "napari-unet3d: the following arguments are required: COMMAND; see "),
        (["trian"], "invalid choice: 'trian' (choose from"),
        (
            ["train", "--stesp", "3"],
            "--stesp is not understood (did you mean --steps?)",
        ),
        (["train", "--steps=3", "--xyz=3"], "--xyz=3 is not understood; see"),
        (["train", "--steps"], "argument --steps: expected one argument; see "),
        (["train", "--stop-after", "x"], "--stop-after: invalid int value: 'x'"),
        (["train", "--loss", "mse"], "argument --loss: invalid choice: 'mse'"),
        (["segment", "--model", "m.pt"], "required: --image, --output; see"),
        (["evaluate", "--truth", "t.tif"], "required: --segmentation; see"),
        (["train", "a.tif"], "a.tif is not understood; see napari-unet3d train --help"),
        # Abbreviations would change their meaning with every new flag.
        (["train", "--step", "3"], "--step is not understood (did you mean --steps?)"),
    ],
)
def test_wrong_usage_is_one_line(arguments, sentence, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (EngineError("too dark; switch it on."), 2, "too dark; switch it on"),
        # What is an argument of a function in Python is a flag here.
        (
            EngineError("pass axes='ZYX', channels=[0, 2]"),
            2,
            "pass --axes ZYX, --channels 0, 2",
        ),
        (
            EngineError("c.yaml: training.patch_size is bad, as in x/patch_size.tif"),
            2,
            "c.yaml: training.patch_size is bad, as in x/patch_size.tif",
        ),
        (EngineError("a smaller patch_size"), 2, "a smaller --patch-size"),
        (
            MemoryError(),
            2,
            (
                "memory ran out; use fewer --base-channels, a smaller --patch-size or "
                "less --memory"
            ),
        ),
        (
            OSError(errno.EIO, "Input/output error", "x.tif"),
            2,
            "cannot use x.tif: Input/output error; choose another",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, sentence, command, capsys):
    command(raising(error))
    assert main(["evaluate"]) == status
    assert capsys.readouterr().err == f"napari-unet3d: {sentence}\n"


def test_a_mistake_in_the_program_is_not_hidden(command):
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["evaluate"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_sigterm_ends_with_its_status_and_cleans_up(command):
    cleaned = []

    def run(options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    command(run)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["evaluate"]) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_nobody_reads_the_output(tmp_path):
    (tmp_path / "c.yaml").write_text("training: {steps: 3}")
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_unet3d.cli", "inspect", tmp_path / "c.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=60)
    assert not error
    assert process.returncode == 141


def test_help_of_the_program_does_not_load_torch():
    code = (
        "import sys; from napari_unet3d.cli import main; main(['--help']);"
        "print('torch' in sys.modules, 'napari' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "False False"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "napari_unet3d.cli", "inspect", "missing.pt"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "napari-unet3d: there is no model file missing.pt; check the name\n"
    )
