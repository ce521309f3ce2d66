from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.engine import EngineError, Segmenter, segment
from napari_unet3d.engine.block_plan import plan_blocks
from napari_unet3d.engine.blockwise import Selection, segment_block
from napari_unet3d.engine.errors import OutOfMemoryError

SHAPE, CHUNKS = (37, 42, 20), (16, 16, 16)
WHOLE = ((0, 37), (0, 42), (0, 20))


class Output:
    """An array that takes whole chunks, each once."""

    def __init__(self, *shape):
        self.array = np.full(shape, 77, np.uint8)
        self.writes = np.zeros([-(-n // 16) for n in shape[-3:]], int)

    def __setitem__(self, key, block):
        for part, n in zip(key[-3:], self.array.shape[-3:], strict=True):
            assert part.start % 16 == 0
            assert part.stop % 16 == 0 or part.stop == n
        self.writes[
            tuple(slice(k.start // 16, -(-k.stop // 16)) for k in key[-3:])
        ] += 1
        assert block.shape == self.array[key].shape
        self.array[key] = block


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(0).normal(100, 10, SHAPE)
    noise[5:32, 8:30, 10:] += 40
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint(pooling=((2, 2, 2),), stem="none")


@pytest.fixture(scope="module")
def expected(checkpoint, image):
    return segment(checkpoint, image, probabilities=True)


def in_blocks(checkpoint, image, selection=None, memory=1):
    segmenter = Segmenter(checkpoint, image)
    region = selection and selection.region
    blocks = plan_blocks(segmenter.network, SHAPE, CHUNKS, memory, region)
    labels, shares = Output(*SHAPE), Output(segmenter.n_classes, *SHAPE)
    for block in blocks:
        regions = list(
            segment_block(segmenter, block, CHUNKS, labels, shares, selection)
        )
        voxels = sum(np.prod([high - low for low, high in r]) for r in regions)
        assert voxels == np.prod([high - low for low, high in block])
    assert labels.writes.max() == shares.writes.max() == 1
    return labels, shares


@pytest.mark.parametrize("memory", [1, 1e12])
@pytest.mark.parametrize("stem", ["filters", "none"])
@pytest.mark.parametrize("pooling", [((2, 2, 2),), ((1, 2, 2), (2, 2, 2)), ()])
def test_blocks_give_what_the_whole_gives(
    pooling, stem, memory, image, make_checkpoint
):
    checkpoint = make_checkpoint(pooling=pooling, stem=stem)
    labels, shares = in_blocks(checkpoint, image, memory=memory)
    whole = segment(checkpoint, image, probabilities=True)
    np.testing.assert_array_equal(labels.array, whole.labels)
    np.testing.assert_allclose(
        shares.array.astype(int), whole.probabilities.astype(int), atol=1
    )
    assert labels.writes.min() == shares.writes.min() == 1


REGIONS = [
    ((0, 37), (0, 42), (0, 20)),
    ((5, 6), (40, 42), (0, 20)),
    ((16, 32), (16, 32), (0, 16)),
    ((15, 33), (1, 41), (19, 20)),
]


@pytest.mark.parametrize("memory", [1, 1e12])
@pytest.mark.parametrize("region", REGIONS)
def test_a_region(region, memory, checkpoint, image, expected):
    labels, shares = in_blocks(checkpoint, image, Selection(region), memory)
    box = tuple(slice(low, high) for low, high in region)
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[box] = expected.labels[box]
    written = np.repeat(np.repeat(np.repeat(labels.writes, 16, 0), 16, 1), 16, 2)
    is_written = written[tuple(slice(n) for n in SHAPE)] > 0
    assert is_written[box].all()
    np.testing.assert_array_equal(labels.array[is_written], wanted[is_written])
    assert (
        not labels.array[~is_written].any() or (labels.array[~is_written] == 77).all()
    )
    chosen = shares.array[(slice(None), *box)].astype(int)
    known = expected.probabilities[(slice(None), *box)].astype(int)
    np.testing.assert_allclose(chosen, known, atol=1)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros(SHAPE, np.uint16)
    mask[3:7, 20:25, 2:19] = 300
    mask[36, 41, 19] = 1
    return mask


@pytest.mark.parametrize("memory", [1, 1e12])
def test_a_mask(memory, checkpoint, image, expected, mask):
    labels, shares = in_blocks(checkpoint, image, Selection(mask=mask), memory)
    np.testing.assert_array_equal(labels.array, expected.labels * (mask > 0))
    assert not shares.array[:, mask == 0].any()
    assert (shares.array[:, mask > 0].sum(0) > 250).all()


def test_blocks_outside_the_mask_are_not_computed(checkpoint, image, mask, monkeypatch):
    computed = []
    column = Segmenter.column

    def noted(self, core):
        computed.append(core)
        yield from column(self, core)

    monkeypatch.setattr(Segmenter, "column", noted)
    in_blocks(checkpoint, image, Selection(mask=mask))
    parts = [mask[tuple(slice(*extent) for extent in core)] for core in computed]
    assert all(part.any() for part in parts)
    assert sum(part.size for part in parts) < 0.4 * mask.size


@pytest.mark.parametrize("memory", [1, 1e12])
def test_dark_chunks_become_class_1(memory, checkpoint, image, expected):
    dark = image.copy()
    dark[:16] -= 500
    dark[16:32, 32:] -= 500
    dark[3:6] = np.nan
    dark[20, 35, 5] = 100
    whole = segment(checkpoint, dark, probabilities=True)
    labels, shares = in_blocks(checkpoint, dark, Selection(skip_below=-100), memory)
    wanted = whole.labels.copy()
    wanted[:16] = 1
    wanted[16:32, 32:, 16:] = 1
    np.testing.assert_array_equal(labels.array, wanted)
    assert (shares.array[0, :16] == 255).all()
    assert not shares.array[1:, :16].any()
    assert (labels.array[16:32, 32:, :16] == whole.labels[16:32, 32:, :16]).all()


def test_all_of_them_together(checkpoint, image, expected, mask):
    region = ((4, 37), (0, 42), (3, 20))
    selection = Selection(region, mask, skip_below=1e9)
    labels, _ = in_blocks(checkpoint, image, selection)
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[4:, :, 3:] = (mask > 0)[4:, :, 3:]
    is_written = labels.array != 77
    np.testing.assert_array_equal(labels.array[is_written], wanted[is_written])
    assert is_written[wanted > 0].all()


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(((0, 38), (0, 1), (0, 1))), r"region 0:38 along z .* 0:37"),
        (Selection(((0, 1), (3, 3), (0, 1))), r"region 3:3 along y is empty"),
        (Selection(mask=np.zeros((1, 2, 3))), r"mask has shape \(1, 2, 3\) but"),
    ],
)
def test_what_does_not_fit_is_refused(selection, sentence):
    with pytest.raises(EngineError, match=sentence):
        selection.check(SHAPE)


def test_lack_of_memory_is_a_sentence(checkpoint, image, monkeypatch):
    def no_room(*_):
        raise MemoryError

    monkeypatch.setattr("napari_unet3d.engine.segmentation.sweep", no_room)
    with pytest.raises(OutOfMemoryError, match="--memory"):
        in_blocks(checkpoint, image)
