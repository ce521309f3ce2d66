"""What a person may get wrong: one sentence each, status 2, all files untouched."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile
import torch

from napari_unet3d.engine import load

from .conftest import LABELLED, SMALL, save


def train(*arguments, image="a.tif", labels="a_sparse.tif"):
    """Arguments of a short training; later ones win."""
    return (
        *("train", "--image", image, "--labels", labels, "--model", "new.pt"),
        *("--steps", "1", *SMALL, *arguments),
    )


def segment(*arguments):
    return (
        *("segment", "--model", "model.pt", "--image", "b.tif", "--output", "new.tif"),
        *arguments,
    )


@pytest.fixture
def altered(work):
    """Write a.tif or its labels with something changed."""

    def write(name, change):
        save("altered.tif", change(tifffile.imread(work / name)))

    return write


def put(value, *place):
    def change(array):
        array = array.astype(np.float32)
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda x: 0 * x,
            "no voxel is labelled (all labels are 0); paint a few slices",
        ),
        (lambda x: np.minimum(x, 1), "only class 1 is labelled; paint at least two"),
        (
            lambda x: 3 * (x > 0).astype("u1"),
            "only class 3 is labelled; paint at least",
        ),
        (
            lambda x: x[:, 1:],
            "altered.tif has shape (16, 27, 30) but a.tif has (16, 28",
        ),
        (lambda x: x[8], "altered.tif is 2D (shape (28, 30), axes YX); a volume with"),
        (
            lambda x: x.astype("f4"),
            "labels must be integers, got float32 in altered.tif",
        ),
        (
            lambda x: x.astype("i2") - 1,
            "labels must not be negative, got -1 in altered",
        ),
        (lambda x: x.astype("u2") * 300, "labels must be at most 254, got 900; number"),
    ],
)
def test_labels(change, sentence, altered, refused):
    altered("a_sparse.tif", change)
    assert sentence in refused(*train(labels="altered.tif"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[8], "altered.tif is 2D (shape (28, 30), axes YX); a volume with"),
        (put(np.inf, 3, 4, 5), "slice 3 of the image has 1 values that are infinite"),
        (put(-np.inf, 5), "slice 5 of the image has 840 values that are infinite"),
        (put(np.nan, slice(None)), "the image is NaN everywhere, so there are no data"),
        (lambda x: 0 * x + 7, "the same value 7 everywhere; choose another image"),
    ],
)
@pytest.mark.parametrize("command", ["train", "segment", "inspect"])
def test_image(change, sentence, command, altered, refused):
    altered("a.tif", change)
    arguments = {
        "train": train(image="altered.tif"),
        "segment": segment("--image", "altered.tif"),
        "inspect": (
            *("inspect", "--image", "altered.tif", "--labels", "a_sparse.tif"),
            *("--output", "new.png"),
        ),
    }[command]
    assert sentence in refused(*arguments)


def test_image_and_labels_swapped(altered, refused):
    swapped = "a_sparse.tif holds only the numbers of classes and {} does not; swap"
    line = refused(*train(image="a_sparse.tif", labels="a.tif"))
    assert swapped.format("a.tif") in line
    # Numbers that could be classes, were there not so many of them
    altered("a.tif", lambda x: x // 2)
    line = refused(*train(image="a_sparse.tif", labels="altered.tif"))
    assert swapped.format("altered.tif") in line
    altered("a.tif", lambda x: x.astype("f4"))
    line = refused(*train(image="a_sparse.tif", labels="altered.tif"))
    assert swapped.format("altered.tif") in line


def test_one_file_as_image_and_labels(refused):
    assert "a.tif is given as image and as labels;" in refused(*train(labels="a.tif"))


def test_classes_that_are_not_counted_up_bring_a_warning(altered, program):
    altered("a_sparse.tif", lambda x: np.where(x == 2, 3, x))
    result = program(*train(labels="altered.tif"))
    assert result.status == 0
    assert "warning: no voxel has the label 2, though labels go up to 3;" in result.err


def test_many_absent_classes_are_not_all_listed(altered, program):
    altered("a_sparse.tif", lambda x: np.where(x == 2, 200, x))
    result = program(*train(labels="altered.tif"))
    assert (
        "no voxel has the label 2, 4, 5, 6, 7, 8, 9, 10 and 189 others," in result.err
    )


def test_volumes_of_other_spacing_bring_a_warning(work, program):
    for name, size in (("c.tif", 1000.0), ("d.tif", 3.0)):
        tifffile.imwrite(
            name,
            tifffile.imread("b.tif"),
            imagej=True,
            resolution=(1 / size, 1 / size),
            metadata={
                "axes": "ZYX",
                "unit": "nm" if size > 100 else "um",
                "spacing": size,
            },
        )

    def with_c(name, *more):
        more = ("--image", name, "--labels", "b_sparse.tif", *more)
        return program(*train(*more, image="c.tif", labels="b_sparse.tif"))

    result = with_c("d.tif")
    assert result.status == 0
    # An image without a spacing is taken as it is.
    same = with_c("b.tif")
    assert load("new.pt").unit == "nanometer"
    again = program(*train("--resume", "new.pt", image="d.tif", labels="b_sparse.tif"))
    assert "warning: d.tif has a spacing of 3000 × 3000" in again.err
    assert load("new.pt").unit == "nanometer"
    given = with_c("d.tif", "--spacing", "2,1,1")
    assert "spacing" not in given.err
    assert "spacing" not in same.err
    assert (
        "warning: d.tif has a spacing of 3000 × 3000 × 3000 but the model was trained "
        "at 1000 × 1000 × 1000 nanometer; resample it, or" in result.err
    )


def test_a_volume_without_labels_among_others_brings_a_warning(work, program):
    empty = np.zeros_like(tifffile.imread("b_sparse.tif"))
    save("empty.tif", empty)
    result = program(*train("--image", "b.tif", "--labels", "empty.tif"))
    assert result.status == 0
    assert "warning: nothing is labelled in b.tif; it teaches nothing" in result.err


def test_volume_smaller_than_the_pooling(altered, refused):
    altered("a.tif", lambda x: x[:3])
    save("thin.tif", tifffile.imread("a_truth.tif")[:3])
    line = refused(
        *train(
            "--pooling", "4,2,2", "--depth", "2", image="altered.tif", labels="thin.tif"
        )
    )
    assert (
        "the volume has 3 voxels along Z but the network pools that axis by 4" in line
    )


def test_volume_smaller_than_a_patch(program, work):
    result = program(*train("--patch-size", "64,64,64"))
    assert result.status == 0
    assert (
        "warning: patch size (64, 64, 64) does not fit a volume of (16, 28, 30) voxels"
        in result.err
    )


def test_volume_smaller_than_a_patch_and_the_pooling_is_segmented(program, work):
    save("tiny.tif", tifffile.imread("a.tif")[:3, :5, :7])
    assert program(*segment("--image", "tiny.tif")).status == 0
    assert tifffile.imread("new.tif").shape == (3, 5, 7)


@pytest.fixture
def two_channels(work):
    image = tifffile.imread("a.tif")
    tifffile.imwrite(
        "two.tif",
        np.stack([image, image[::-1]], 1),
        imagej=True,
        metadata={"axes": "ZCYX"},
    )


@pytest.mark.usefixtures("two_channels")
def test_channels_unlike_the_models(refused, program):
    line = refused(*segment("--image", "two.tif"))
    assert "the model takes 1 channels but the image has 2; choose the channels" in line
    line = refused(
        *("train", "--image", "two.tif", "--labels", "a_sparse.tif"),
        *("--resume", "model.pt", "--model", "new.pt"),
    )
    assert "the model takes 1 channels but the image has 2; choose the channels" in line
    line = refused(
        *train(image="two.tif"), "--image", "b.tif", "--labels", "b_sparse.tif"
    )
    assert "the training images have different numbers of channels: [1, 2]" in line
    line = refused(*train("--test-image", "two.tif", "--test-labels", "a_truth.tif"))
    assert "the test volume two.tif has 2 channels but the model takes 1;" in line
    line = refused(*segment("--image", "two.tif", "--channels", "2"))
    assert "--channels 2 was asked of two.tif, which has channels 0 to 1" in line
    assert program(*segment("--image", "two.tif", "--channels", "1")).status == 0


def test_classes_unlike_the_models(altered, refused):
    altered("a_sparse.tif", lambda x: np.where(x == 3, 5, x))
    line = refused(
        *("train", "--image", "a.tif", "--labels", "altered.tif"),
        *("--resume", "model.pt", "--model", "new.pt"),
    )
    assert "the labels go up to class 5 but the model has 3 classes" in line
    line = refused(*train("--class-names", "a,b,c,d"))
    assert "4 --class-names are given (a, b, c, d), but the labels have 3" in line


class Hostile:
    def __reduce__(self):
        return open, ("executed", "w")


def damaged_model(kind):
    whole = torch.load("model.pt", weights_only=True)
    if kind == "truncated":
        with open("model.pt", "rb") as file:
            return file.read(20_000)
    content = {
        "foreign": {"state_dict": {"weight": torch.ones(3)}},
        "hostile": whole | {"history": [Hostile()]},
        "a module": torch.nn.Linear(1, 1),
        "of another network": whole | {"model": whole["model"] | {"base_channels": 4}},
        "of a huge network": whole
        | {"model": whole["model"] | {"in_channels": 10**9, "base_channels": 256}},
        "with classes unnamed": whole | {"class_names": ["one"]},
        "from before the start": whole | {"step": -1},
        "of the future": whole | {"format_version": 99},
        "without its optimizer": whole | {"optimizer": {"state": 1}},
    }[kind]
    torch.save(content, "damaged.pt")
    return None


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("truncated", "damaged.pt cannot be read as a model"),
        (
            "foreign",
            "damaged.pt is not a model of napari-unet3d; use a file that it has",
        ),
        ("hostile", "of another program, or not safe to open; use a file saved by"),
        ("a module", "damaged.pt cannot be read as a model"),
        ("of another network", "damaged.pt is damaged: the weights do not fit"),
        ("of a huge network", "damaged.pt is damaged: the weights do not fit"),
        ("with classes unnamed", "damaged.pt is damaged: it names 1 of 3 classes"),
        ("from before the start", "damaged.pt is damaged: its step is -1"),
        ("of the future", "which is newer than this one"),
    ],
)
@pytest.mark.parametrize("command", ["segment", "resume", "inspect"])
def test_model(kind, sentence, command, work, refused):
    if data := damaged_model(kind):
        (work / "damaged.pt").write_bytes(data)
    arguments = {
        "segment": segment("--model", "damaged.pt"),
        "resume": ("train", *LABELLED, "--resume", "damaged.pt", "--model", "new.pt"),
        "inspect": ("inspect", "damaged.pt"),
    }[command]
    assert sentence in refused(*arguments)
    assert not (work / "executed").exists()


def test_model_without_its_optimizer_is_not_trained_on(refused):
    damaged_model("without its optimizer")
    line = refused("train", *LABELLED, "--resume", "damaged.pt", "--model", "new.pt")
    assert "the optimizer's state in the model does not fit its network" in line


def test_missing_files(refused):
    assert "there is no model file no.pt;" in refused(*segment("--model", "no.pt"))
    line = refused(*segment("--image", "bb.tif"))
    assert "bb.tif does not exist; did you mean b.tif?" in line
    line = refused(*train("--image", "no/a.tif", "--labels", "b_sparse.tif"))
    assert "no/a.tif does not exist: there is no folder no" in line
    assert "no.yaml does not exist" in refused(*train("--config", "no.yaml"))


def test_files_that_are_no_volumes(work, refused):
    (work / "a.jpg").write_bytes(b"\xff\xd8")
    line = refused(*segment("--image", "a.jpg"))
    assert "a.jpg ends in '.jpg', which is no supported file type; use .tif" in line
    (work / "text.tif").write_text("hello")
    line = refused(*segment("--image", "text.tif"))
    assert "text.tif cannot be read as TIFF" in line
    (work / "half.tif").write_bytes((work / "b.tif").read_bytes()[:5000])
    assert "half.tif cannot be read as TIFF" in refused(*segment("--image", "half.tif"))


@pytest.mark.parametrize(
    ("module", "name", "kind"),
    [("h5py", "x.h5", "HDF5"), ("nibabel", "x.nii", "NIfTI")],
)
def test_missing_extras(module, name, kind, work, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    (work / name).write_bytes(b"")
    for arguments in (("--image", name), ("--output", name)):
        line = refused(*segment(*arguments))
        assert f"{kind} files need the library {module}, which is not installed" in line
        assert 'pip install "napari-unet3d[' in line


def test_tensorboard_missing(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    line = refused(*train("--log-dir", "log", "--tensorboard"))
    assert "pip install 'napari-unet3d[tensorboard]'" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (train("--model", "a.tif"), "a.tif would replace a.tif; choose another name"),
        (train("--model", "a_sparse.tif"), "a_sparse.tif would replace a_sparse.tif"),
        (
            segment("--output", "b.tif"),
            "b.tif would replace b.tif; choose another name",
        ),
        (segment("--output", "./b.tif"), "./b.tif would replace b.tif; choose"),
        (segment("--probabilities", "b.tif"), "b.tif would replace b.tif; choose"),
        (
            segment("--probabilities", "new.tif"),
            "new.tif would replace new.tif; choose",
        ),
        (
            segment("--output", "x.h5:a", "--probabilities", "x.h5:b"),
            "x.h5:b would replace x.h5:a; choose another name",
        ),
        (
            segment("--image", "x.zarr/0", "--output", "x.zarr"),
            "x.zarr would replace x.zarr/0; choose another name",
        ),
        (
            train("--test-image", "b.tif", "--test-labels", "b_seg.tif"),
            "b_seg.tif would replace b_seg.tif; choose another name",
        ),
        (
            ("inspect", *LABELLED, "--output", "a.png"),
            "a.png would replace a.tif; choose another name",
        ),
    ],
)
def test_output_that_is_an_input(arguments, sentence, work, refused):
    (work / "a.png").symlink_to(work / "a.tif")
    assert sentence in refused(*arguments)


def test_hard_link_to_an_input(work, refused):
    (work / "link.tif").hardlink_to(work / "b.tif")
    line = refused(*segment("--output", "link.tif"))
    assert "link.tif would replace b.tif" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            train("--model", "no/m.pt"),
            "cannot write no/m.pt: No such file or directory",
        ),
        (train("--model", "."), "cannot write .: it is a folder; add a name to it"),
        (train("--model", "new/"), "cannot write new: it is a folder; add a name"),
        (
            train("--model", "/dev/null"),
            "cannot write /dev/null: it is a device; choose",
        ),
        (
            train("--model", "/proc/m.pt"),
            "cannot write /proc/m.pt: No such file or dir",
        ),
        (train("--log-dir", "a.tif"), "cannot write to the folder a.tif: File exists"),
        (train("--log-dir", "/proc/x"), "cannot write to the folder /proc/x: No such"),
        (segment("--output", "no/b.tif"), "there is no folder"),
        (segment("--output", "/proc/b.tif"), "/proc/b.tif cannot be written (No such"),
        (segment("--output", "b"), "b has no ending, which is no supported file type"),
        (
            segment("--probabilities", "no/p.tif"),
            "no/p.tif cannot be written: there is",
        ),
        (
            ("inspect", *LABELLED, "--output", "no/g.png"),
            "cannot write no/g.png: No such file or directory",
        ),
        (
            ("inspect", *LABELLED, "--output", "g.jpg"),
            "is a PNG file; name g.jpg as g.",
        ),
        (("demo", "--out", "a.tif"), "cannot write to the folder a.tif: File exists"),
        (("demo", "--out", "/proc/x"), "cannot write to the folder /proc/x: No such"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="has /proc")
def test_output_that_cannot_be_written(arguments, sentence, refused):
    assert sentence in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--steps", "abc"), "--steps must be a whole number, got 'abc'"),
        (("--steps", "0"), "--steps must be greater than 0, got '0'"),
        (("--steps", "1.5"), "--steps must be a whole number, got '1.5'"),
        (("--minutes", "nan"), "--minutes must be a number that is not infinite, got"),
        (("--minutes", "1"), "minutes and steps exclude each other, got 1 minutes and"),
        (("--learning-rate", "10"), "--learning-rate must be at most 1, got '10'"),
        (("--patch-size", "8,16"), "--patch-size has too few values, got 8,16"),
        (("--patch-size", "8,16,16,16"), "--patch-size has too many values"),
        (("--patch-size", "8,x,8"), "--patch-size must be a whole number, got 'x'"),
        (("--pooling", "2,2/2,2,2"), "--pooling has too few values, got 2,2"),
        (("--flip", "yes,no,perhaps"), "--flip must be yes or no, got 'perhaps'"),
        (("--spacing", "1,0,1"), "--spacing must be greater than 0, got '0'"),
        (
            ("--class-weights", "1,2"),
            "--class-weights has 2 values, (1.0, 2.0), but there",
        ),
        (
            ("--class-weights", "0,0,0"),
            "all --class-weights are 0, so nothing would be",
        ),
        (
            ("--n-classes", "2"),
            "the labels go up to class 3 but the model has 2 classes",
        ),
        (("--in-channels", "2"), "the model takes 2 channels but the image has 1"),
        (
            ("--device", "gpu"),
            "unknown device 'gpu'; use auto, cpu, cuda, cuda:1 or mps",
        ),
        (("--device", "cuda:99"), "device cuda:99 was asked for but torch"),
        (("--precision", "float16"), "precision float16 is for GPUs only; use auto"),
        (("--stop-after", "0"), "--stop-after must be at least 1, got 0"),
        (("--axes", "ZYQ"), "--axes ZYQ is not understood; name Z, Y and X once each"),
        (("--image", "b.tif"), "got 2 --image and 1 --labels; give one --labels for"),
        (("--test-image", "b.tif"), "got 1 --test-image and 0 --test-labels; give one"),
        (("--tensorboard",), "--tensorboard needs a folder; give one with --log-dir"),
        (
            ("--test-image", "b.tif", "--test-labels", "a_truth.tif"),
            "a_truth.tif has shape (16, 28, 30) but b.tif has (14, 26, 32)",
        ),
        (
            ("--rotation", "999", "--batch-size", "x"),
            "--batch-size must be a whole number, got 'x'; --rotation must be at most",
        ),
    ],
)
def test_flags(arguments, sentence, refused):
    assert sentence in refused(*train(*arguments))


def test_test_volume_that_cannot_be_scored(altered, refused):
    altered("b_truth.tif", lambda x: 0 * x)
    line = refused(*train("--test-image", "b.tif", "--test-labels", "altered.tif"))
    assert "altered.tif is 0 everywhere, so nothing can be scored with it;" in line


def test_empty_names(refused):
    assert "the name of a file is empty" in refused(*segment("--output", ""))
    assert "the name of a file is empty" in refused(*train(image="", labels=""))
    assert "no model file named" in refused(*train("--model", ""))


def test_nothing_to_do(refused):
    assert "nothing to train on; give --image and --labels" in refused("train")
    assert "no model file named; give --model" in refused("train", *LABELLED)
    assert "nothing to inspect; give a model or YAML file" in refused("inspect")
    line = refused("inspect", "a.tif")
    assert "a.tif is neither a model nor a configuration; to look at training" in line
    line = refused("inspect", "model.pt", *LABELLED)
    assert "got model.pt and further flags; give either" in line
