from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image
from napari_unet3d.io.view import View
from napari_unet3d.io.volume import Stored

SHAPE = (4, 5, 6, 7)
NUMBERS = np.arange(np.prod(SHAPE)).reshape(SHAPE)
INDEX = st.slices(8) | st.integers(-4, 3)


def view(axes="CZYX", channels=None, **options):
    kept = axes.replace("-", "")
    array = NUMBERS if "C" in kept else NUMBERS[0]
    array = array.transpose([("CZYX" if "C" in kept else "ZYX").index(a) for a in kept])
    for at in (i for i, a in enumerate(axes) if a == "-"):
        array = np.expand_dims(array, at)
    return View(Stored(array, **options), axes, "a.tif", channels)


@given(st.lists(INDEX, max_size=4), st.sampled_from(["CZYX", "ZYXC", "-XZ-CY", "YCXZ"]))
def test_a_block_is_that_of_an_array(key, axes):
    np.testing.assert_array_equal(view(axes)[tuple(key)], NUMBERS[tuple(key)])


@given(st.lists(INDEX, min_size=1, max_size=4), st.data())
def test_an_ellipsis_stands_for_whole_axes(key, data):
    at = data.draw(st.integers(0, len(key)))
    key = (*key[:at], ..., *key[at:])
    np.testing.assert_array_equal(view()[key], NUMBERS[key])


@given(st.lists(INDEX, max_size=3))
def test_an_array_without_channels_has_one(key):
    key = (slice(None), *key)
    np.testing.assert_array_equal(view("X-ZY")[key], NUMBERS[:1][key])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.lists(INDEX, max_size=4))
def test_channels_are_picked_in_order(channels, key):
    key = tuple(key)
    picked = NUMBERS[channels]
    try:
        expected = picked[key]
    except IndexError:
        with pytest.raises(IndexError):
            view(channels=channels)[key]
        return
    np.testing.assert_array_equal(view(channels=channels)[key], expected)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.h5", "a.nii", "a.npy"])
@given(key=st.lists(INDEX, max_size=4))
def test_every_format_takes_every_block(name, key, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"every-block-{name}"
    if not path.exists():
        with create_volume(path, SHAPE, "int32") as a:
            a[:] = NUMBERS
    key = tuple(key)
    data = open_image(path, axes="XYZC" if name == "a.nii" else "CZYX").data
    np.testing.assert_array_equal(data[key], NUMBERS[key])


def test_the_same_single_channel_may_be_picked_twice():
    shown = view("ZYX", channels=[0, 0])
    assert shown.shape == (2, 5, 6, 7)
    np.testing.assert_array_equal(shown[...], NUMBERS[[0, 0]])
    np.testing.assert_array_equal(shown[1], NUMBERS[0])


@pytest.mark.parametrize("channels", [[4], [0, -1], []])
def test_channels_that_do_not_exist_are_refused(channels):
    with pytest.raises(EngineError, match=r"which has channels 0 to 3; pick from"):
        view(channels=channels)
    with pytest.raises(EngineError, match=r"which has one channel: 0; pick from"):
        view("ZYX", channels=[1])


@pytest.mark.parametrize("key", [(5,), (0, -7), (0,) * 5, (..., ...), (0, ..., 0, 9)])
def test_wrong_indices_are_index_errors(key):
    with pytest.raises(IndexError):
        view()[key]


def test_it_behaves_like_an_array():
    shown = view()
    assert (shown.shape, shown.ndim, len(shown)) == (SHAPE, 4, 4)
    assert shown.nbytes == NUMBERS.nbytes
    np.testing.assert_array_equal(np.asarray(shown), NUMBERS)
    assert np.asarray(shown, dtype="f4").dtype == np.float32
    assert repr(shown) == "<a.tif: (4, 5, 6, 7) int64>"
    assert isinstance(shown[0, 0, 0, 0], np.ndarray)


def test_only_what_is_asked_for_is_read():
    class Recorded:
        shape, dtype, ndim = SHAPE, NUMBERS.dtype, 4

        def __getitem__(self, key):
            asked.append(key)
            return NUMBERS[key]

    asked = []
    shown = View(Stored(Recorded()), "CZYX", "a.tif", [2, 3])
    assert asked == []
    shown[:, 1:3, 4]
    assert asked == [
        (slice(2, 4), slice(1, 3, 1), slice(4, 5, 1), slice(0, 7, 1)),
    ]


def test_big_endian_and_bool_become_what_torch_takes():
    swapped = View(Stored(NUMBERS.astype(">i2")), "CZYX", "a.tif")
    assert swapped.dtype == np.dtype(np.int16)
    assert swapped[...].dtype.isnative
    np.testing.assert_array_equal(swapped[...], NUMBERS)
    assert View(Stored(NUMBERS > 3), "CZYX", "a.tif")[...].dtype == np.uint8


def test_a_scale_gives_grey_values():
    shown = View(Stored(NUMBERS.astype("i2"), scale=(0.5, -3)), "CZYX", "a.nii")
    assert shown.dtype == np.float32
    np.testing.assert_array_equal(shown[...], NUMBERS * 0.5 - 3)


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", "i4,f4"])
def test_numbers_that_are_not_real_are_refused(dtype):
    array = np.zeros(SHAPE, dtype)
    with pytest.raises(
        EngineError, match=r"a.tif holds numbers of type .*; save it as"
    ):
        View(Stored(array), "CZYX", "a.tif")


def test_a_block_that_cannot_be_read_is_a_sentence():
    class Damaged:
        shape, dtype, ndim = SHAPE, NUMBERS.dtype, 4

        def __getitem__(self, key):
            raise OSError("checksum is wrong")

    with pytest.raises(EngineError, match=r"cannot be read \(checksum is wrong\)\."):
        View(Stored(Damaged()), "CZYX", "a.h5")[...]
