"""SEC as a user runs it: classifiers, cues, segmentation network; and its scripts."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from wsss_tf import images, run_folder
from wsss_tf.recipe import Recipe

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TINY = f"--gin_file={ROOT / 'tests/data/tiny_sec.gin'}"
PREDICTS_MASKS = "predictor" in {field.name for field in dataclasses.fields(Recipe)}


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def ok(*command):
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def user_error(result, *words):
    assert result.returncode == 2, result.stdout + result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line


def train(method, run_dir, *bindings):
    options = [f"--gin_bindings={binding}" for binding in bindings]
    return ok(
        "-m", "wsss_tf.train", f"--gin_file=gin/{method}.gin", TINY, f"--run_dir={run_dir}",
        *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Both localisation networks, trained for an epoch; the second starts from the first."""
    folder = tmp_path_factory.mktemp("runs")
    train("sec_foreground", folder / "foreground")
    weights = folder / "foreground/checkpoints/last.keras"
    out = train("sec_background", folder / "background", f"Recipe.initial_weights='{weights}'")
    assert "kept random: fc6_bg/bias" in out
    return folder


@pytest.fixture(scope="module")
def cues(classifiers):
    out = ok(
        "scripts/make_sec_cues.py",
        f"--foreground_run={classifiers / 'foreground'}",
        f"--background_run={classifiers / 'background'}",
        f"--output={classifiers / 'cues'}",
        "--npz",
    )
    assert "12 written, 0 kept" in out
    return classifiers / "cues"


def test_cues_of_the_classifiers(cues):
    from wsss_tf.data.shapes import shapes_source
    from wsss_tf.inference import sec_cues

    source = shapes_source("train", num_train=12, image_size=40)
    assert len(list(cues.glob("*.png"))) == len(source)
    for image_id, labels in zip(source.ids, source.labels):
        index = images.load_mask(cues / f"{image_id}.png")
        assert index.shape == (5, 5)
        assert set(np.unique(index)) <= {0, 255, *(np.flatnonzero(labels) + 1)}
        rows = sec_cues.load_rows(cues / f"{image_id}.npz")
        np.testing.assert_array_equal(sec_cues.to_rows(index), rows)

    images.save_mask(cues / f"again/{source.ids[0]}.png", np.full((5, 5), 3))
    out = ok("scripts/make_sec_cues.py", f"--rows={cues}", "--grid=5", f"--output={cues}/again")
    assert "11 written, 1 kept" in out
    assert (images.load_mask(cues / f"again/{source.ids[0]}.png") == 3).all()
    for image_id in source.ids[1:]:
        np.testing.assert_array_equal(
            images.load_mask(cues / f"again/{image_id}.png"),
            images.load_mask(cues / f"{image_id}.png"),
        )


def test_cues_of_another_methods_maps(tmp_path):
    cams = np.zeros((1, 17, 33))
    cams[0, :8, :16] = 1
    run_folder.save_cams(tmp_path / "cams", "sub/a", [2], cams)
    ok("scripts/make_sec_cues.py", f"--cams={tmp_path}/cams", "--grid=5", f"--output={tmp_path}/c")
    index = images.load_mask(tmp_path / "c/sub/a.png")
    np.testing.assert_array_equal(index[:3, :3], [[2, 2, 0], [2, 2, 0], [0, 0, 0]])


@pytest.mark.skipif(not PREDICTS_MASKS, reason="recipes of networks that predict masks needed")
def test_sec_from_cues_to_scores(cues, tmp_path):
    train("sec", tmp_path, f"sec_augmentation.cues='{cues}'")
    assert "dense_crf.crf_postprocess.bilateral_sxy = 80.0" in (tmp_path / "config.gin").read_text()
    options = [] if importlib.util.find_spec("pydensecrf") else ["--nopostprocess"]
    ok("-m", "wsss_tf.infer", f"--run_dir={tmp_path}", "--split=val", *options)
    assert images.load_mask(tmp_path / "predictions/shapes_val_00000.png").shape == (40, 40)
    ok("-m", "wsss_tf.evaluate", f"--run_dir={tmp_path}", "--split=val")
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--output"]),
        (["--output=o"], ["--foreground_run", "--cams", "--rows"]),
        (["--output=o", "--cams=a", "--rows=b"], ["or --rows"]),
        (["--output=o", "--foreground_run=a"], ["--background_run"]),
    ],
    ids=["output", "input", "two inputs", "one run"],
)
def test_cues_script_refuses(options, words):
    user_error(run("scripts/make_sec_cues.py", *options), *words)


def test_grid_that_does_not_fit(tmp_path):
    from wsss_tf.inference import sec_cues

    sec_cues.save_rows(tmp_path / "rows/a.npz", np.zeros((7, 7), np.uint8))
    command = ("scripts/make_sec_cues.py", f"--rows={tmp_path}/rows", f"--output={tmp_path}/o")
    user_error(run(*command, "--grid=5"), "a.npz", "--grid=5")


def test_weights_script_refuses():
    user_error(run("scripts/vgg16_initial_weights.py", "--output=a.h5"), "a.h5", ".npz")
