"""Train, infer, evaluate and export as a user runs them, with good input and bad."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from as_user import ROOT, TINY_SEAM, kill_when, ok, run, user_error, weights_of
from PIL import Image
from scores_by_hand import cam_label, masks_of, mean_iou

from wsss_tf.data.shapes import shapes_source
from wsss_tf.files import images, run_folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, seam_run):
    """A finished tiny run, of this file alone."""
    return shutil.copytree(seam_run, tmp_path_factory.mktemp("runs") / "tiny")


def test_train_leaves_a_run(run_dir):
    for name in ("config.gin", "class_names.txt", "checkpoints/last.keras"):
        assert (run_dir / name).is_file()
    assert "seam_network" not in (run_dir / "config.gin").read_text()  # the overlay's network ran
    assert "shapes_source.num_train = 12" in (run_dir / "config.gin").read_text()


def test_tensorboard_has_losses_pictures_and_the_configuration(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    tags = {tag for tags in events.Tags().values() if isinstance(tags, list) for tag in tags}
    assert {"cams", "config.gin", "validation/miou", "validation/background_threshold"} <= tags


def test_training_again_changes_nothing(run_dir):
    before = (run_dir / "checkpoints/last.keras").stat().st_mtime_ns
    assert "nothing to do" in ok("train", *TINY_SEAM, f"--run_dir={run_dir}")
    assert (run_dir / "checkpoints/last.keras").stat().st_mtime_ns == before


def test_infer_then_evaluate(run_dir):
    out = ok("infer", f"--run_dir={run_dir}", "--split=val", "--scales=0.5,1")
    assert "6 written, 0 kept" in out
    class_ids, cams = run_folder.load_cams(run_dir / "cams", "shapes_val_00000")
    assert cams.shape == (len(class_ids), 48, 48)
    assert cams.dtype == np.float16
    assert 0 <= cams.min() <= cams.max() <= 1
    label = images.load_mask(run_dir / "pseudo_labels/shapes_val_00000.png")
    assert set(np.unique(label)) <= {0, *class_ids.tolist()}

    (run_dir / "cams/shapes_val_00003.npz").unlink()
    assert "1 written, 5 kept" in ok(
        "infer", f"--run_dir={run_dir}", "--split=val", "--scales=0.5,1"
    )
    out = ok("evaluate", f"--run_dir={run_dir}", "--split=val")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["num_images"] == 6
    assert len(metrics["sweep"]) == 60
    source = shapes_source("val", num_train=12, num_val=6, image_size=48)
    maps = [run_folder.load_cams(run_dir / "cams", image_id) for image_id in source.ids]
    threshold = metrics["best_background_threshold"]
    labels = [cam_label(*one, threshold) for one in maps]
    assert metrics["miou"] == pytest.approx(mean_iou(masks_of(source), labels, 5), abs=1e-9)
    assert metrics["miou"] == max(point["miou"] for point in metrics["sweep"])
    page = (run_dir / "report.html").read_text()
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert captions.count("image") == captions.count("ground truth") == 6
    assert captions.count(f"pseudo label at {threshold:.2f}") == 6
    assert sum(caption.startswith("CAM: ") for caption in captions) == 6
    assert all(image_id in page for image_id in source.ids)
    assert "report.html" in out


@pytest.mark.large
def test_infer_and_evaluate_import_what_they_need(run_dir, tmp_path):
    """The server of the other tests' commands has imported some of it for them."""
    out = ok("infer", f"--run_dir={run_dir}", "--split=val", f"--output={tmp_path}", fresh=True)
    assert "6 written, 0 kept" in out
    shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(tmp_path / "cams", tmp_path / "run/cams", dirs_exist_ok=True)
    ok("evaluate", f"--run_dir={tmp_path / 'run'}", "--split=val", fresh=True)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["num_images"] == 6


def test_infer_by_grad_cam(run_dir, tmp_path):
    arguments = [f"--run_dir={run_dir}", "--split=val", "--method=gradcam++", "--scales=1"]
    out = ok("infer", *arguments, f"--output={tmp_path}")
    assert "6 written" in out
    class_ids, cams = run_folder.load_cams(tmp_path / "cams", "shapes_val_00000")
    assert cams.shape == (len(class_ids), 48, 48)
    result = run("infer", *arguments, "--cam_output=cam")
    user_error(result, "--cam_output", "gradcam++")


def test_infer_labels_a_folder_of_pictures(run_dir, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (37, 45, 3), dtype=np.uint8)).save(tmp_path / "in/a.jpg")
    Image.fromarray(rng.integers(0, 255, (20, 31), dtype=np.uint8)).save(tmp_path / "in/sub/b.png")
    out = ok(
        "infer",
        f"--run_dir={run_dir}",
        f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}",
        "--label_threshold=0",
        "--overlays",
    )
    assert "found: cross 2, stripes 2, ring 2, checker 2; no class in 0 of 2 pictures" in out
    assert (tmp_path / "out/found_labels.csv").read_text().splitlines() == [
        "image,labels",
        "a,cross;stripes;ring;checker",
        "sub/b,cross;stripes;ring;checker",
    ]
    with Image.open(tmp_path / "out/overlays/sub/b.jpg") as overlay:
        assert overlay.size == (31, 20)
    class_ids, cams = run_folder.load_cams(tmp_path / "out/cams", "sub/b")
    assert class_ids.tolist() == [1, 2, 3, 4]
    assert cams.shape == (4, 20, 31)
    assert images.load_mask(tmp_path / "out/pseudo_labels/a.png").shape == (37, 45)


@pytest.mark.large
def test_export_gives_the_same_labels_without_the_package(run_dir, tmp_path):
    """Of CAMs; what a SavedModel answers in detail is in test_serving_saved_model.py."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a", (40, 52, 3)), ("b", (30, 21, 3))):
        picture = rng.integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"in/{name}.png")
    options = ["--scales=0.5,1", "--flip", "--background_threshold=0.3", "--label_threshold=0.4"]
    options.append("--max_side=45")  # a is larger
    arguments = [f"--run_dir={run_dir}", f"--output={tmp_path / 'models'}", *options]
    out = ok("export", *arguments, fresh=True)
    assert f"SavedModel: {tmp_path / 'models/1'}" in out
    record = json.loads((tmp_path / "models/1/assets.extra/export.json").read_text())
    assert record["scales"] == [0.5, 1]
    assert (record["max_side"], record["max_pixels"]) == (45, 2**25)
    assert record["background_threshold"] == 0.3
    assert record["cam_output"] == "cam_rv"
    warmup = tmp_path / "models/1/assets.extra/tf_serving_warmup_requests"
    assert warmup.is_file() != ("no warm-up requests" in out)

    script = """
import pathlib, sys
import tensorflow as tf
model = tf.saved_model.load("models/1")
assert set(model.signatures) == {"serving_default", "probabilities", "cam"}
contents = [pathlib.Path(f"in/{name}.png").read_bytes() for name in "ab"]
out = model.signatures["serving_default"](image_bytes=tf.constant(contents))
for name, mask in zip("ab", out["mask_bytes"].numpy()):
    pathlib.Path(f"{name}.png").write_bytes(mask)
assert not any(name.startswith("wsss_tf") for name in sys.modules)
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    ok(
        "infer", f"--run_dir={run_dir}", f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}", *options,
    )  # fmt: skip
    for name in "ab":
        expected = images.load_mask(tmp_path / f"out/pseudo_labels/{name}.png")
        np.testing.assert_array_equal(images.load_mask(tmp_path / f"{name}.png"), expected)


def test_export_takes_the_background_threshold_that_is_known(run_dir, tmp_path):
    metrics = run_dir / "metrics.json"
    held = metrics.read_text() if metrics.is_file() else None
    metrics.unlink(missing_ok=True)
    arguments = [f"--run_dir={run_dir}", f"--output={tmp_path / 'models'}"]
    out = ok("export", *arguments, "--warmup_sizes=30x40")
    assert "background_threshold: 0.26" in out
    assert "Recipe.background_threshold" in out
    metrics.write_text('{"best_background_threshold": 0.17, "split": "val"}')
    out = ok("export", *arguments, "--warmup_sizes=30x40")
    assert "background_threshold: 0.17" in out
    assert "split 'val'" in out
    result = run("export", *arguments, "--version=1")
    user_error(result, "models/1", "versions are never changed")
    metrics.unlink() if held is None else metrics.write_text(held)


@pytest.mark.large
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    # Ten epochs of three steps, dropout on; killed while it works on a later epoch.
    arguments = (
        *TINY_SEAM,
        "--gin_bindings=Recipe.epochs=10",
        "--gin_bindings=Recipe.deterministic=True",
        "--gin_bindings=tiny_network.dropout=0.5",
        "--gin_bindings=Recipe.validation_split=None",
    )
    ok("train", *arguments, f"--run_dir={tmp_path / 'whole'}", fresh=True)  # as a user starts it
    killed = tmp_path / "killed"
    kill_when(
        killed / "checkpoints/step-6.index", "train", *arguments, f"--run_dir={killed}", within=60
    )
    assert not (killed / "checkpoints/step-30.index").is_file()
    assert "went on from step" in ok("train", *arguments, f"--run_dir={killed}")
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(killed)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.large
def test_two_replicas_train_as_one(tmp_path):
    # A process each: TensorFlow keeps what a strategy has once summed for the whole process.
    outputs = {}
    for devices in ("'one'", "['CPU:0','CPU:1']"):
        run_dir = tmp_path / str(len(outputs))
        outputs[run_dir] = ok(
            "train",
            *TINY_SEAM,
            f"--gin_bindings=Recipe.devices={devices}",
            "--gin_bindings=Recipe.epochs=7",  # 21 steps
            "--gin_bindings=Recipe.validation_split=None",
            f"--run_dir={run_dir}",
        )
    (one, one_text), (two, two_text) = outputs.items()
    assert "1 replica(s)" in one_text
    assert "2 replica(s)" in two_text
    losses = [
        np.float64([re.findall(r"(?<= )loss\w*: ([\d.e+-]+)", text)])
        for text in (one_text, two_text)
    ]
    assert losses[0].size == 7 * 5
    np.testing.assert_allclose(losses[1], losses[0], atol=2e-4)  # the log has four digits
    one, two = weights_of(one), weights_of(two)
    difference = max(np.abs(one[name] - two[name]).max() for name in one)
    print(f"largest difference of a weight after 21 steps: {difference:.1e}")
    # Float32 sums in another order, carried through the steps.
    assert difference < 5e-5


def test_voc_pictures_from_labels_to_scores(tmp_path):
    devkit = ROOT.parent / "shared/data/VOCdevkit"
    if not devkit.is_dir():
        pytest.skip("skipped: no shared data")
    ok(
        "train",
        *TINY_SEAM,
        "--gin_bindings=Recipe.source=@voc_source",
        f"--gin_bindings=voc_source.devkit='{devkit}'",
        "--gin_bindings=Recipe.train_split='trainaug'",
        "--gin_bindings=Recipe.batch_size=2",
        "--gin_bindings=Recipe.epochs=1",
        "--gin_bindings=Recipe.validation_split=None",
        f"--run_dir={tmp_path}",
    )
    names = (tmp_path / "class_names.txt").read_text().splitlines()
    assert names[:2] == ["background", "aeroplane"]
    ok("infer", f"--run_dir={tmp_path}", "--split=train", "--scales=0.5,1")
    ok("evaluate", f"--run_dir={tmp_path}", "--split=train")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["split"] == "train"
    assert set(metrics["iou"]) == set(names)


def test_train_on_a_folder_of_few_pictures(tmp_path):
    folder = tmp_path / 'it\'s "mine" 😀'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate([(40, 60, 3), (60, 40, 3), (50, 50, 3)]):
        picture = Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6  # a phone held upright
        picture.save(folder / f"IMG {i}.JPG", exif=exif)
    # The last picture shows neither.
    rows = ["image,labels", "IMG 0.JPG,cat", "IMG 1,dog cat", "IMG 2,background"]
    (folder / "image_labels.csv").write_text("\n".join(rows))
    out = ok(
        "train",
        *TINY_SEAM,
        f"--data={folder.name}",
        "--gin_bindings=Recipe.min_epoch_steps=3",
        "--run_dir=run",
        cwd=tmp_path,
    )
    assert "has 3 images, fewer than a batch (4)" in out
    assert "6 steps of 4, 3 an epoch" in out
    assert "  none of them: 1\n" in out
    # The folder is found from any other.
    out = ok("infer", f"--run_dir={tmp_path / 'run'}", "--split=all", "--scales=1")
    assert "3 written" in out
    assert images.load_mask(tmp_path / "run/pseudo_labels/IMG 0.png").shape == (60, 40)
    assert not images.load_mask(tmp_path / "run/pseudo_labels/IMG 2.png").any()
    for weights in weights_of(tmp_path / "run").values():
        assert np.isfinite(weights).all()


# === Bad input ===


@pytest.mark.parametrize(
    "name",
    [
        "train", "infer", "calibrate", "refine", "walk", "ir_labels", "cues", "evaluate", "export",
        "convert", "labels", "pipeline", "serving.client",
    ],
)  # fmt: skip
def test_a_misspelt_flag_ends_in_one_line(name):
    result = run(name, "--no_such_flag=1", fresh=True)
    user_error(result, "no_such_flag")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gin_file=gin/nope.gin", "--run_dir=r"], ["gin/nope.gin"]),
        (["--gin_file=gin/seam.gin"], ["--run_dir"]),
        ([*TINY_SEAM, "--run_dir=r", "--profile_steps=5,2"], ["--profile_steps=5,2"]),
        ([*TINY_SEAM, "--run_dir=r", "--gin_bindings=seam_step.rescal=1"], ["rescal"]),
        ([*TINY_SEAM, "--run_dir=r", "--no_such_flag"], ["no_such_flag"]),
        ([*TINY_SEAM, "--run_dir=r", "--data=nope"], ["--data = 'nope': no such folder"]),
        ([*TINY_SEAM, "--run_dir=r", "--gin_bindings=Recipe.batch_size=0"], ["batch_size = 0"]),
        ([*TINY_SEAM, "--run_dir=r", "--gin_bindings=Recipe.train_split='huh'"], ["'huh'"]),
        (
            [*TINY_SEAM, "--run_dir=r", "--gin_bindings=Recipe.require_initial_weights=True"],
            ["weights"],
        ),
        (
            [
                *TINY_SEAM,
                "--run_dir=r",
                "--gin_bindings=Recipe.devices=['CPU:0','CPU:1','CPU:2']",
            ],
            ["batch_size = 4", "3 replicas"],
        ),
    ],
    ids=[
        "file",
        "run_dir",
        "profile",
        "binding",
        "flag",
        "data",
        "batch",
        "split",
        "weights",
        "replicas",
    ],
)
def test_train_refuses(arguments, words, tmp_path):
    user_error(run("train", *arguments, cwd=tmp_path), *words)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    rate = "--gin_bindings=poly_sgd.learning_rate=1e30"
    result = run("train", *TINY_SEAM, rate, "--run_dir=r", cwd=tmp_path)
    user_error(result, "step ", "not finite", "loss_cls")


@pytest.fixture
def folder(tmp_path):
    """A user's folder: six pictures and their labels."""
    rng = np.random.default_rng(1)
    (tmp_path / "own").mkdir()
    rows = ["image,labels"]
    for i in range(6):
        picture = rng.integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"own/p{i}.jpg")
        rows.append(f"p{i}.jpg,{'cat' if i % 2 else 'cat dog'}")
    (tmp_path / "own/image_labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "own"


def _folder_arguments(folder):
    return (
        *TINY_SEAM,
        "--gin_file=gin/data/folder.gin",
        f"--gin_bindings=folder_source.root='{folder}'",
        "--gin_bindings=Recipe.train_split='all'",
        "--gin_bindings=Recipe.validation_split='all'",
        "--gin_bindings=Recipe.epochs=1",
        f"--run_dir={folder.parent / 'run'}",
    )


def test_own_pictures_with_a_broken_one(folder):
    broken = folder / "p3.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    user_error(run("train", *_folder_arguments(folder)), "p3", "skip_bad_images")
    skip = "--gin_bindings=Recipe.skip_bad_images=True"
    out = ok("train", *_folder_arguments(folder), skip)
    run_dir = folder.parent / "run"
    assert "1 bad image(s)" in out
    [[name, reason]] = json.loads((run_dir / "bad_images.json").read_text())
    assert name == "p3"
    assert reason
    out = ok("infer", f"--run_dir={run_dir}", "--split=all", "--scales=1")
    assert "5 written" in out

    # What the network calls cat would be called dog.
    (folder / "class_names.txt").write_text("background\ndog\ncat\n")
    longer = "--gin_bindings=Recipe.epochs=2"
    refused = run("train", *_folder_arguments(folder), skip, longer)
    user_error(refused, "background, cat, dog", "background, dog, cat", "another folder")
    assert (run_dir / "class_names.txt").read_text() == "background\ncat\ndog\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "p0.jpg").write_bytes(b""), ["p0"]),
        (lambda f: (f / "image_labels.csv").write_text("image,labels\np1.jpg,cat\n"), ["p0"]),
        (lambda f: (f / "class_names.txt").write_text("background\ncat\n"), ["dog", "cat"]),
        (lambda f: f.rename(f.with_name("moved")), ["own"]),
    ],
    ids=["empty file", "no labels", "unknown label", "missing folder"],
)
def test_own_pictures_that_cannot_be_used(folder, change, words):
    change(folder)
    user_error(run("train", *_folder_arguments(folder)), *words)
