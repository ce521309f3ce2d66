from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels
from napari_unet3d.io.tiff import voxel_size

STACK = np.random.default_rng(0).integers(0, 255, (7, 5, 6)).astype(np.uint16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stack.tif"


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {},
        {"metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True, "tile": (16, 16)},
        {"rowsperstrip": 2},
    ],
)
def test_every_kind_of_tiff_is_a_volume(path, options):
    tifffile.imwrite(path, STACK, photometric="minisblack", **options)

    image = open_image(path)

    np.testing.assert_array_equal(image.data[0], STACK)
    assert image.data[0].dtype.isnative
    assert (image.spacing, image.unit) == (None, None)


def test_pages_written_one_by_one_are_slices(path):
    with tifffile.TiffWriter(path) as writer:
        for page in STACK:
            writer.write(page, contiguous=False, metadata=None)

    np.testing.assert_array_equal(open_image(path).data[0], STACK)


def test_an_uncompressed_file_is_mapped(path):
    tifffile.imwrite(path, STACK, photometric="minisblack")

    block = open_image(path).data[0, 2:4]

    assert not block.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        block[:] = 0


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("micron", "micrometer"),
        ("um", "micrometer"),
        ("\\u00B5m", "micrometer"),
        ("nm", "nanometer"),
        ("mm", "millimeter"),
        ("pixel", None),
        ("parsec", None),
    ],
)
def test_imagej_says_size_and_unit(path, unit, expected):
    tifffile.imwrite(
        path,
        STACK,
        imagej=True,
        resolution=(10, 5),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": unit},
    )
    image = open_image(path)
    assert image.spacing == pytest.approx((0.5, 0.2, 0.1))
    assert image.unit == expected


def test_imagej_leaves_out_a_depth_of_one(path):
    metadata = {"axes": "ZYX", "unit": "nm"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 2), metadata=metadata)
    assert open_image(path).spacing == (1, 0.5, 0.5)


def test_imagej_resolution_without_a_unit_says_nothing(path):
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(72, 72), metadata=metadata)
    assert open_image(path).spacing is None


def test_exact_sizes_do_not_outlive_a_changed_resolution(path):
    metadata = {"axes": "ZYX", "unit": "um", "pixel_width": 0.3, "pixel_height": 0.5}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4, 2), metadata=metadata)
    assert open_image(path).spacing == (1, 0.5, 0.25)


def test_imagej_sizes_in_different_units_come_in_one(path):
    metadata = {"axes": "ZYX", "spacing": 2, "unit": "nm", "zunit": "um"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(0.2, 0.2), metadata=metadata)
    image = open_image(path)
    assert image.spacing == pytest.approx((2000, 5, 5))
    assert image.unit == "nanometer"


@pytest.mark.parametrize(
    ("sizes", "spacing", "unit"),
    [
        (
            {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.3},
            (0.3, 0.1, 0.1),
            "micrometer",
        ),
        (
            {
                "PhysicalSizeX": 4,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 4,
                "PhysicalSizeYUnit": "nm",
                "PhysicalSizeZ": 0.05,
                "PhysicalSizeZUnit": "µm",
            },
            (50, 4, 4),
            "nanometer",
        ),
        ({"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}, None, None),
        ({}, None, None),
    ],
)
def test_ome_says_size_and_unit(path, sizes, spacing, unit):
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    image = open_image(path)
    assert image.spacing == (spacing and pytest.approx(spacing))
    assert image.unit == unit


@pytest.mark.parametrize("xml", ["<OME><Image", "<OME></OME>"])
def test_damaged_ome_metadata_say_nothing(path, monkeypatch, xml):
    tifffile.imwrite(path, STACK, photometric="minisblack")
    monkeypatch.setattr(tifffile.TiffFile, "ome_metadata", xml)
    assert open_image(path).spacing is None


def test_tifffile_keeps_further_metadata_as_json(path):
    metadata = {"axes": "ZYX", "spacing_zyx": [2, 0.5, 0.5], "unit": "nm"}
    tifffile.imwrite(path, STACK, metadata=metadata, photometric="minisblack")
    image = open_image(path)
    assert (image.spacing, image.unit) == ((2, 0.5, 0.5), "nanometer")


def test_channels_of_imagej_lie_within_slices(path):
    numbers = np.random.default_rng(0).integers(0, 255, (7, 3, 5, 6)).astype(np.uint8)
    tifffile.imwrite(path, numbers, imagej=True, metadata={"axes": "ZCYX"})
    data = open_image(path, channels=[2, 0]).data
    np.testing.assert_array_equal(data[...], numbers.transpose(1, 0, 2, 3)[[2, 0]])


def test_colours_become_channels(path):
    numbers = np.random.default_rng(0).integers(0, 255, (7, 5, 6, 3)).astype(np.uint8)
    tifffile.imwrite(path, numbers, photometric="rgb")
    np.testing.assert_array_equal(
        open_image(path).data[...], numbers.transpose(3, 0, 1, 2)
    )


def test_a_bilevel_mask_has_zeros_and_ones(path):
    tifffile.imwrite(path, STACK > 100, photometric="minisblack")
    labels = read_labels(path).data
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, STACK > 100)


def test_time_points_are_refused_or_taken_for_depth(path):
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(EngineError, match=r"has 7 time points .* pass axes='ZYX'"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, axes="ZYX").data[0], STACK)


def test_a_flat_image_is_refused(path):
    tifffile.imwrite(path, STACK[0])
    with pytest.raises(EngineError, match=r"stack.tif is 2D \(shape \(5, 6\), axes YX"):
        open_image(path)


@pytest.mark.parametrize("compression", [5, 50000, 34925, 12345])
def test_a_compression_that_cannot_be_undone_is_a_sentence(path, compression):
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offsets = [page.tags["Compression"].valueoffset for page in tif.pages]
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset : offset + 2] = compression.to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(EngineError, match="cannot be read as TIFF"):
        open_image(path)


def test_three_slices_are_not_colours(path):
    for dtype in ("uint8", "uint32"):
        with create_volume(path, (5, 6, 3), dtype) as array:
            array[:] = STACK.reshape(-1)[:90].reshape(5, 6, 3)
        np.testing.assert_array_equal(
            read_labels(path).data, STACK.reshape(-1)[:90].reshape(5, 6, 3)
        )


def test_imagej_finds_the_size_of_what_is_written(path):
    options = {"spacing": (2, 0.5, 0.25), "unit": "micrometer"}
    with create_volume(path, (7, 5, 6), "uint8", **options):
        pass
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.imagej_metadata["spacing"] == 2
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.imagej_metadata["slices"] == 7
        assert tif.pages.first.tags["XResolution"].value == (4, 1)
        assert tif.pages.first.tags["YResolution"].value == (2, 1)


def test_ome_finds_the_size_of_what_imagej_cannot_hold(path):
    options = {"spacing": (2, 0.5, 0.25), "unit": "micrometer"}
    with create_volume(path, (7, 5, 6), "int32", **options):
        pass
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert 'PhysicalSizeX="0.25"' in tif.ome_metadata
        assert 'PhysicalSizeXUnit="µm"' in tif.ome_metadata


def test_from_four_gigabytes_on_it_is_a_bigtiff(path, monkeypatch):
    monkeypatch.setattr("napari_unet3d.io.tiff.CLASSIC_SIZE", 100)
    monkeypatch.setattr("napari_unet3d.io.tiff_metadata.CLASSIC_SIZE", 100)
    with create_volume(path, STACK.shape, STACK.dtype, spacing=(2, 1, 1)) as array:
        array[:] = STACK
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.data, STACK)
    assert labels.spacing == (2, 1, 1)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
def test_types_that_others_cannot_read_are_not_written(path, dtype):
    with (
        pytest.raises(EngineError, match=f"TIFF cannot hold numbers of type {dtype}"),
        create_volume(path, (3, 4, 5), dtype),
    ):
        pass
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (
            {
                "imagej": True,
                "resolution": (2.0, 4.0),
                "metadata": {"axes": "ZYX", "spacing": 3.0, "unit": "um"},
            },
            ((3.0, 0.25, 0.5), "micrometer"),
        ),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX",
                    "PhysicalSizeZ": 300.0,
                    "PhysicalSizeY": 40.0,
                    "PhysicalSizeX": 40.0,
                    **{f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"},
                },
            },
            ((300.0, 40.0, 40.0), "nanometer"),
        ),
        ({"metadata": {"spacing": [2, 1, 1]}}, ((2.0, 1.0, 1.0), None)),
        ({}, None),
        ({"metadata": None}, None),
    ],
)
def test_the_size_of_the_voxels_is_told_by_the_header(path, options, size):
    tifffile.imwrite(path, STACK, **options)
    found = voxel_size(str(path), STACK.shape)
    if size is None:
        assert found is None
    else:
        np.testing.assert_allclose(found[0], size[0])
        assert found[1] == size[1]
        assert open_image(path).spacing == found[0]
    assert voxel_size(str(path), (6, 7, 5)) is None


def test_the_size_of_a_file_that_is_no_tiff_is_an_error(path):
    path.write_bytes(b"nothing")
    with pytest.raises(EngineError, match="cannot be read as TIFF"):
        voxel_size(str(path), STACK.shape)
