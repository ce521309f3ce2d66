from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels

STACK = np.random.default_rng(0).integers(0, 255, (7, 8, 9)).astype(np.int16)
AFFINE = np.diag([0.3, 0.5, 2, 1.0])


@pytest.fixture(params=["volume.nii", "volume.nii.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_x_is_the_last_axis(path, kind):
    image = kind(STACK, AFFINE)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)

    volume = open_image(path)

    np.testing.assert_array_equal(volume.data[0], STACK.T)
    assert volume.data.dtype == np.int16
    assert (volume.spacing, volume.unit) == ((2, 0.5, 0.3), "millimeter")
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)


def test_big_endian_numbers_are_read(path):
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.Nifti1Image(STACK.astype(">i2"), AFFINE, header).to_filename(path)
    np.testing.assert_array_equal(open_image(path).data[0], STACK.T)


def test_the_slope_makes_grey_values(path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(STACK.dtype)
    header.set_data_shape(STACK.shape)
    header.set_slope_inter(0.5, -10)
    plain = path.with_name("plain.nii")
    with plain.open("wb") as file:
        header.write_to(file)
        file.write(STACK.tobytes(order="F"))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        plain.rename(path)

    data = open_image(path).data

    assert data.dtype == np.float32
    np.testing.assert_array_equal(data[0], STACK.T * 0.5 - 10)
    with pytest.raises(EngineError, match="labels must be integers, got float32"):
        read_labels(path)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 8, 7, 1), (1, 7, 8, 9)),
        ((9, 8, 7, 3), (3, 7, 8, 9)),
        ((9, 8, 7, 1, 3), (3, 7, 8, 9)),
        ((9, 8, 7, 1, 1), (1, 7, 8, 9)),
    ],
)
def test_a_fourth_axis_is_channels(path, shape, expected):
    nibabel.Nifti1Image(np.zeros(shape, np.uint8), AFFINE).to_filename(path)
    assert open_image(path).data.shape == expected


def test_many_time_points_are_refused(path):
    nibabel.Nifti1Image(np.zeros((9, 8, 7, 20), np.uint8), AFFINE).to_filename(path)
    with pytest.raises(
        EngineError, match=r"shape \(9, 8, 7, 20\), axes XYZ\? and does"
    ):
        open_image(path)
    assert open_image(path, axes="XYZC").data.shape == (20, 7, 8, 9)


@pytest.mark.parametrize(
    ("zooms", "unit", "expected"),
    [
        ((1, 1, 1), None, (None, None)),
        ((1, 1, 1), "mm", ((1, 1, 1), "millimeter")),
        ((2, 1, 1), None, ((1, 1, 2), None)),
        ((0.1, 0.1, 0.7), "micron", ((0.7, 0.1, 0.1), "micrometer")),
        ((0.1, 0.1, 0.7), "meter", ((0.7, 0.1, 0.1), "meter")),
    ],
)
def test_the_header_says_size_and_unit(path, zooms, unit, expected):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(STACK.dtype)
    image = nibabel.Nifti1Image(STACK, None, header)
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    volume = open_image(path)
    assert (volume.spacing, volume.unit) == expected
    assert volume.affine is None


def test_colours_in_one_number_are_refused(path):
    rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(rgb, AFFINE).to_filename(path)
    with pytest.raises(EngineError, match="holds numbers of type"):
        open_image(path)


def test_nibabel_reads_what_is_written(path):
    options = {"spacing": (2, 0.5, 0.25), "unit": "mm", "affine": AFFINE.tolist()}
    with create_volume(path, STACK.shape, STACK.dtype, **options) as array:
        array[:] = STACK

    image = nibabel.load(path)

    np.testing.assert_array_equal(np.asarray(image.dataobj), STACK.T)
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_units_that_nifti_does_not_know_are_converted(path):
    options = {"spacing": (50, 4.1, 4.1), "unit": "nanometer"}
    with create_volume(path, STACK.shape, STACK.dtype, **options):
        pass
    header = nibabel.load(path).header
    np.testing.assert_allclose(header.get_zooms(), (0.0041, 0.0041, 0.05), rtol=1e-6)
    assert header.get_xyzt_units()[0] == "micron"
    assert (open_image(path).spacing, open_image(path).unit) == (
        (50, 4.1, 4.1),
        "nanometer",
    )


def test_the_exact_size_does_not_outlive_a_changed_header(path):
    with create_volume(path, STACK.shape, STACK.dtype, spacing=(2, 1, 1), unit="mm"):
        pass
    image = nibabel.load(path)
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    changed.header.set_zooms((3, 3, 3))
    other = path.with_name(f"other-{path.name}")
    changed.to_filename(other)
    assert open_image(other).spacing == (3, 3, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "sentence"),
    [
        ((1, 2, 40000), "uint8", "at most 32767 voxels along an axis, got shape"),
        ((3, 4, 5), "float16", "NIfTI cannot hold float16; convert to float32"),
    ],
)
def test_what_nifti_cannot_hold_is_refused(path, shape, dtype, sentence):
    with (
        pytest.raises(EngineError, match=sentence),
        create_volume(path, shape, dtype),
    ):
        pass
    assert list(path.parent.iterdir()) == []
