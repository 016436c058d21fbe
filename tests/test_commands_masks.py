"""Networks that predict masks, through the commands, as a user runs them."""

import json
import shutil

import numpy as np
import pytest
from as_user import ROOT, kill_when, ok, run, user_error, weights_of
from PIL import Image
from scores_by_hand import masks_of, mean_iou

from wsss_tf.data.shapes import shapes_source
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs import training_run

TINY = ("--gin_file=gin/deeplab.gin", f"--gin_file={ROOT / 'tests/data/tiny_masks.gin'}")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished tiny run on the data set's masks, started from another folder."""
    folder = tmp_path_factory.mktemp("runs")
    out = ok("train", *TINY, "--run_dir=tiny", cwd=folder)
    assert "masks of the data set; 7 steps of 4, 3 an epoch" in out
    assert "val_miou" in out
    return folder / "tiny"


def test_a_run_of_a_number_of_steps_ends_there(run_dir):
    names = {path.name for path in (run_dir / "checkpoints").glob("step-*.index")}
    assert names == {"step-6.index", "step-7.index"}
    assert "nothing to do" in ok("train", *TINY, f"--run_dir={run_dir}")


def test_tensorboard_shows_masks_and_scores(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), {"images": 0, "tensors": 0})
    events.Reload()
    tags = {tag for tags in events.Tags().values() if isinstance(tags, list) for tag in tags}
    assert {"masks", "validation/miou", "validation/pixel_accuracy"} <= tags


def test_config_keeps_what_inference_reads(run_dir):
    text = (run_dir / "config.gin").read_text()
    # Validation runs one scale; the recipe's own must survive it.
    assert "multi_scale_predictor.scales = (0.75, 1.0)" in text
    assert "multi_scale_predictor.flip = True" in text
    assert "tiny_network.roll.places = 1" in text


def test_infer_evaluate_and_their_files(run_dir):
    out = ok("infer", f"--run_dir={run_dir}", "--split=val")
    assert "6 written, 0 kept" in out
    paths = sorted((run_dir / "predictions").glob("*.png"))
    assert len(paths) == 6
    mask = images.load_mask(paths[0])
    assert mask.shape == (48, 48)
    assert mask.max() < 5
    with Image.open(paths[0]) as picture:
        assert picture.mode == "P"

    paths[3].unlink()
    plain = ["--nopostprocess", "--scales=1", "--noflip"]
    assert "1 written, 5 kept" in ok("infer", f"--run_dir={run_dir}", "--split=val", *plain)
    out = ok("evaluate", f"--run_dir={run_dir}", "--split=val")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["num_images"], metrics["split"]) == (6, "val")
    assert "sweep" not in metrics
    source = shapes_source("val", num_train=12, num_val=6, image_size=48)
    predictions = [images.load_mask(run_dir / f"predictions/{name}.png") for name in source.ids]
    assert metrics["miou"] == pytest.approx(mean_iou(masks_of(source), predictions, 5), abs=1e-9)
    page = (run_dir / "report.html").read_text()
    assert page.count("<figcaption>prediction</figcaption>") == 6
    assert "background threshold" not in page
    assert "http" not in page
    assert "report.html" in out

    ok("infer", f"--run_dir={run_dir}", "--split=test", *plain)
    ok("evaluate", f"--run_dir={run_dir}", "--split=test")
    last = json.loads((run_dir / "metrics.json").read_text())
    assert last == json.loads((run_dir / "metrics_test.json").read_text())
    assert metrics == json.loads((run_dir / "metrics_val.json").read_text())
    assert last["split"] == "test"
    assert (run_dir / "report_val.html").read_text() == page


def test_infer_on_a_folder_and_the_recipes_postprocess(run_dir, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (37, 45, 3), dtype=np.uint8)).save(tmp_path / "in/a.jpg")
    Image.fromarray(rng.integers(0, 255, (20, 31), dtype=np.uint8)).save(tmp_path / "in/sub/b.png")
    for name in ("with", "without"):
        flag = [] if name == "with" else ["--nopostprocess"]
        arguments = [f"--run_dir={run_dir}", f"--input={tmp_path / 'in'}", *flag]
        ok("infer", *arguments, f"--output={tmp_path / name}", "--overlays")
    for image_id, shape in (("a", (37, 45)), ("sub/b", (20, 31))):
        masks = [
            images.load_mask(tmp_path / name / f"predictions/{image_id}.png")
            for name in ("with", "without")
        ]
        assert masks[0].shape == shape
        assert (tmp_path / f"with/overlays/{image_id}.jpg").is_file()
        np.testing.assert_array_equal(masks[0], (masks[1] + 1) % 5)


@pytest.mark.large
def test_export_gives_the_masks_of_infer(run_dir, tmp_path):
    """What a SavedModel answers in detail is in test_serving_saved_model.py."""
    import tensorflow as tf

    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a", (40, 52, 3)), ("b", (30, 21, 3))):
        picture = rng.integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"in/{name}.png")
    options = ["--flip", "--scales=0.5,1", "--max_side=45"]  # a is larger
    out = ok("export", f"--run_dir={run_dir}", f"--output={tmp_path / 'models'}", *options)
    assert "postprocess is left out" in out
    ok(
        "infer", f"--run_dir={run_dir}", f"--input={tmp_path / 'in'}", "--nopostprocess",
        f"--output={tmp_path / 'out'}", *options,
    )  # fmt: skip
    model = tf.saved_model.load(tmp_path / "models/1")
    contents = [(tmp_path / f"in/{name}.png").read_bytes() for name in "ab"]
    out = model.signatures["serving_default"](image_bytes=tf.constant(contents))
    for name, mask in zip("ab", out["mask_bytes"]):
        expected = images.load_mask(tmp_path / f"out/predictions/{name}.png")
        np.testing.assert_array_equal(images.decode_mask(mask), expected)


def test_export_refuses_flags_of_cams(run_dir, tmp_path):
    for flag, *words in (
        ("--background_threshold=0.3", "--background_threshold", "predicts masks"),
        ("--crf", "--crf", "no dense CRF"),  # the recipe's postprocess is another one
    ):
        result = run("export", f"--run_dir={run_dir}", f"--output={tmp_path / 'models'}", flag)
        user_error(result, *words)


@pytest.mark.large
def test_export_with_the_crf_gives_the_masks_of_infer(run_dir, tmp_path):
    import tensorflow as tf

    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    config = (copy / "config.gin").read_text()
    config = config.replace("@tiny_network.roll", "@dense_crf.crf_postprocess")
    line = "from wsss_tf.inference import dense_crf\n"
    at = config.index("from wsss_tf.")
    (copy / "config.gin").write_text(config[:at] + line + config[at:])
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (6, 8, 3)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "in/a.png")
    run_flags, options = f"--run_dir={copy}", ["--max_side=60"]
    out = ok("export", run_flags, f"--output={tmp_path / 'models'}", "--crf", *options)
    assert "postprocess: dense CRF" in out
    ok("infer", run_flags, f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *options)
    model = tf.saved_model.load(tmp_path / "models/1")
    contents = tf.constant([(tmp_path / "in/a.png").read_bytes()])
    mask = images.decode_mask(
        model.signatures["serving_default"](image_bytes=contents)["mask_bytes"][0]
    )
    expected = images.load_mask(tmp_path / "out/predictions/a.png")
    assert (mask.numpy() == expected).mean() > 0.999
    # This network sees background only, so that masks alone would not show a CRF.
    assert b"SparseTensorDenseMatMul" in (tmp_path / "models/1/saved_model.pb").read_bytes()


@pytest.mark.large
def test_trains_on_pseudo_labels_and_validates_on_masks(run_dir, tmp_path):
    # The first run's predictions are the second one's pseudo labels.
    labels = tmp_path / "first"
    ok("infer", f"--run_dir={run_dir}", "--split=train", f"--output={labels}", "--scales=1")
    labels = labels / "predictions"
    out = ok(
        "train", *TINY, f"--run_dir={tmp_path / 'second'}", "--gin_bindings=Recipe.steps=2",
        f"--gin_bindings=Recipe.pseudo_labels='{labels}'",
    )  # fmt: skip
    assert f"pseudo labels of {labels}" in out
    assert "val_miou" in out
    # Inference of any split works without pseudo labels for it.
    ok("infer", f"--run_dir={tmp_path / 'second'}", "--split=val", "--scales=1")


@pytest.mark.large
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    arguments = (
        *TINY,
        "--gin_bindings=Recipe.steps=28",  # nine epochs of three steps, and one
        "--gin_bindings=Recipe.deterministic=True",
        "--gin_bindings=Recipe.validation_split=None",
    )
    ok("train", *arguments, f"--run_dir={tmp_path / 'whole'}")
    killed = tmp_path / "killed"
    kill_when(killed / "checkpoints/step-6.index", "train", *arguments, f"--run_dir={killed}")
    assert not (killed / "checkpoints/step-28.index").is_file()
    assert "went on from step" in ok("train", *arguments, f"--run_dir={killed}")
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(killed)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


# === Data without a background class ===


@pytest.mark.large
def test_classes_without_background(tmp_path):
    rng = np.random.default_rng(0)
    own = tmp_path / "own"
    (own / "JPEGImages").mkdir(parents=True)
    for i in range(4):
        mask = np.repeat(np.arange(4) % 3, 10)[None].repeat(36, 0)
        mask[:5] = 255
        images.save_mask(own / f"SegmentationClass/p{i}.png", mask)
        picture = mask[..., None] * np.uint8([90, 40, 0]) + rng.integers(0, 40, (36, 40, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(own / f"JPEGImages/p{i}.png")
    (own / "class_names.txt").write_text("road\nsky\ntree\n")
    ok(
        "train", *TINY, "--gin_file=gin/data/folder.gin", "--run_dir=run",
        f"--gin_bindings=folder_source.root='{own}'",
        "--gin_bindings=Recipe.train_split='all'",
        "--gin_bindings=Recipe.validation_split='all'",
        cwd=tmp_path,
    )  # fmt: skip
    ok("infer", "--run_dir=run", "--split=all", "--nopostprocess", cwd=tmp_path)
    ok("evaluate", "--run_dir=run", cwd=tmp_path)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics["iou"]) == ["road", "sky", "tree"]
    assert metrics["ignored_pixels"] == 4 * 5 * 40
    assert images.load_mask(tmp_path / "run/predictions/p0.png").max() <= 2


# === Bad input ===


def _refused(tmp_path, *bindings):
    """Return the message with which a run ends, without the seconds that a process takes."""
    with pytest.raises(UserError) as error:
        training_run.train(recipe_lib.load(_tiny_files(), bindings), tmp_path)
    return str(error.value)


def _tiny_files():
    return [flag.removeprefix("--gin_file=") for flag in TINY]


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (["Recipe.pseudo_labels='nowhere'"], ["nowhere", "no such folder"]),
        (
            ["Recipe.weakly_supervised=True", "Recipe.pseudo_labels='x'"],
            ["Recipe.pseudo_labels", "image labels"],
        ),
        (["Recipe.steps=0"], ["0 steps"]),
        (["multi_scale_predictor.image_resize='cubic'"], ["'cubic'"]),
    ],
    ids=["folder", "weak", "steps", "resize"],
)
def test_train_refuses(bindings, words, tmp_path):
    message = _refused(tmp_path, *bindings)
    assert all(word in message for word in words)


def test_pseudo_labels_that_do_not_fit(tmp_path):
    recipe = recipe_lib.load(_tiny_files())
    for image_id in recipe.source(split="train").ids:
        images.save_mask(tmp_path / f"labels/{image_id}.png", np.zeros((48, 48), int))
    binding = f"Recipe.pseudo_labels='{tmp_path / 'labels'}'"
    path = tmp_path / "labels/shapes_train_00004.png"
    images.save_mask(path, np.full((48, 48), 5))
    message = _refused(tmp_path, binding)
    assert all(word in message for word in (str(path), "value 5", "5 classes"))
    path.unlink()
    message = _refused(tmp_path, binding)
    assert all(word in message for word in (str(path), "1 of 12", "wsss_tf.infer"))


def test_images_that_were_left_out_need_no_pseudo_label(tmp_path):
    root, labels = tmp_path / "own", tmp_path / "labels"
    root.mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / f"{name}.png")
        images.save_mask(labels / f"{name}.png", np.zeros((8, 8), np.uint8))
    (root / "image_labels.csv").write_text("image,labels\na,cat\nb,cat\nc,cat\n")
    (root / "b.png").write_bytes(b"damaged")
    (labels / "b.png").unlink()
    bindings = [
        f"folder_source.root='{root}'",
        "Recipe.train_split='all'",
        f"Recipe.pseudo_labels='{labels}'",
    ]
    files = [*_tiny_files(), "gin/data/folder.gin"]
    recipe = recipe_lib.load(files, [*bindings, "Recipe.skip_bad_images=True"])
    assert training_run._training_source(recipe, tmp_path / "run").ids == ("a", "c")
    # Where no label is missing, nothing is decoded before images and labels are checked together.
    images.save_mask(labels / "b.png", np.zeros((8, 8), np.uint8))
    assert training_run._training_source(recipe, tmp_path / "new").ids == ("a", "b", "c")
    assert not (tmp_path / "new").exists()
    (labels / "b.png").unlink()
    recipe = recipe_lib.load(files, bindings)
    with pytest.raises(UserError, match="1 of 3 images"):
        training_run._training_source(recipe, tmp_path / "run")


def test_a_source_without_masks_cannot_be_learnt_with_supervision(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "image_labels.csv").write_text("image,labels\na.png,cat\n")
    files = [*_tiny_files(), "gin/data/folder.gin"]
    bindings = [f"folder_source.root='{tmp_path}'", "Recipe.train_split='all'"]
    with pytest.raises(UserError, match=r"'all' has no masks to train on.*Recipe\.pseudo_labels"):
        training_run.train(recipe_lib.load(files, bindings), tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "flag"),
    [("infer", "--cam_output=cam"), ("evaluate", "--background_threshold=0.3")],
)
def test_flags_of_cams_are_refused(run_dir, command, flag):
    result = run(command, f"--run_dir={run_dir}", "--split=val", flag)
    user_error(result, flag.split("=")[0])
