"""Coarser levels: the right voxels, at the right place, resumable."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unet3d.io import create_volume, open_image
from napari_unet3d.io.ome_zarr import ZarrWriter, create
from napari_unet3d.io.output import planned
from napari_unet3d.io.pyramid import levels_of, mean, most_frequent

SHAPE = (70, 133, 66)
COLORS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    coarse = rng.choice([0, 1, 3, 250], (10, 19, 10)).astype(np.uint8)
    whole = np.repeat(np.repeat(np.repeat(coarse, 7, 0), 7, 1), 7, 2)
    return whole[tuple(map(slice, SHAPE))]


def write(path, values, **description):
    with create_volume(path, values.shape, values.dtype, **description) as array:
        array[...] = values


def test_no_class_is_invented_and_colours_stay(tmp_path, labels):
    path = tmp_path / "a.ome.zarr"
    write(path, labels, spacing=(2, 1, 1), unit="um", class_colors=COLORS)
    group = zarr.open_group(path)
    # Along Z voxels are twice as long already.
    assert [group[str(k)].shape for k in range(2)] == [SHAPE, (70, 67, 33)]
    assert set(np.unique(group["1"][...])) <= set(np.unique(labels))
    assert len(group.attrs["ome"]["image-label"]["colors"]) == 3
    assert (group["1"][...] == labels[:, ::2, ::2]).mean() > 0.6
    np.testing.assert_array_equal(open_image(path).data[0], labels)
    assert open_image(path).spacing == (2, 1, 1)


def test_each_level_lies_where_the_finest_one_does(tmp_path):
    """A linear ramp, in physical units, is the same ramp on every level."""
    z, y, x = np.indices((8, 200, 140))
    spacing = np.array([4.0, 1.0, 0.5])
    ramp = (z * 4.0 + y * 10.0 + x * 50.0).astype(np.float32)
    path = tmp_path / "ramp.zarr"
    write(path, ramp, spacing=tuple(spacing), labels=False)
    group = zarr.open_group(path)
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) == len(levels_of(ramp.shape, tuple(spacing))) > 2
    for dataset in datasets[1:]:
        scale, shift = dataset["coordinateTransformations"]
        found = group[dataset["path"]][...]
        inner = tuple(slice(0, n - 1 if n > 8 else n) for n in found.shape)
        place = [
            index * s + t
            for index, s, t in zip(
                np.indices(found.shape),
                scale["scale"],
                shift["translation"],
                strict=True,
            )
        ]
        expected = place[0] * 1.0 + place[1] * 10.0 + place[2] * 100.0
        np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-5)


def test_probabilities_are_means(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (2, 66, 66, 66)).astype("u1")
    path = tmp_path / "p.zarr"
    write(path, values, labels=False)
    coarse = zarr.open_group(path)["1"][...]
    cells = values.reshape(2, 33, 2, 33, 2, 33, 2).mean(axis=(2, 4, 6))
    np.testing.assert_array_equal(coarse, np.rint(cells))


def test_ended_in_between_only_the_rest_is_made(tmp_path, labels):
    _, _, layout = planned(tmp_path / "b.zarr", SHAPE, "uint8")
    path = tmp_path / "b.zarr"
    writer = create(path, layout)
    writer.array[...] = labels
    made = []

    def ended(file):
        made.append(file)
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.finish(ended)
    again = []
    ZarrWriter(path, labels=True).finish(again.append)
    assert again
    assert not set(again) & set(made)
    write(tmp_path / "c.zarr", labels)
    for level in range(len(levels_of(SHAPE))):
        np.testing.assert_array_equal(
            zarr.open_group(path)[str(level)][...],
            zarr.open_group(tmp_path / "c.zarr")[str(level)][...],
        )


def test_a_tie_keeps_the_larger_class_and_borders_repeat():
    row = np.array([[0, 5, 5, 0, 2]], np.uint8)
    np.testing.assert_array_equal(most_frequent(row, (1, 2)), [[5, 5, 2]])
    np.testing.assert_array_equal(mean(row, (1, 2)), [[2, 2, 2]])


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 64), (1, 500, 2), (3, 65, 1)])
def test_the_coarsest_level_is_a_single_chunk(shape):
    assert max(levels_of(shape)[-1].shape) <= 64
    assert levels_of(shape)[0].shape == shape
