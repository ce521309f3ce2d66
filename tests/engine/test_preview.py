from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.engine import Segmenter
from napari_unet3d.engine.preview import plane_tiles, predict_plane


def make_segmenter(make_checkpoint, shape, channels=1, **model):
    checkpoint = make_checkpoint(in_channels=channels, **model)
    image = np.random.default_rng(1).normal(100, 20, (channels, *shape))
    return Segmenter(checkpoint, image.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ((13, 30, 22), {}),
        ((13, 30, 22), {"stem": "none", "pooling": ((1, 2, 2), (2, 2, 2))}),
        ((20, 22, 21), {"padding": "valid", "stem": "none", "pooling": ((2, 2, 2),)}),
        ((16, 16, 16), {"normalization": "none"}),
        ((9, 17, 12), {"in_channels": 2, "filter_scales": (1.0,)}),
    ],
    ids=["filters", "anisotropic", "valid", "no norm", "channels"],
)
def test_a_plane_equals_that_of_the_segmentation(make_checkpoint, shape, model):
    channels = model.pop("in_channels", 1)
    segmenter = make_segmenter(make_checkpoint, shape, channels, **model)
    whole = segmenter.logits()

    for axis in range(3):
        for position in (0, shape[axis] // 2, shape[axis] - 1):
            plane = predict_plane(segmenter.network, segmenter.features, axis, position)
            expected = whole.take(position, axis + 1)
            assert plane.shape == expected.shape
            np.testing.assert_allclose(plane.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiles_leave_no_seams(make_checkpoint, axis):
    segmenter = make_segmenter(make_checkpoint, (40, 44, 36), stem="none")

    whole = predict_plane(segmenter.network, segmenter.features, axis, 17)
    tiled = predict_plane(segmenter.network, segmenter.features, axis, 17, edge=12)

    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


def test_the_middle_comes_first(make_checkpoint):
    segmenter = make_segmenter(make_checkpoint, (8, 48, 48), stem="none")

    tiles = plane_tiles(segmenter.network, segmenter.features, 0, 3, edge=16)
    places = [(rows, columns) for rows, columns, _ in tiles]

    assert places[0] == ((16, 32), (16, 32))
    assert len(places) == 9


def test_a_small_halo_looks_at_less_and_is_nearly_the_same(make_checkpoint):
    segmenter = make_segmenter(make_checkpoint, (64, 32, 32), stem="none")
    seen = []
    compute = segmenter.features.compute

    def spy(low, size):
        seen.append(size)
        return compute(low, size)

    segmenter.features.compute = spy
    exact = predict_plane(segmenter.network, segmenter.features, 0, 32)
    quick = predict_plane(segmenter.network, segmenter.features, 0, 32, halo=16)

    assert seen[1][0] < seen[0][0]
    assert (quick.argmax(0) == exact.argmax(0)).float().mean() > 0.8


def test_kept_features_change_next_to_nothing(make_checkpoint):
    segmenter = make_segmenter(make_checkpoint, (20, 20, 20))
    exact = predict_plane(segmenter.network, segmenter.features, 1, 4)

    for rows, columns, logits in plane_tiles(
        segmenter.network, segmenter.features, 1, 4, cached=True
    ):
        expected = exact[:, slice(*rows), slice(*columns)]
        torch.testing.assert_close(logits, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("position", [-1, 8])
def test_a_slice_outside_is_refused(make_checkpoint, position):
    segmenter = make_segmenter(make_checkpoint, (8, 12, 12), stem="none")

    with pytest.raises(IndexError, match="outside"):
        predict_plane(segmenter.network, segmenter.features, 0, position)
