"""`python -m wsss_tf.evaluate` as a user runs it: exit status, what it prints, what it writes."""

import json
import pathlib

import numpy as np
import pytest
from as_user import ROOT, run
from PIL import Image

from wsss_tf.files import images, run_folder


def _evaluate(*arguments, cwd, fresh=False):
    return run("evaluate", *arguments, cwd=cwd, fresh=fresh)


def _messages(stderr):
    """Return the lines on standard error, without those of TensorFlow's start."""
    start = ("WARNING: All log messages before absl", "I0000 ", "W0000 ", "E0000 ")
    return [line for line in stderr.splitlines() if line and not line.startswith(start)]


def _assert_user_error(result, *words):
    assert result.returncode == 2, result.stderr
    [line] = _messages(result.stderr)
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert result.stdout == ""


# === Two folders ===


@pytest.fixture
def folders(tmp_path):
    """Two masks and three predictions; the scores are in `test_folders_are_scored`."""
    images.save_mask(tmp_path / "masks/a.png", np.array([[0, 0, 1, 255]]))
    images.save_mask(tmp_path / "masks/sub/b.png", np.array([[1, 1], [0, 0], [2, 2]]))
    images.save_mask(tmp_path / "predictions/a.png", np.array([[0, 1, 1, 2]]))
    images.save_mask(tmp_path / "predictions/sub/b.png", np.array([[1, 255], [0, 0], [2, 0]]))
    images.save_mask(tmp_path / "predictions/extra.png", np.array([[0]]))
    (tmp_path / "names.txt").write_text("background\ncat\ndog\nred fox\n")
    return tmp_path


_ARGUMENTS = ("--predictions=predictions", "--masks=masks", "--class_names=names.txt")


def test_folders_are_scored(folders):
    result = _evaluate(*_ARGUMENTS, "--output=out/metrics.json", "--split=mine", cwd=folders)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((folders / "out/metrics.json").read_text())
    # background: 3 right, 1 missed, 1 wrong. cat: 2 right, 1 missed (255), 1 wrong.
    # dog: 1 right, 1 missed. The dog predicted where the mask is 255 does not count.
    assert metrics["iou"] == {"background": 0.6, "cat": 0.5, "dog": 0.5, "red fox": None}
    assert metrics["miou"] == pytest.approx(1.6 / 3)
    assert metrics["pixel_accuracy"] == pytest.approx(6 / 9)
    assert metrics["absent_classes"] == ["red fox"]
    assert metrics["ignored_pixels"] == 1
    assert metrics["unlabelled_pixels"] == 1
    assert metrics["extra_predictions"] == 1
    assert (metrics["num_images"], metrics["split"]) == (2, "mine")
    assert "sweep" not in metrics
    for line in [
        "cat               50.00",
        "red fox          absent",
        "mean IoU          53.33",
        "2 images, split 'mine'.",
        "1 predictions have no mask and were not scored.",
        "1 pixels predicted 255 count as missed.",
        "metrics: out/metrics.json",
    ]:
        assert line in result.stdout.splitlines()
    assert _messages(result.stderr) == []


def test_absent_classes_can_count_as_zero(folders):
    result = _evaluate(*_ARGUMENTS, "--absent_as_zero", cwd=folders)
    assert result.returncode == 0, result.stderr
    assert "mean IoU          40.00" in result.stdout.splitlines()
    assert not (folders / "metrics.json").exists()


@pytest.mark.parametrize("prediction", [[[0, 0, 1, 17]], [[0], [1]]], ids=["value", "size"])
def test_bad_prediction(folders, prediction):
    images.save_mask(folders / "predictions/a.png", np.array(prediction))
    result = _evaluate(*_ARGUMENTS, "--output=metrics.json", cwd=folders)
    _assert_user_error(result, "predictions/a.png", "17" if len(prediction) == 1 else "1x2")
    assert not (folders / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--run_dir", "--predictions"]),
        (["--run_dir=x", "--masks=masks"], ["--run_dir", "--masks", "exclude"]),
        (["--run_dir=x", "--output=o.json"], ["--output", "--predictions"]),
        (["--run_dir=nowhere"], ["--run_dir=nowhere", "config.gin"]),
        (["--predictions=predictions", "--masks=masks"], ["--class_names is missing"]),
        ([*_ARGUMENTS, "--background_threshold=0.3"], ["--background_threshold", "--run_dir"]),
        ([*_ARGUMENTS, "--background_threshold=3"], ["--background_threshold=3"]),
        ([*_ARGUMENTS, "--output=masks"], ["--output=masks", "folder"]),
        (["--predictions=none", *_ARGUMENTS[1:]], ["--predictions=none", "no such folder"]),
        ([*_ARGUMENTS, "--maskz=1"], ["maskz"]),
    ],
    ids=lambda value: "_".join(value).replace("--", "")[:40] or "none",
)
def test_bad_flags(folders, arguments, words):
    _assert_user_error(_evaluate(*arguments, cwd=folders), *words)


def test_help_is_short():
    result = _evaluate("--help", cwd=ROOT, fresh=True)
    assert "--run_dir" in result.stdout
    assert len(result.stdout.splitlines()) < 45


# === A run ===

# A recipe of which only the source matters here, and a source that draws two pictures.
_TINY = """
import gin
import numpy as np
import tensorflow as tf

from wsss_tf.data.source import Source

def unused():
    raise AssertionError("evaluation needs the source only")

def source(split, size=6):
    def read(index):
        mask = tf.cast(tf.range(size)[:, None] + tf.zeros([1, 4], tf.int32) < 2, tf.uint8)
        mask = mask * tf.cast(index + 1, tf.uint8)
        return {"image": tf.stack([mask * 100] * 3, -1), "mask": mask}

    return Source("tiny", split, ("background", "cat", "dog"), ("x", "y/z"), np.eye(2, dtype="f"),
                  read, has_masks=True)
"""
_CONFIG = """
from __gin__ import dynamic_registration
import tiny
from wsss_tf.runs import recipe

recipe.Recipe.source = @tiny.source
recipe.Recipe.network = @tiny.unused
recipe.Recipe.augmentation = @tiny.unused
recipe.Recipe.step = @tiny.unused
recipe.Recipe.optimizer = @tiny.unused
"""


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "tiny.py").write_text(_TINY)
    folder = tmp_path / "run"
    run_folder.write_text(folder / "config.gin", _CONFIG)
    # Right above 0.25 and up to 0.5; below that, the third row is taken for the object too.
    cam = np.zeros((1, 6, 4))
    cam[:, :2] = 0.5
    cam[:, 2] = 0.25
    run_folder.save_cams(folder / "cams", "x", [1], cam)
    run_folder.save_cams(folder / "cams", "y/z", [2], cam)
    return folder


def test_run_is_scored(run_dir):
    result = _evaluate("--run_dir=run", cwd=run_dir.parent)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["miou"], metrics["pixel_accuracy"], metrics["split"]) == (1, 1, "val")
    assert metrics["best_background_threshold"] == 0.25
    # At 0.1 background: 24 of 48 - 16 right of 32; both objects 8 right of 12.
    assert metrics["sweep"][10]["miou"] == pytest.approx((24 / 32 + 8 / 12 + 8 / 12) / 3)
    assert metrics["sweep"][10]["mfp"] == 0.5
    assert metrics["sweep"][55]["without_hits"] == ["cat", "dog"]
    lines = result.stdout.splitlines()
    assert "mean IoU         100.00" in lines
    assert "Best background threshold 0.25: mean IoU 100.00." in lines
    assert f"report: {pathlib.Path('run/report.html')}" in lines
    assert "tiny.source" in (run_dir / "report.html").read_text()
    assert Image.open(run_dir / "curves.png").format == "PNG"
    assert _messages(result.stderr) == []


def test_run_at_a_given_threshold_and_binding(run_dir):
    arguments = ["--run_dir=run", "--split=train", "--background_threshold=0.1"]
    result = _evaluate(*arguments, "--report_images=0", cwd=run_dir.parent)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["miou"] == pytest.approx((24 / 32 + 8 / 12 + 8 / 12) / 3)
    assert (metrics["background_threshold"], metrics["split"]) == (0.1, "train")
    wrong_size = _evaluate(*arguments, "--gin_bindings=tiny.source.size=5", cwd=run_dir.parent)
    _assert_user_error(wrong_size, "x.npz", "(6, 4)", "(5, 4)")


def test_run_without_cams(run_dir):
    (run_dir / "cams/y/z.npz").unlink()
    result = _evaluate("--run_dir=run", "--split=val", cwd=run_dir.parent)
    _assert_user_error(
        result, "1 of 2", "z.npz", "python -m wsss_tf.infer --run_dir=run --split=val"
    )


def test_a_folder_of_masks_against_the_runs_data_set(run_dir):
    for image_id, value in (("x", 1), ("y/z", 2)):
        mask = np.zeros((6, 4), np.uint8)
        mask[:3] = value  # the third row is wrong
        images.save_mask(run_dir / f"labels/{image_id}.png", mask)
    arguments = ["--run_dir=run", "--split=train", "--predictions=run/labels"]
    result = _evaluate(*arguments, "--output=m.json", cwd=run_dir.parent)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir.parent / "m.json").read_text())
    assert metrics["miou"] == pytest.approx((24 / 32 + 8 / 12 + 8 / 12) / 3)
    assert (metrics["split"], metrics["num_images"]) == ("train", 2)
    assert "metrics: m.json" in result.stdout
    assert not (run_dir / "metrics.json").exists()
    result = _evaluate(*arguments, "--background_threshold=0.1", cwd=run_dir.parent)
    _assert_user_error(result, "--background_threshold")
    result = _evaluate("--run_dir=run", "--predictions=nothing", cwd=run_dir.parent)
    _assert_user_error(result, "2 of 2", "nothing/x.png")
