"""Sparse annotations and models as files, and through File → Open and Save."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.layers._source import Source

from napari_unet3d import _reader, _sample_data, _writer
from napari_unet3d._qt.annotation_file import load
from napari_unet3d._qt.classes import classes_of, make_classes, set_classes
from napari_unet3d._qt.project_locks import ProjectLocks
from napari_unet3d._qt.projects import Project, projects_folder
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.annotation_file import is_annotation


@pytest.fixture
def layer():
    rng = np.random.default_rng(0)
    data = np.zeros((5, 6, 7), np.uint8)
    data[2] = rng.integers(1, 4, (6, 7))
    layer = Labels(data, scale=(4, 2, 1), translate=(1, 2, 3), units=("um",) * 3)
    set_classes(layer, make_classes(["background", "a", "b"]))
    return layer


def test_annotation_round_trip_through_writer_and_reader(layer, tmp_path):
    path = str(tmp_path / "a.npz")
    data, meta, _ = layer.as_layer_data_tuple()
    assert _writer.write_annotation(path, data, meta) == [path]
    ((found, about, kind),) = _reader.get_reader(path)(path)
    assert kind == "labels"
    np.testing.assert_array_equal(found, layer.data)
    again = Labels(found, **about)
    np.testing.assert_array_equal(again.scale, layer.scale)
    np.testing.assert_array_equal(again.translate, layer.translate)
    assert again.units == layer.units
    assert classes_of(again) == classes_of(layer)


def test_other_files_are_left_to_other_readers(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    assert _reader.get_reader(str(other)) is None
    for name in ("x.pt", "x.npz"):
        (tmp_path / name).write_bytes(b"nothing")
        assert _reader.get_reader(str(tmp_path / name)) is None
    assert _reader.get_reader([str(other)]) is None
    with pytest.raises(EngineError, match="cannot be read as a sparse annotation"):
        load(other)
    with pytest.raises(EngineError, match="No such file"):
        load(tmp_path / "missing.npz")


def test_damaged_annotations_say_so(layer, tmp_path):
    path = tmp_path / "a.npz"
    data, meta, _ = layer.as_layer_data_tuple()
    _writer.write_annotation(str(path), data, meta)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not is_annotation(path)
    with pytest.raises(EngineError, match="cannot be read"):
        load(path)


def test_writer_refuses_labels_that_it_would_lose(tmp_path):
    data = np.zeros((3, 4, 5), np.uint16)
    data[1, 2, 3] = 255
    with pytest.raises(EngineError, match=r"label 255 cannot be kept .* as a TIFF"):
        _writer.write_annotation(str(tmp_path / "a.npz"), data, {})
    assert not list(tmp_path.iterdir())


def test_writer_refuses_what_is_no_volume():
    with pytest.raises(EngineError, match="axes ZYX"):
        _writer.write_annotation("a.npz", np.zeros((3, 3)), {})


def test_sample_opens_with_its_annotation():
    viewer = ViewerModel()
    for data, about, kind in _sample_data.tubules_layers():
        getattr(viewer, f"add_{kind}")(data, **about)
    image, labels = viewer.layers
    assert image.data.shape == labels.data.shape
    np.testing.assert_array_equal(image.scale, labels.scale)
    assert [c.name for c in classes_of(labels)] == ["background", "tubule", "lumen"]


def test_an_image_has_its_project(projects):
    data = np.random.default_rng(0).random((5, 6, 7))
    mine = Project.of(VolumeChoice(Image(data, name="a/b c")))
    assert mine.folder.parent == projects == projects_folder()
    assert mine == Project.of(VolumeChoice(Image(data.copy(), name="a/b c")))
    assert mine != Project.of(VolumeChoice(Image(data + 1, name="a/b c")))
    mine.make()
    assert mine.previous == mine


def test_everything_that_is_set_aside_is_kept(tmp_path):
    mine = Project(tmp_path)
    for number in range(1, 12):
        mine.annotation.write_text(f"annotation {number}")
        if number % 2:
            mine.model.write_text(f"model {number}")
        mine.set_aside()
        assert not mine.annotation.exists()
        assert not mine.model.exists()
    # Numbers, not names, are in order; annotation and model belong together.
    assert mine.previous.annotation.read_text() == "annotation 11"
    assert mine.previous.model.read_text() == "model 11"
    assert (tmp_path / "previous-2" / "annotation.npz").read_text() == "annotation 2"
    assert not (tmp_path / "previous-2" / "model.pt").exists()
    mine.model.write_text("model alone")
    mine.set_model_aside()
    mine.set_aside()
    assert (tmp_path / "previous-12" / "model.pt").read_text() == "model alone"
    assert mine.previous.annotation.read_text() == "annotation 11"
    assert not (tmp_path / "previous-13").exists()


def test_images_of_one_file_have_projects_of_their_own(projects, tmp_path):
    def scene(name, value):
        layer = Image(np.full((4, 5, 6), value), name=name)
        layer._source = Source(path=str(tmp_path / "scenes.lif"))
        return layer

    def project(layer, *layers):
        folder = Project.of(VolumeChoice(layer), [layer, *layers]).folder
        return folder.name.partition("-")[2]

    one, two, again = scene("1", 1), scene("2", 2), scene("renamed", 1)
    labels = Labels(np.zeros((4, 5, 6), np.uint8))
    labels._source = one._source
    assert project(one, two) != project(two, one)
    assert project(one, two) == project(again, two)
    # A file with a single image is known by its name alone.
    assert project(one, labels) == project(two, labels)


def test_an_image_in_two_viewers_has_two_projects(projects):
    choice = VolumeChoice(Image(np.zeros((5, 6, 7)), name="a"))
    one, two = ProjectLocks(), ProjectLocks()
    first, second = one.project_of(choice), two.project_of(choice)
    assert first != second
    assert one.project_of(choice) == first
    for project in (first, second):
        project.make()
    second.annotation.write_text("newest")
    for locks in (one, two):
        locks.close()
    # What was written last is what is offered.
    assert one.project_of(choice) == second
    one.close()
    assert not list(projects.glob(".*"))
