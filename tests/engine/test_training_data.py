from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from napari_unet3d.engine import (
    Annotation,
    EngineError,
    ModelConfig,
    TrainingConfig,
    TrainingVolume,
)
from napari_unet3d.engine.checkpoint import build_stem
from napari_unet3d.engine.patch_plan import PatchPlan
from napari_unet3d.engine.training_data import TrainingData

PLAN = PatchPlan(((8, 16, 16),) * 3, 2)
MODEL = ModelConfig(
    in_channels=1,
    n_classes=3,
    base_channels=1,
    pooling=((2, 2, 2),),
    spacing=(1.0, 1.0, 1.0),
    filter_scales=(1.0,),
)


@pytest.fixture
def make(make_toy, sparse):
    """Return the data of toy volumes with labels in the given slices."""

    def make(*slices, validation=(), **training):
        volumes = [
            TrainingVolume(image, sparse(truth, positions), name=f"toy {seed}")
            for seed, positions in enumerate(slices)
            for image, truth in [make_toy(seed=seed, n_classes=3)]
        ]
        model = replace(MODEL, n_classes=training.pop("n_classes", 3))
        stem = build_stem(model)
        config = TrainingConfig(**training)
        return TrainingData(volumes, validation, stem, model, config)

    return make


def test_labels_and_image_must_have_one_grid(make_toy):
    image, truth = make_toy()
    annotation = Annotation.from_labels(truth[1:])
    message = (
        r"a: the labels have shape \(15, 32, 32\) but the image has \(16, 32, 32\)"
    )
    with pytest.raises(EngineError, match=message):
        TrainingVolume(image, annotation, name="a")


def test_a_volume_has_channels(make_toy, sparse):
    image, truth = make_toy()
    assert TrainingVolume(image, sparse(truth)).image.shape == (1, 16, 32, 32)
    two = TrainingVolume(np.stack([image, image]), sparse(truth))
    assert two.image.shape == (2, 16, 32, 32)


def test_a_part_of_the_labels_is_held_out(make):
    data = make((3, 7, 11), validation_fraction=0.2)
    data.refresh(PLAN)
    assert data.labelled_voxels == 3 * 32 * 32
    assert 0.1 < data.held_out.voxels / data.labelled_voxels < 0.35
    taught = sum(len(part) for part in data.batches._sampler.annotations)
    assert taught + data.held_out.voxels == data.labelled_voxels


def test_the_held_out_part_can_be_learned_too(make):
    data = make((3, 7, 11), validation_fraction=0.2)
    data.refresh(PLAN)
    held = data.held_out
    assert data.is_held_out
    data.refresh(PLAN, learn_all=True)
    assert data.held_out is held
    taught = sum(len(part) for part in data.batches._sampler.annotations)
    assert taught == data.labelled_voxels
    assert not data.is_held_out


def test_the_held_out_part_is_learned_although_new_labels_are_wrong(make):
    data = make((3, 7, 11), n_classes=3)
    data.refresh(PLAN)
    annotation = data.volumes[0].annotation
    known = len(annotation)
    labels = annotation.crop((0, 0, 0), annotation.shape)
    labels[0] = 4
    data.volumes[0].annotation = Annotation.from_labels(labels)
    assert "4" in data.refresh(PLAN, learn_all=True)
    taught = sum(len(part) for part in data.batches._sampler.annotations)
    assert taught == known


def test_validation_volumes_are_held_out_instead(make, make_toy, sparse):
    image, truth = make_toy(seed=5, n_classes=3)
    other = TrainingVolume(image, sparse(truth, (2, 4)))
    data = make((3, 7, 11), validation=[other], validation_fraction=0.2)
    data.refresh(PLAN)
    assert data.held_out.voxels == 2 * 32 * 32
    taught = sum(len(part) for part in data.batches._sampler.annotations)
    assert taught == data.labelled_voxels


@pytest.mark.parametrize(
    ("channels", "n_classes", "message"),
    [
        (2, 3, "other: the validation image has 2 channels but the model takes 1"),
        (1, 2, "labels go up to class 3 but the model has 2 classes"),
    ],
)
def test_validation_volumes_that_do_not_fit_are_refused(
    channels, n_classes, message, make, make_toy, sparse
):
    image, truth = make_toy(n_classes=3)
    images = np.stack([image] * channels)
    other = TrainingVolume(images, sparse(truth), name="other")
    with pytest.raises(EngineError, match=message):
        make((3, 7, 11), validation=[other], n_classes=n_classes)


def test_classes_are_weighed_by_the_labels_that_are_taught(make):
    data = make((3, 7), class_balance=1.0, validation_fraction=0.5)
    for learn_all in (False, True):
        data.refresh(PLAN, learn_all)
        taught = data.batches._sampler.annotations[0]
        total = data.class_weights.at(0).numpy() * taught.counts
        np.testing.assert_allclose(total, total[0], rtol=1e-5)


def test_an_image_that_cannot_be_normalized_is_named(make, sparse):
    labels = np.ones((4, 4, 4), np.uint8)
    constant = TrainingVolume(0 * labels, sparse(labels, (1,)), name="grey")
    with pytest.raises(EngineError, match=r"^grey: channel 0 .* same value 0"):
        make((3, 7), validation=[constant])


def test_unchanged_labels_are_not_prepared_again(make):
    data = make((3, 7))
    assert data.refresh(PLAN) == ""
    batches, held_out = data.batches, data.held_out
    assert data.refresh(PLAN) == ""
    assert data.batches is batches
    assert data.held_out is held_out


def test_new_labels_of_any_volume_are_taken(make, make_toy, sparse):
    data = make((3,), (5,))
    data.refresh(PLAN)
    batches = data.batches
    data.volumes[1].annotation = sparse(make_toy(seed=1, n_classes=3)[1], (9, 10))
    assert data.refresh(PLAN) == ""
    assert data.batches is not batches
    assert data.labelled_voxels == 3 * 32 * 32


def painted(kind, make_toy):
    _, truth = make_toy(n_classes=3)
    labels = {
        "nothing": np.zeros_like(truth),
        "one class": np.ones_like(truth),
        "a new class": truth + 1,
        "another shape": truth[:5],
    }
    return Annotation.from_labels(labels[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", "no voxel is labelled"),
        ("one class", "only class 1 is labelled"),
        ("a new class", "class 4 but the model has 3 classes"),
        ("another shape", r"shape \(5, 32, 32\) but"),
    ],
)
def test_labels_that_cannot_be_trained_on(kind, message, make, make_toy):
    data = make((3, 7))
    data.refresh(PLAN)
    batches, before = data.batches, data.volumes[0].annotation
    data.volumes[0].annotation = painted(kind, make_toy)
    problem = data.refresh(PLAN)
    assert re.search(message, problem)
    assert "until then the labels from before" in problem
    assert data.batches is batches
    # It is said once, and painting again is all that it takes.
    assert data.refresh(PLAN) == ""
    data.volumes[0].annotation = before
    assert data.refresh(PLAN) == ""
    assert data.batches is not batches
    bad = make((3, 7))
    bad.volumes[0].annotation = painted(kind, make_toy)
    with pytest.raises(EngineError, match=message):
        bad.refresh(PLAN)


def test_the_stem_is_fitted_where_labels_are(make):
    data, again = make((), (3, 7)), make((), (3, 7))
    data.fit_stem(stem := build_stem(MODEL))
    again.fit_stem(other := build_stem(MODEL))
    assert stem.mean.abs().max() > 0.01
    for name, value in stem.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name])


def test_without_filters_there_is_nothing_to_fit(make):
    stem = build_stem(replace(MODEL, stem="none"))
    make((3, 7)).fit_stem(stem)
    assert stem.mean.tolist() == [0]
    assert stem.deviation.tolist() == [1]


def test_a_rare_class_counts_when_the_stem_is_fitted():
    rng = np.random.default_rng(0)
    shape = (40, 200, 200)
    image = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[20] = 1
    image[10:30, 95:105, 95:105] = 3 + rng.normal(size=(20, 10, 10))
    labels[20, 95:105, 95:105] = 2
    volume = TrainingVolume(image, Annotation.from_labels(labels))
    model = replace(MODEL, n_classes=2)
    for seed in range(5):
        stem = build_stem(model)
        config = TrainingConfig(seed=seed)
        TrainingData([volume], (), stem, model, config).fit_stem(stem)
        # A box on the object in nine: what is outside of it is all zero.
        assert (stem.deviation > 0.02).all()
