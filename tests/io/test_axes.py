from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import open_image
from napari_unet3d.io.axes import resolve_axes


@pytest.mark.parametrize(
    ("shape", "named", "override", "expected"),
    [
        ((9, 8, 7), None, None, "ZYX"),
        ((1, 8, 7), None, None, "ZYX"),
        ((2, 9, 8, 7), None, None, "CZYX"),
        ((4, 9, 8, 7), None, None, "CZYX"),
        ((1, 9, 8, 7), None, None, "-ZYX"),
        ((1, 1, 9, 8, 7), None, None, "--ZYX"),
        ((1, 3, 9, 8, 7), None, None, "-CZYX"),
        # names from the file
        ((9, 8, 7), "IYX", None, "ZYX"),
        ((9, 8, 7, 1), "IYXS", None, "ZYX-"),
        ((9, 8, 7, 3), "QYXS", None, "ZYXC"),
        ((2, 9, 8, 7), "QQYX", None, "CZYX"),
        ((30, 9, 8, 7), "czyx", None, "CZYX"),
        ((1, 9, 1, 8, 7, 1), "TZCYXS", None, "-ZCYX-"),
        ((1, 9, 1, 8, 7, 3), "TZCYXS", None, "-Z-YXC"),
        ((9, 8, 7, 2), "XYZQ", None, "XYZC"),
        # the person's word
        ((9, 8, 7), None, "XYZ", "XYZ"),
        ((9, 8, 7, 5), None, "zyxc", "ZYXC"),
        ((5, 9, 8, 7), "QQYX", "CZYX", "CZYX"),
        ((9, 1, 1, 8, 7, 1), "TZCYXS", "ZYX", "Z--YX-"),
        ((1, 1, 9, 8, 7, 1), "TZCYXS", "ZYX", "--ZYX-"),
        ((1, 1, 1, 8, 7, 1), "TZCYXS", "ZYX", "-Z-YX-"),
        ((9, 1, 2, 8, 7, 1), "TZCYXS", "ZCYX", "Z-CYX-"),
        ((1, 9, 8, 7), None, "TZYX", "-ZYX"),
    ],
)
def test_every_axis_gets_its_letter(shape, named, override, expected):
    assert resolve_axes(shape, named, override, "a.tif") == expected


@pytest.mark.parametrize(
    ("shape", "named", "override", "sentence"),
    [
        ((8, 7), "YX", None, r"a.tif is 2D \(shape \(8, 7\), axes YX\); a volume with"),
        ((8, 7), None, None, r"a.tif is 2D \(shape \(8, 7\)\); a volume with three"),
        ((7,), None, None, r"a.tif is 1D \(shape \(7,\)\); a volume with three axes"),
        (
            (8, 7, 3),
            "YXS",
            None,
            r"is 2D \(shape \(8, 7, 3\), axes YXC\); a .*needed\.$",
        ),
        ((5, 8, 7), "CYX", None, "is 2D .* If its axis C is depth, pass axes='ZYX'"),
        ((5, 8, 7), "TYX", None, "has 5 time points .* or pass axes='ZYX' if that"),
        ((5, 2, 8, 7), "TCYX", None, "has 5 time points .* pass axes='ZCYX' if"),
        ((5, 1, 8, 7), "TZYX", None, r"axes TYX\); .* or pass axes='ZYX' if that"),
        ((5, 9, 8, 7), "TZYX", None, r"5 time points \(axis T of shape \(5, 9, 8, 7\)"),
        ((5, 9, 8, 7), None, "TZYX", "5 time points .* save one time point as a file"),
        ((5, 9, 8, 7), None, None, r"shape \(5, 9, 8, 7\) and does not say .* axes="),
        ((3, 9, 4, 7), None, None, "does not say which axis is which; name them"),
        ((3, 1, 8, 7), None, None, "does not say which axis is which"),
        ((9, 8, 7, 3), None, None, "does not say which axis is which"),
        ((2, 2, 9, 8, 7), None, None, "does not say which axis is which"),
        ((2, 9, 8, 7, 3), "CZYXS", None, "both channels and colours"),
        ((9, 8, 7), None, "ZY", "axes='ZY' is not understood; name Z, Y and X once"),
        ((9, 8, 7), None, "ZZYX", "axes='ZZYX' is not understood"),
        ((9, 8, 7), None, "ZYXQ", "axes='ZYXQ' is not understood"),
        ((9, 8, 7), None, "CZYX", r"names 4 axes, but a.tif has shape \(9, 8, 7\)"),
        ((2, 9, 8, 7), None, "ZYX", r"names 3 axes, but a.tif has shape \(2, 9, 8, 7"),
    ],
)
def test_what_is_not_one_volume_is_refused(shape, named, override, sentence):
    with pytest.raises(EngineError, match=sentence):
        resolve_axes(shape, named, override, "a.tif")


def test_axes_given_by_the_person_turn_the_array(tmp_path):
    numbers = np.arange(5 * 6 * 7 * 2).reshape(5, 6, 7, 2)
    np.save(tmp_path / "a.npy", numbers)

    data = open_image(tmp_path / "a.npy", axes="XYZC").data

    np.testing.assert_array_equal(data[...], numbers.transpose(3, 2, 1, 0))
