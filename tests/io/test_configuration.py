from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import read_configuration, write_configuration

# PyYAML reads the line breaks of Unicode as spaces.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.yaml"


@given(settings=st.dictionaries(TEXT, PLAIN, max_size=4))
@example(settings={"": "0E0"})
def test_settings_come_back(settings, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    write_configuration(path, settings)
    assert read_configuration(path) == settings


def test_order_and_letters_are_kept(path):
    write_configuration(path, {"z": 1, "a": ("Zellwände", 2e-05)})
    assert path.read_text(encoding="utf-8").startswith("z: 1\na:\n- Zellwände\n- 2")
    assert read_configuration(path) == {"z": 1, "a": ["Zellwände", 2e-05]}


def test_powers_of_ten_are_numbers(path):
    path.write_text(
        "a: 1e-3\nb: 2E5\nc: -1.5e+2\nd: 1e\ne: 12e3x\nf: '1e-3'\ng: 0x1e5\n"
    )
    assert read_configuration(path) == {
        "a": 1e-3,
        "b": 2e5,
        "c": -150.0,
        "d": "1e",
        "e": "12e3x",
        "f": "1e-3",
        "g": 0x1E5,
    }


def test_merged_mappings_may_be_overridden(path):
    path.write_text("a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  x: 3\n")
    assert read_configuration(path)["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "no valid configuration: 'a' is given twice in line 3; c",
        ),
        ("a:\n  b: 1\n  b: 2\n", "'b' is given twice in line 3; correct it"),
        ("a: [1, 2\n", "is no valid configuration: .* in line 2; correct it"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("{[1]: 2}", "is no valid configuration: found unhashable key in line 1"),
        (
            "- 1\n- 2\n",
            "holds list; write one setting per line, as in 'training: {steps: 500}'",
        ),
        ("just words", "holds str; write one setting per line"),
        ("", "holds nothing; write one setting per line"),
        ("1: 2", "holds names that are no text; write"),
        ("a: \x00", "cannot be read as YAML .*; check that it is a text file"),
        ("[" * 5000, "cannot be read as YAML|is no valid configuration"),
    ],
)
def test_what_is_no_list_of_settings_is_refused(path, text, sentence):
    path.write_text(text)
    with pytest.raises(EngineError, match=rf"training.yaml (?:is )?.*{sentence}"):
        read_configuration(path)


def test_other_files_are_refused(path):
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00\xff\xfe")
    with pytest.raises(EngineError, match=r"training.yaml cannot be read as YAML"):
        read_configuration(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(EngineError, match=r"training.yaml cannot be read as YAML"):
        read_configuration(path)


def test_a_missing_file_is_answered_by_the_nearest(path):
    path.write_text("a: 1")
    with pytest.raises(
        EngineError, match=r"does not exist; did you mean training.yaml\?"
    ):
        read_configuration(path.with_name("trainin.yaml"))


def test_values_that_are_not_plain_are_refused(path):
    path.write_text("a: 1")
    with pytest.raises(
        EngineError, match=r"training.yaml cannot be written: .*; give num"
    ):
        write_configuration(path, {"a": object()})
    assert path.read_text() == "a: 1"


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    path.write_text("a: 1")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        EngineError, match=r"The disk is full: .*training.yaml could not"
    ):
        write_configuration(path, {"a": 2})
    assert path.read_text() == "a: 1"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"there is no folder .*none; create it or"):
        write_configuration(tmp_path / "none/a.yaml", {})
