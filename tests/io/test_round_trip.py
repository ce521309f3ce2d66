"""What is written comes back: numbers, type, spacing and unit, in every format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_unet3d.io import create_volume, open_image, read_labels

NAMES = ("a.tif", "a.ome.zarr", "a.h5", "a.h5:group/b", "a.nii", "a.nii.gz", "a.npy")
UNITS = (
    *(None, "angstrom", "nanometer", "micrometer", "millimeter"),
    *("centimeter", "meter", "inch"),
)
TYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float32", "float64"),
)
SIZES = st.floats(1e-4, 1e4)
VOLUMES = st.fixed_dictionaries(
    {
        "shape": st.lists(st.integers(1, 9), min_size=3, max_size=4).map(tuple),
        "dtype": st.sampled_from(TYPES),
        "spacing": st.none() | st.tuples(SIZES, SIZES, SIZES),
        "unit": st.sampled_from(UNITS),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def random_numbers(shape, dtype, seed):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(volume=VOLUMES, data=st.data())
def test_what_was_written_comes_back(name, volume, data, tmp_path_factory):
    dtype, shape, spacing = volume["dtype"], volume["shape"], volume["spacing"]
    if ".tif" in name and dtype in ("int64", "uint64"):
        dtype = dtype.replace("64", "32")
    numbers = random_numbers(shape, dtype, volume["seed"])
    path = f"{tmp_path_factory.mktemp('volume')}/{name}"
    meta = {"spacing": spacing, "unit": volume["unit"]}
    cut = data.draw(st.integers(0, shape[-1]), label="cut")

    with create_volume(path, shape, dtype, labels=False, **meta) as array:
        assert (array.shape, array.dtype, array.ndim) == (shape, dtype, len(shape))
        array[..., :cut] = numbers[..., :cut]
        array[..., cut:] = numbers[..., cut:]

    # NumPy's files name no axes.
    letters = "CZYX"[-len(shape) :] if name.endswith(".npy") else None
    image = open_image(path, axes=letters)
    expected = numbers if numbers.ndim == 4 else numbers[np.newaxis]
    np.testing.assert_array_equal(image.data[...], expected)
    assert image.data.dtype == dtype
    assert image.data.dtype.isnative
    assert image.source == path
    nothing = spacing is None or (spacing == (1, 1, 1) and volume["unit"] is None)
    if name.endswith(".npy") or nothing:
        assert (image.spacing, image.unit) == (None, None)
    else:
        assert (image.spacing, image.unit) == (spacing, volume["unit"])


@pytest.mark.parametrize("name", NAMES)
def test_labels_come_back(name, tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (7, 70, 65), np.uint8)
    path = tmp_path / name

    with create_volume(path, labels.shape, labels.dtype) as array:
        for z in range(0, 7, 3):
            array[z : z + 3] = labels[z : z + 3]
        np.testing.assert_array_equal(array[2:5, 1], labels[2:5, 1])

    read = read_labels(path)
    assert isinstance(read.data, np.ndarray)
    assert read.data.flags.writeable
    np.testing.assert_array_equal(read.data, labels)
    assert [p.name for p in tmp_path.iterdir()] == [name.partition(":")[0]]


@pytest.mark.parametrize("name", NAMES)
def test_voxels_never_written_are_zero(name, tmp_path):
    with create_volume(tmp_path / name, (5, 6, 7), "uint16") as array:
        array[2, :, 3] = 9
        array[-1, 0, 0] = 4

    expected = np.zeros((5, 6, 7), np.uint16)
    expected[2, :, 3] = 9
    expected[-1, 0, 0] = 4
    np.testing.assert_array_equal(read_labels(tmp_path / name).data, expected)


@pytest.mark.parametrize("name", NAMES)
def test_many_channels_are_told_from_depth(name, tmp_path):
    shape = (6, 5, 7, 8)
    with create_volume(tmp_path / name, shape, "float32", labels=False) as array:
        array[:] = 1

    letters = "CZYX" if name.endswith(".npy") else None
    assert open_image(tmp_path / name, axes=letters).data.shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_bool_is_written_as_bytes(name, tmp_path):
    with create_volume(tmp_path / name, (2, 3, 4), bool) as array:
        array[:] = np.ones((2, 3, 4), bool)

    data = read_labels(tmp_path / name).data
    assert data.dtype == np.uint8
    assert data.min() == 1


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.h5", "a.npy"])
def test_half_precision_comes_back(name, tmp_path):
    with create_volume(tmp_path / name, (5, 6, 7), "float16", labels=False) as array:
        array[:] = 0.5

    assert open_image(tmp_path / name).data.dtype == np.float16


def test_a_large_slab_crosses_chunks(tmp_path):
    labels = np.random.default_rng(0).integers(0, 9, (70, 66, 65), np.uint8)
    for name in ("a.zarr", "a.h5"):
        with create_volume(tmp_path / name, labels.shape, labels.dtype) as array:
            for z in range(0, 70, 10):
                array[z : z + 10] = labels[z : z + 10]
        np.testing.assert_array_equal(read_labels(tmp_path / name).data, labels)


def test_the_affine_comes_back_from_nifti(tmp_path):
    affine = ((-0.5, 0, 0, 12), (0, 0, 2, -3), (0, 0.5, 0, 7), (0, 0, 0, 1))
    path = tmp_path / "a.nii.gz"
    with create_volume(
        path, (4, 5, 6), "uint8", spacing=(2, 0.5, 0.5), unit="mm", affine=affine
    ):
        pass

    volume = read_labels(path)
    assert volume.affine == affine
    assert (volume.spacing, volume.unit) == ((2, 0.5, 0.5), "millimeter")
