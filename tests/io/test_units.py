from __future__ import annotations

import math

import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.units import (
    converted,
    in_one_unit,
    known_unit,
    positive_spacing,
    required_unit,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("um", "micrometer"),
        ("\u00b5m", "micrometer"),
        ("\u03bcm", "micrometer"),
        ("\\u00B5m", "micrometer"),
        ("Microns", "micrometer"),
        ("micrometre", "micrometer"),
        ("nm", "nanometer"),
        ("\u00c5", "angstrom"),
        ("\u212b", "angstrom"),
        ("mm", "millimeter"),
        ("inch\0", "inch"),
        (" cm ", "centimeter"),
        ("pixel", None),
        (None, None),
        (3, None),
    ],
)
def test_a_unit_has_one_name(text, name):
    assert known_unit(text) == name


def test_a_unit_to_be_written_must_be_known():
    assert required_unit("um") == "micrometer"
    assert required_unit("pixel") is None
    assert required_unit(None) is None
    with pytest.raises(
        EngineError, match="The unit 'parsec' is not known; use one of an"
    ):
        required_unit("parsec")


def test_sizes_are_expressed_in_another_unit():
    assert converted((1, 2, 3), "millimeter", "micrometer") == (1000, 2000, 3000)
    assert converted((10, 4, 4), "nanometer", "micrometer") == (0.01, 0.004, 0.004)
    assert converted((1, 1, 1), "inch", "millimeter") == (25.4, 25.4, 25.4)


@pytest.mark.parametrize(
    "values",
    [(0, 1, 1), (-1, 1, 1), (math.nan, 1, 1), (math.inf, 1, 1), (1, 1), ("a",) * 3, 3],
)
def test_sizes_that_say_nothing_are_none(values):
    assert positive_spacing(values) is None


@pytest.mark.parametrize(
    ("spacing", "units", "expected"),
    [
        (None, ("micrometer",) * 3, (None, None)),
        ((1, 2, 3), ("meter",) * 3, ((1, 2, 3), "meter")),
        ((1, 2, 3), (None, "meter", "meter"), ((1, 2, 3), None)),
        ((1, 2, 3), ("meter", "meter", "millimeter"), ((1000, 2000, 3), "millimeter")),
    ],
)
def test_sizes_come_in_one_unit(spacing, units, expected):
    assert in_one_unit(spacing, units) == expected
