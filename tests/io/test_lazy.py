"""Parts of stored arrays: sliced, turned, kept in chunks, put together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.affine_view import AffineView
from napari_unet3d.io.chunk_cache import ChunkCache, has_chunks
from napari_unet3d.io.lazy_array import LazyArray
from napari_unet3d.io.lazy_image import LazyImage, StoredImage
from napari_unet3d.io.open_pyramid import open_pyramid
from napari_unet3d.io.stored_array import locate

SHAPE = (2, 9, 11, 13)


def numbers(shape=SHAPE, dtype=np.int32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def in_zarr(path, array, chunks):
    made = zarr.create_array(path, shape=array.shape, chunks=chunks, dtype=array.dtype)
    made[...] = array
    return zarr.open_array(path, mode="r")


class Counted:
    """A chunked array that counts the voxels that are read."""

    def __init__(self, array, chunks):
        self._array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.read = 0

    def __getitem__(self, key):
        found = self._array[key]
        self.read += found.size
        return found


@st.composite
def keys(draw, shape):
    key = []
    for n in shape:
        slices = st.builds(
            slice,
            *2 * [st.none() | st.integers(-n, n)],
            st.sampled_from([None, 1, 2, -1, -3]),
        )
        key.append(draw(st.integers(-n, n - 1) | slices))
    return tuple(key[: draw(st.integers(0, len(key)))])


@given(first=keys(SHAPE), data=st.data())
def test_a_view_is_sliced_and_turned_like_the_array(first, data):
    array, view = numbers(), AffineView.whole(SHAPE)
    array, view = array[first], view[first]
    order = data.draw(st.permutations(range(array.ndim)))
    array, view = array.transpose(order), view.transposed(order)
    second = (*data.draw(keys(array.shape) if array.size else st.just(())), ..., None)
    array, view = array[second], view[second]
    assert view.shape == array.shape
    np.testing.assert_array_equal(view.take(numbers()), array)


def test_parts_are_joined_only_where_they_follow_each_other():
    view = AffineView.whole(SHAPE)[0].transposed((2, 0, 1))
    assert view[:5].joined(view[5:], 0) == view
    assert view[:, :5].joined(view[:, 5:7], 1) == view[:, :7]
    for other in (view[6:], view[4:], view[5:, 1:], view[5:, ::-1], view[:5]):
        with pytest.raises(ValueError, match="follow"):
            view[:5].joined(other, 0)


def test_what_is_no_slice_is_refused():
    view = AffineView.whole(SHAPE)
    with pytest.raises(TypeError):
        view[[0, 1]]
    with pytest.raises(IndexError):
        view[2]


@given(key=keys(SHAPE), capacity=st.sampled_from([0, 500, 10**9]))
def test_a_cache_reads_like_the_array(key, capacity):
    cache = ChunkCache(Counted(numbers(), (1, 4, 4, 5)), capacity)
    for _ in range(2):
        np.testing.assert_array_equal(cache[key], numbers()[key])
    assert cache.kept_bytes <= max(capacity, 4 * 4 * 5 * 4)


def test_what_is_kept_is_not_read_again_until_it_is_forgotten():
    values = numbers()
    array = Counted(values, (1, 4, 4, 5))
    cache = ChunkCache(array, 10**9)
    cache[:, 2:7]
    first = array.read
    assert first == 2 * 8 * 11 * 13
    cache[1, 3:6, 5]
    assert array.read == first
    values[0, 5, 5, 5] = -7
    assert cache[0, 5, 5, 5] != -7
    cache.forget([(0, 1), (5, 6), (5, 6), (5, 6)])
    assert cache[0, 5, 5, 5] == -7
    assert array.read == first + 4 * 4 * 5
    cache.replace(numbers() + 1)
    np.testing.assert_array_equal(cache[...], numbers() + 1)


def test_an_image_is_put_together_from_several_files(tmp_path):
    one = in_zarr(tmp_path / "a.zarr", numbers(dtype=np.uint16), (1, 4, 4, 4))
    two = in_zarr(tmp_path / "b.zarr", numbers((13, 11, 9), np.uint8), (5, 5, 5))
    whole, other = AffineView.whole(SHAPE), AffineView.whole((13, 11, 9))
    image = StoredImage(
        (
            (locate(one), whole[1:]),
            (locate(two), other.transposed((2, 1, 0))[None]),
            (locate(one), whole[:1]),
        ),
        "<f4",
    )
    image = pickle.loads(pickle.dumps(image))
    truth = np.stack([one[1], np.asarray(two[...]).T, one[0]]).astype("f4")
    lazy = LazyImage(image)
    assert (lazy.shape, lazy.dtype, image.nbytes) == (truth.shape, "f4", truth.nbytes)
    for key in (
        np.s_[:],
        np.s_[1:3, 2:5, 3, :],
        np.s_[2, ..., 4:6],
        np.s_[0:0, 1],
        np.s_[1:2, 4:5],
    ):
        np.testing.assert_array_equal(lazy[key], truth[key])


def test_a_file_that_has_changed_its_shape_is_refused(tmp_path):
    stored = locate(in_zarr(tmp_path / "a.zarr", numbers(), (1, 4, 4, 4)))
    zarr.create_array(
        tmp_path / "a.zarr", shape=(3, 3), chunks=(3, 3), dtype="u1", overwrite=True
    )
    with pytest.raises(EngineError, match=r"shape \(3, 3\) .*now, but had"):
        stored.open()


def test_arrays_that_only_this_process_has_are_not_located(tmp_path):
    memory = zarr.create_array({}, shape=(3, 3), chunks=(3, 3), dtype="u1")
    assert locate(memory) is None
    assert locate(np.zeros(3)) is None
    assert not has_chunks(np.zeros(3))


@pytest.fixture
def ome(tmp_path):
    """Write an OME-Zarr with two levels, time and two channels."""
    group = zarr.create_group(tmp_path / "movie.ome.zarr")
    levels = numbers((2, 2, 6, 8, 10), np.uint16), numbers((2, 2, 6, 4, 5), np.uint16)
    for number, level in enumerate(levels):
        array = group.create_array(str(number), shape=level.shape, dtype="u2")
        array[...] = level
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    first = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": first + axes,
                "datasets": [
                    {
                        "path": str(number),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1, 1, 4, 2 * f, 2 * f]}
                        ],
                    }
                    for number, f in enumerate((1, 2))
                ],
            }
        ],
        "omero": {
            "channels": [
                {"label": "DNA", "color": "00ff00", "window": {"start": 3, "end": 9}},
                {"label": "", "color": "nonsense"},
            ]
        },
    }
    return tmp_path / "movie.ome.zarr", levels


def test_all_levels_of_an_ome_zarr_are_opened(ome):
    path, levels = ome
    pyramid = open_pyramid(path, 10**6)
    assert pyramid.axes == "TCZYX"
    assert (pyramid.spacing, pyramid.unit) == ((4, 2, 2), "nanometer")
    assert [level.shape for level in pyramid.levels] == [each.shape for each in levels]
    assert pyramid.channels[0].name == "DNA"
    assert pyramid.channels[0].limits == (3, 9)
    assert [c.color for c in pyramid.channels] == ["#00ff00", ""]


def test_the_reader_makes_a_layer_of_each_channel(ome):
    from napari.layers import Layer

    from napari_unet3d._reader import get_reader

    path, levels = ome
    first, second = (Layer.create(*each) for each in get_reader(str(path))(str(path)))
    assert [first.name, second.name] == ["movie DNA", "movie channel 1"]
    assert first.multiscale
    assert first.axis_labels == ("t", "z", "y", "x")
    np.testing.assert_array_equal(first.scale, (1, 4, 2, 2))
    assert first.contrast_limits == [3, 9]
    assert isinstance(second.data[0], LazyArray)
    for k, level in enumerate(levels):
        np.testing.assert_array_equal(second.data[k][:], level[:, 1])
    inner = get_reader(f"{path}/1")(f"{path}/1")
    np.testing.assert_array_equal(inner[1][0][:], levels[1][:, 1])
    assert get_reader(str(path.parent)) is None


def test_a_segmentation_is_opened_as_labels_with_its_classes(tmp_path):
    from napari_unet3d._reader import get_reader
    from napari_unet3d.io import create_volume

    path = tmp_path / "a.ome.zarr"
    names, colors = ["ground", "cell"], [(0, 0, 0), (1, 0.5, 0)]
    with create_volume(
        path, (4, 5, 6), "u1", class_names=names, class_colors=colors
    ) as array:
        array[2] = 2
    ((data, about, kind),) = get_reader(str(path))(str(path))
    assert kind == "labels"
    assert data[2].all()
    known = about["metadata"]["napari-unet3d"]
    assert known["class_names"] == names
    assert known["class_colors"][1] == "#ff8000"
