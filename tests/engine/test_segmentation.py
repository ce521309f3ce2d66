from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch

from napari_unet3d.engine import EngineError, SegmentationConfig, Segmenter, segment
from napari_unet3d.engine import segmentation as module
from napari_unet3d.engine.batch_statistics import _spread_boxes
from napari_unet3d.engine.errors import OutOfMemoryError
from napari_unet3d.engine.planning import derive_pooling
from napari_unet3d.engine.valid_padding import valid_size

SPACINGS = ((1.0, 1.0, 1.0), (2.2, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 3.0, 1.0))
RECOMPUTED = SegmentationConfig(recompute_statistics=True)


@pytest.fixture(scope="module")
def image():
    """Return a volume of a shape that nothing divides."""
    noise = np.random.default_rng(0).normal(100, 10, (19, 22, 18))
    noise[5:12, 8:16, 10:] += 40
    return noise.astype(np.float32)


def narrow_columns(monkeypatch):
    """Have columns be as narrow as they can."""
    monkeypatch.setattr(module, "present_memory", lambda config, device: 1)


def in_one_pass(segmenter):
    """Apply the network once to the whole volume, continued at its borders."""
    network, shape = segmenter.network, segmenter.shape
    strides = network.total_stride
    if network.padding == "same":
        size = [-(-n // s) * s for n, s in zip(shape, strides, strict=True)]
        low, first = [0, 0, 0], [0, 0, 0]
    else:
        low, size, first = zip(
            *(unpadded(n, axis, network) for axis, n in enumerate(shape)), strict=True
        )
    with torch.no_grad():
        logits = network(segmenter.features.compute(low, size)[None])[0]
    box = tuple(slice(a, a + n) for a, n in zip(first, shape, strict=True))
    return logits[(slice(None), *box)].numpy()


def unpadded(n, axis, network):
    """Place an axis of a volume in the input of unpadded convolutions.

    Returns where the input begins, how long it is, and which voxel of the output is
    the first of the volume. Pooled voxels lie at multiples of the strides, as when
    the volume begins with a whole one.
    """
    strides = [level[axis] for level in network.pooling]
    total = network.total_stride[axis]
    # Two convolutions before each pooling move the grid of pooled voxels.
    shift = sum(2 * int(np.prod(strides[:k])) for k in range(len(strides)))
    margin = (
        valid_size(1, strides) - valid_output(valid_size(1, strides), strides)
    ) // 2
    low = -margin - (-margin + shift) % total
    return low, valid_size(n + 2 * -low, strides), -margin - low


def valid_output(size, strides):
    for stride in strides:
        size = (size - 4) // stride
    size -= 4
    for stride in reversed(strides):
        size = size * stride - 4
    return size


@pytest.mark.parametrize("stem", ["filters", "none"])
@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_columns_give_what_one_pass_gives(
    spacing, depth, stem, image, make_checkpoint, monkeypatch
):
    narrow_columns(monkeypatch)
    pooling = derive_pooling(spacing, depth)
    checkpoint = make_checkpoint(stem=stem, spacing=spacing, pooling=pooling)
    segmenter = Segmenter(checkpoint, image)
    columns = {region[1:] for region, _ in segmenter.blocks()}
    assert min(len({column[k] for column in columns}) for k in (0, 1)) > 1
    logits, expected = segmenter.logits(), in_one_pass(segmenter)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(0), expected.argmax(0))


@pytest.mark.parametrize(
    ("pooling", "stem"),
    [
        ((), "none"),
        (((2, 2, 2),), "filters"),
        (((1, 2, 2), (2, 2, 2)), "none"),
    ],
)
def test_unpadded_convolutions_see_the_continued_image(
    pooling, stem, image, make_checkpoint, monkeypatch
):
    narrow_columns(monkeypatch)
    image = image[:7, :17, 1:]
    checkpoint = make_checkpoint(stem=stem, pooling=pooling, padding="valid")
    segmenter = Segmenter(checkpoint, image)
    logits, expected = segmenter.logits(), in_one_pass(segmenter)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(0), expected.argmax(0))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 30, 40), (16, 16, 16), (3, 70, 2), (8, 8, 8), (33, 9, 64)]
)
def test_any_shape_can_be_segmented(shape, make_checkpoint):
    image = np.random.default_rng(0).normal(size=(40, 70, 64))[
        tuple(slice(n) for n in shape)
    ]
    if image.size == 1:
        image = image[[0, 0]] + [[[0]], [[1]]]
    segmenter = Segmenter(make_checkpoint(pooling=((2, 2, 2),) * 3), image)
    np.testing.assert_allclose(
        segmenter.logits(), in_one_pass(segmenter), rtol=0, atol=1e-4
    )


def test_little_memory_makes_several_columns(make_checkpoint):
    image = np.random.default_rng(0).normal(size=(4, 90, 20))
    checkpoint = make_checkpoint(stem="none", pooling=((2, 2, 2),))
    plenty, little = (
        Segmenter(checkpoint, image, SegmentationConfig(memory=memory))
        for memory in (None, 1e-6)
    )
    assert len(list(plenty.blocks())) < len(list(little.blocks()))
    np.testing.assert_allclose(plenty.logits(), little.logits(), rtol=0, atol=1e-4)


REGIONS = (
    None,
    ((0, 19), (0, 22), (0, 18)),
    ((7, 8), (0, 22), (0, 18)),
    ((0, 19), (13, 14), (0, 18)),
    ((3, 11), (5, 21), (7, 17)),
    ((18, 19), (21, 22), (17, 18)),
)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("narrow", [True, False])
def test_blocks_are_disjoint_and_cover_their_region(
    region, narrow, image, make_checkpoint, monkeypatch
):
    if narrow:
        narrow_columns(monkeypatch)
    segmenter = Segmenter(make_checkpoint(stem="none"), image)
    whole = in_one_pass(segmenter)
    visits = np.zeros(image.shape, int)
    for block, logits in segmenter.blocks(region):
        box = tuple(slice(low, high) for low, high in block)
        visits[box] += 1
        assert logits.shape[1:] == visits[box].shape
        np.testing.assert_allclose(
            logits, whole[(slice(None), *box)], rtol=0, atol=1e-4
        )
    wanted = tuple(slice(low, high) for low, high in region or REGIONS[1])
    assert np.all(visits[wanted] == 1)
    assert visits.sum() == visits[wanted].size


def test_labels_and_probabilities_are_those_of_the_logits(image, make_checkpoint):
    checkpoint = make_checkpoint()
    found = segment(checkpoint, image, probabilities=True)
    logits = Segmenter(checkpoint, image).logits()
    assert found.labels.dtype == found.probabilities.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, logits.argmax(0) + 1)
    share = np.exp(logits) / np.exp(logits).sum(0)
    np.testing.assert_allclose(found.probabilities, 255 * share, rtol=0, atol=0.51)
    total = found.probabilities.sum(0, dtype=int)
    assert np.all(abs(total - 255) <= 2)


def test_probabilities_are_only_made_when_asked_for(image, make_checkpoint):
    assert segment(make_checkpoint(), image).probabilities is None


def test_progress_rises_to_one(image, make_checkpoint, monkeypatch):
    narrow_columns(monkeypatch)
    segmenter = Segmenter(make_checkpoint(), image)
    labels = np.zeros(image.shape, np.uint8)
    progress = [event.progress for event in segmenter.run(labels)]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert labels.min() >= 1


@pytest.mark.parametrize(
    ("depth", "begin_at", "first"),
    [(160, 90, 80), (160, 0, 0), (160, 159, 152), (40, 39, 0)],
    ids=["middle", "first", "last", "not deep enough"],
)
def test_it_begins_around_the_slice_in_view(depth, begin_at, first, make_checkpoint):
    image = np.random.default_rng(0).normal(size=(depth, 12, 14)).astype(np.float32)
    segmenter = Segmenter(make_checkpoint(stem="none", pooling=((2, 2, 2),)), image)
    labels = np.zeros(image.shape, np.uint8)
    events = list(segmenter.run(labels, begin_at=begin_at))
    assert events[0].region[0][0] == first
    assert [event.progress for event in events][-1] == 1
    expected = np.zeros_like(labels)
    for _ in segmenter.run(expected):
        pass
    np.testing.assert_array_equal(labels, expected)


def test_stop_ends_after_the_current_block(image, make_checkpoint, monkeypatch):
    narrow_columns(monkeypatch)
    segmenter = Segmenter(make_checkpoint(), image)
    labels, stop = np.zeros(image.shape, np.uint8), threading.Event()
    events = []
    for event in segmenter.run(labels, stop=stop):
        events.append(event)
        stop.set()
    (event,) = events
    box = tuple(slice(low, high) for low, high in event.region)
    assert np.all(labels[box] > 0)
    assert np.count_nonzero(labels) == labels[box].size < labels.size


def test_recomputed_statistics_are_always_the_same(image, make_checkpoint):
    checkpoint = make_checkpoint()
    first, again = (Segmenter(checkpoint, image, RECOMPUTED).logits() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    stored = Segmenter(checkpoint, image).logits()
    assert abs(stored - first).max() > 0.01


def test_recomputed_statistics_are_those_of_the_volume(image, make_checkpoint):
    checkpoint = make_checkpoint()
    segmenter = Segmenter(checkpoint, image, RECOMPUTED)
    network = checkpoint.network().train()
    # In training mode a network normalises with what it sees, here everything.
    with torch.no_grad():
        expected = network(segmenter.features.compute((0, 0, 0), (20, 24, 20))[None])
    np.testing.assert_allclose(
        segmenter.logits(), expected[0, :, :19, :22, :18], rtol=0, atol=0.1
    )


def test_statistics_of_a_large_volume_come_from_all_over_it(monkeypatch):
    boxes = _spread_boxes((10, 100, 300), (10, 64, 64), most=8)
    assert len(boxes) == 8
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    np.testing.assert_array_equal(low, [0, 0, 0])
    np.testing.assert_array_equal(high, [0, 36, 236])
    assert _spread_boxes((8, 8, 8), (8, 8, 8), most=8) == [[0, 0, 0]]


def test_a_model_without_normalization_has_nothing_to_recompute(image, make_checkpoint):
    checkpoint = make_checkpoint(normalization="none")
    segmenter = Segmenter(checkpoint, image)
    np.testing.assert_allclose(
        segmenter.logits(), in_one_pass(segmenter), rtol=0, atol=1e-4
    )


def test_the_chosen_weights_are_used(image, make_checkpoint):
    checkpoint = make_checkpoint()
    logits = {
        name: Segmenter(checkpoint, image, SegmentationConfig(weights=name)).logits()
        for name in ("best", "average", "latest")
    }
    for a, b in itertools.combinations(logits.values(), 2):
        assert abs(a - b).max() > 0.01
    checkpoint.weights["best"] = {}
    fallback = Segmenter(checkpoint, image).logits()
    np.testing.assert_array_equal(fallback, logits["average"])


def test_several_channels(make_checkpoint):
    image = np.random.default_rng(0).normal(size=(3, 9, 10, 11))
    segmenter = Segmenter(make_checkpoint(in_channels=3), image)
    np.testing.assert_allclose(
        segmenter.logits(), in_one_pass(segmenter), rtol=0, atol=1e-4
    )


def test_another_number_of_channels_is_refused(image, make_checkpoint):
    with pytest.raises(EngineError, match="takes 2 channels but the image has 1"):
        Segmenter(make_checkpoint(in_channels=2), image)


def test_a_volume_that_is_not_in_memory(image, make_checkpoint):
    class Lazy:
        shape, dtype = image.shape, image.dtype
        largest = 0

        def __getitem__(self, key):
            box = image[key]
            self.largest = max(self.largest, box.size)
            return box

    lazy = Lazy()
    checkpoint = make_checkpoint()
    np.testing.assert_array_equal(
        segment(checkpoint, lazy).labels, segment(checkpoint, image).labels
    )


def test_lack_of_memory_is_a_sentence(image, make_checkpoint, monkeypatch):
    def no_room(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    segmenter = Segmenter(make_checkpoint(), image)
    monkeypatch.setattr(module, "sweep", no_room)
    with pytest.raises(OutOfMemoryError, match="--memory"):
        segmenter.logits()
    monkeypatch.setattr(module, "recompute_statistics", no_room)
    with pytest.raises(OutOfMemoryError, match="--memory"):
        Segmenter(make_checkpoint(), image, RECOMPUTED)


@pytest.mark.parametrize("filters", [False, True])
def test_a_short_number_format_changes_little(filters, image, make_checkpoint):
    stem = {"stem": "filters", "filter_scales": (1.0,)} if filters else {}
    checkpoint = make_checkpoint(**stem)
    found = []
    for precision in ("float32", "bfloat16"):
        segmenter = Segmenter(
            checkpoint, image, SegmentationConfig(precision=precision)
        )
        assert str(segmenter.dtype) == f"torch.{precision}"
        assert segmenter.network.head.weight.dtype == segmenter.dtype
        found.append(segmenter.logits())
    assert found[1].dtype == np.float32
    difference = abs(found[1] - found[0])
    assert 0 < difference.max() < 0.1 * found[0].std()
