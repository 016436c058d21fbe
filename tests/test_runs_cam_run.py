"""CAMs that a later stage takes up: by the record beside them, else by the recipe."""

import json

import numpy as np
import pytest
from as_user import ROOT
from PIL import Image

from wsss_tf.data.source import file_source, reduced_source
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.cam_record import PictureFiles, load_record, make_record, save_record
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.write_crf import crf_source
from wsss_tf.inference.write_walk import walk_source
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.cam_run import open_cam_run

SIZES = {"a": (30, 44), "sub/b": (25, 25), "c": (61, 47)}
TINY = ("gin/seam.gin", str(ROOT / "tests/data/tiny.gin"))


@pytest.fixture
def source(tmp_path):
    """Pictures in files, one of them lying on its side."""
    (tmp_path / "in/sub").mkdir(parents=True)
    for index, (image_id, (height, width)) in enumerate(SIZES.items()):
        noise = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        lying = Image.Exif()
        lying[0x0112] = 6
        picture = Image.fromarray(noise).transpose(Image.Transpose.ROTATE_90)
        picture.save(tmp_path / f"in/{image_id}.jpg", exif=lying)
    paths = [tmp_path / f"in/{image_id}.jpg" for image_id in SIZES]
    return file_source("test", "all", ("background", "x", "y"), SIZES, np.ones((3, 2)), paths)


def infer(folder, source, max_side=None):
    """Leave CAM files and their record, as inference does."""
    for image_id, size in SIZES.items():
        maps = np.random.default_rng(0).random((2, *size))
        run_folder.save_cams(RunFolder(folder).cams, image_id, [1, 2], maps)
    save_record(folder, make_record(source, folder / "run", ["a=1"], 0.3, max_side))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_record_of_files(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    infer(tmp_path / "out", source, max_side=50)
    record = load_record("out", "all")
    assert record.pictures == PictureFiles("all", tuple(SIZES), source.paths)
    assert (record.run_dir, record.gin_bindings) == (str(tmp_path / "out/run"), ("a=1",))
    cams = open_cam_run("out", "all")
    assert cams.source == record.pictures
    assert (cams.background_threshold, cams.max_side) == (0.3, 50)
    cams = open_cam_run("out", "all", background_threshold=0.0, max_side=0)
    assert (cams.background_threshold, cams.max_side) == (0, None)
    assert load_record("out", "val") is None
    reduced = make_record(reduced_source(source, 40), "run", (), 0.3, None)
    save_record("out", reduced)
    assert load_record("out", "all") == reduced
    assert reduced.pictures.max_side == 40


def test_paths_are_found_from_any_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [f"in/{image_id}.jpg" for image_id in SIZES]
    relative = file_source("test", "all", source.class_names, SIZES, source.labels, paths)
    assert make_record(relative, "run", (), 0.3, None).pictures.paths == source.paths


@pytest.mark.parametrize("read_side", [None, 40])
def test_files_and_graph_give_the_same_bytes(read_side, source, tmp_path, monkeypatch):
    from test_inference_random_walk import COMPUTE

    if read_side is not None:
        source = reduced_source(source, read_side)
        monkeypatch.setitem(SIZES, "a", (27, 40))
        monkeypatch.setitem(SIZES, "c", (40, 31))
    infer(tmp_path / "out", source, max_side=35)
    cams = open_cam_run(tmp_path / "out", "all")
    for name, pictures in (("files", cams.source), ("graph", source)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cams").symlink_to(tmp_path / "out/cams")
        options = {"processes": 1, "max_side": cams.max_side}
        assert crf_source(pictures, tmp_path / name, **options) == (3, 0)
        walk = {"steps": 2, "max_side": cams.max_side}
        assert walk_source(COMPUTE, pictures, tmp_path / name, tmp_path / name, **walk) == (
            3,
            0,
            [],
        )
    found = contents(tmp_path / "files")
    assert len(found) == 15
    assert found == contents(tmp_path / "graph")


def test_pictures_that_have_gone(source, tmp_path):
    infer(tmp_path / "out", source)
    (tmp_path / "in/c.jpg").rename(tmp_path / "in/d.jpg")
    with pytest.raises(UserError, match=r"1 of 3 pictures .*in/c\.jpg.*--gin_bindings"):
        open_cam_run(tmp_path / "out", "all")


def test_what_is_no_record(source, tmp_path):
    infer(tmp_path, source)
    path = RunFolder(tmp_path).cam_record("all")
    for text in ("", "[]", "{}", json.dumps({**json.loads(path.read_text()), "more": 1})):
        path.write_text(text)
        with pytest.raises(UserError, match=r"all\.json: is not the record of CAM files"):
            open_cam_run(tmp_path, "all")
    with pytest.raises(UserError, match=r"holds no CAMs of split 'val', and no config\.gin"):
        open_cam_run(tmp_path, "val")


def test_recipe_where_there_is_no_record_of_files(tmp_path):
    recipe = recipe_lib.load(TINY)
    recipe_lib.save_parsed_config(tmp_path / "run", "untrained")
    drawn = recipe.source("val").without_masks()
    RunFolder(tmp_path / "run").write_class_names(drawn.class_names)
    cams = open_cam_run(tmp_path / "run", "val")
    assert (len(cams.source), cams.source.has_masks) == (6, False)
    assert (cams.background_threshold, cams.max_side) == (0.26, None)
    # A folder of its own for CAMs of drawn pictures, of fewer than the recipe has.
    record = make_record(drawn, tmp_path / "run", ["shapes_source.num_val=4"], 0.4, 30)
    assert record.pictures is None
    save_record(tmp_path / "out", record)
    assert load_record(tmp_path / "out", "val") == record
    cams = open_cam_run(tmp_path / "out", "val")
    assert len(cams.source) == 4
    assert (cams.background_threshold, cams.max_side) == (0.4, 30)
    assert len(open_cam_run(tmp_path / "out", "val", ["shapes_source.num_val=2"]).source) == 2
