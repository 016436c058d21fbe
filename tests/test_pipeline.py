"""From image labels to a SavedModel through the command, as a user runs it."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from as_user import ROOT, ok, run, start, user_error
from PIL import Image

TINY = (
    "--gin_file=tests/data/tiny_pipeline.gin",
    "--gin_bindings=cam/Recipe.epochs=4",
    "--gin_bindings=Recipe.validation_images=0",
)
STAGES = (
    "cam", "cams", "crf", "affinity", "walk", "segmentation", "segmentation_scores", "export",
    "label_scores", "report",
)  # fmt: skip


def _ok(*arguments):
    return ok("pipeline", *arguments, cwd=ROOT)


def _until_killed(*arguments, at):
    """Start the pipeline and kill it as soon as a file or folder is there."""
    process = start("pipeline", *arguments, cwd=ROOT)
    deadline = time.monotonic() + 300
    while not at():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _stages(out):
    """Return {stage: what is said of it} of a run's output."""
    lines = (line for line in out.splitlines() if line.startswith("=== "))
    return dict(line.removeprefix("=== ").split(": ", 1) for line in lines)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed while it trained the first network."""
    run_dir = tmp_path_factory.mktemp("pipeline") / "run"
    checkpoint = run_dir / "cam/checkpoints/step-3.index"
    _until_killed(*TINY, f"--run_dir={run_dir}", at=checkpoint.is_file)
    return run_dir, json.loads((run_dir / "stages/cam.json").read_text())["state"]


@pytest.fixture(scope="module")
def finished(killed):
    """The same run, gone on to its end; and what was printed."""
    run_dir, _ = killed
    return run_dir, _ok(*TINY, f"--run_dir={run_dir}")


def test_a_killed_run_has_a_record_of_what_it_did(killed):
    run_dir, state = killed
    assert state == "started"
    assert not (run_dir / "stages/cams.json").exists()


def test_a_killed_run_goes_on(finished):
    run_dir, out = finished
    assert _stages(out) == dict.fromkeys(STAGES, "running.") | {"cam": "running, going on."}
    assert list(_stages(out)) == [*STAGES]
    assert "went on from step" in out
    assert (run_dir / "cam/checkpoints/step-12.index").is_file()
    assert len(list((run_dir / "cam/crf_low_labels").glob("*.png"))) == 12
    # What it does can be done by hand.
    assert f"python -m wsss_tf.infer --run_dir={run_dir}/cam --split=train --scales=1 --flip" in out


def test_the_network_learns_the_labels_of_the_walk(finished):
    run_dir, out = finished
    assert "loss_neg" in out  # of AffinityNet
    assert len(list((run_dir / "affinity/pseudo_labels").glob("*.png"))) == 12
    assert f"pseudo labels of {run_dir}/affinity/pseudo_labels" in out
    assert (run_dir / "segmentation/checkpoints/last.keras").is_file()


def test_the_network_is_scored_and_exported(finished):
    run_dir = finished[0]
    assert json.loads((run_dir / "segmentation/metrics_val.json").read_text())["num_images"] == 6
    assert [path.name for path in (run_dir / "export").glob("[!.]*")] == ["1"]


def test_results(finished):
    run_dir, out = finished
    data = json.loads((run_dir / "results.json").read_text())
    assert [row["split"] for row in data["rows"]] == ["train"] * 4 + ["val"]
    assert [row["images"] for row in data["rows"]] == [12] * 4 + [6]
    val = json.loads((run_dir / "segmentation/metrics_val.json").read_text())
    cam = json.loads((run_dir / "cam/metrics_train.json").read_text())
    assert [data["rows"][-1]["miou"], data["rows"][0]["miou"]] == [val["miou"], cam["miou"]]
    assert (run_dir / "results.md").read_text() in out
    assert set(data["minutes"]) == {*STAGES} - {"report"}
    assert "label_scores: done in" in out
    page = (run_dir / "report.html").read_text()
    assert page.count("<article>") == 3
    assert "type='range'" in page
    assert page.count("<figcaption>trained network</figcaption>") == 3


def test_the_export_gives_the_masks_of_the_network(finished):
    import tensorflow as tf

    from wsss_tf.files import images

    run_dir = finished[0]
    model = tf.saved_model.load(run_dir / "export/1")
    picture = next((run_dir / "shown/pictures").glob("*.png"))
    served = model.signatures["serving_default"](image_bytes=tf.constant([picture.read_bytes()]))
    mask = images.decode_mask(served["mask_bytes"][0]).numpy()
    assert mask.shape == (48, 48)
    assert mask.max() < 5


def test_again_everything_is_skipped(finished):
    run_dir, before = finished
    table = (run_dir / "results.md").read_text()
    out = _ok(*TINY, f"--run_dir={run_dir}")
    assert _stages(out) == dict.fromkeys(STAGES, "up to date.")
    assert "python -m" not in out
    assert table in out
    assert out.splitlines()[-2:] == before.splitlines()[-2:]


def test_a_threshold_that_is_chosen_on_the_way(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    # The stages of both have the same folders, and here the same maps and the same chosen labels.
    flags = ("--gin_file=tests/data/tiny_calibrated.gin", *TINY[1:], f"--run_dir={run_dir}")
    out = _ok(*flags, "--until=crf")
    assert _stages(out) == {
        "cam": "up to date.", "cams": "up to date.", "calibrate": "running.",
        "crf": "running, made again: flags: no longer --crf_powers=4,24.",
    }  # fmt: skip
    chosen = json.loads((run_dir / "cam/calibration.json").read_text())
    assert chosen["chosen_by"] == "the colours of 12 pictures of split 'train'"
    crf = json.loads((run_dir / "stages/crf.json").read_text())
    assert "background_threshold" not in str(crf)


@pytest.mark.large
@pytest.mark.parametrize("method", ["cpnet_pascal_context", "sanet_pascal_context"])
def test_another_network_at_the_end(finished, tmp_path, method):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    files = f"('gin/{method}.gin', 'tests/data/tiny_attention.gin', 'tests/data/tiny_scenes.gin')"
    recipe = f"--gin_bindings=segmentation/train_stage.recipe={files}"
    out = _ok(*TINY, recipe, f"--run_dir={run_dir}", "--until=segmentation_scores")
    said = _stages(out)
    assert [name for name, what in said.items() if what != "up to date."] == [
        "segmentation", "segmentation_scores"
    ]  # fmt: skip
    assert f"pseudo labels of {run_dir}/affinity/pseudo_labels" in out
    config = (run_dir / "segmentation/config.gin").read_text()
    assert f"{method.partition('_')[0]}_network.backbone = @tiny_backbone.tiny_backbone" in config
    assert json.loads((run_dir / "segmentation/metrics_val.json").read_text())["num_images"] == 6


def test_a_changed_binding_redoes_what_depends_on_it(finished):
    run_dir = finished[0]
    other = "--gin_bindings=walk_stage.steps=5"
    said = _stages(_ok(*TINY, other, f"--run_dir={run_dir}", "--dry_run"))
    redone = ["walk", "segmentation", "segmentation_scores", "export", "label_scores", "report"]
    assert [name for name, what in said.items() if what != "up to date."] == redone
    assert said["walk"] == "to do, made again: flags: now --walk_steps=5."


@pytest.mark.large
def test_a_changed_binding_leaves_what_does_not_depend_on_it(finished):
    run_dir = finished[0]
    other = "--gin_bindings=walk_stage.steps=5"
    kept = [run_dir / name for name in ("affinity/checkpoints/last.keras", "results.json")]
    kept += [run_dir / f"stages/{name}.json" for name in ("affinity", "segmentation")]
    before = [path.stat().st_mtime_ns for path in kept]
    said = _stages(_ok(*TINY, other, f"--run_dir={run_dir}", "--until=walk"))
    *done, last = said.items()
    assert done == [(name, "up to date.") for name in STAGES[: STAGES.index("walk")]]
    assert last[0] == "walk"
    assert last[1].startswith("running, made again")
    assert len(list((run_dir / "affinity/pseudo_labels").glob("*.png"))) == 12
    assert [path.stat().st_mtime_ns for path in kept] == before  # nor what comes after it


# === SEC ===

SEC = ("--gin_file=tests/data/tiny_sec_pipeline.gin",)
SEC_STAGES = (
    "foreground", "background", "cues", "segmentation", "segmentation_scores", "masks", "export",
    "label_scores", "report",
)  # fmt: skip


@pytest.mark.large
def test_sec_is_one_command_that_goes_on_after_a_kill(tmp_path):
    run_dir = tmp_path / "run"
    cues = run_dir / "cues"
    _until_killed(*SEC, f"--run_dir={run_dir}", at=lambda: any(cues.glob("[!.]*.png")))
    assert json.loads((run_dir / "stages/cues.json").read_text())["state"] == "started"
    # As a user starts it: a server of its own runs its commands.
    out = ok("pipeline", *SEC, f"--run_dir={run_dir}", cwd=ROOT, fresh=True)
    said = dict.fromkeys(SEC_STAGES, "running.")
    done = dict.fromkeys(("foreground", "background"), "up to date.")
    assert _stages(out) == {**said, **done, "cues": "running, going on."}
    assert f"python -m wsss_tf.cues --foreground_run={run_dir}/foreground" in out
    assert "cues: done in more than " in out
    assert len(list(cues.glob("[!.]*.png"))) == 12
    # The second classifier has started from the first.
    assert "foreground/checkpoints/last.keras" in (run_dir / "background/config.gin").read_text()

    data = json.loads((run_dir / "results.json").read_text())
    assert [(row["split"], row["images"]) for row in data["rows"]] == [("train", 12), ("val", 4)]
    assert set(data["minutes"]) == {*SEC_STAGES} - {"report"}
    page = (run_dir / "report.html").read_text()
    assert page.count("<figcaption>localisation cues</figcaption>") == 3
    assert page.count("<figcaption>trained network</figcaption>") == 3
    assert f"masks of the pictures: {run_dir}/masks/predictions" in out
    assert len(list((run_dir / "masks/predictions").glob("*.png"))) == 12
    assert (run_dir / "export/1/saved_model.pb").is_file()
    again = _ok(*SEC, f"--run_dir={run_dir}", "--dry_run")
    assert _stages(again) == dict.fromkeys(SEC_STAGES, "up to date.")


@pytest.mark.large
def test_a_user_error_in_a_stage_ends_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        picture = Image.fromarray(rng.integers(0, 255, (40, 52, 3), dtype=np.uint8))
        picture.save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:900])
    (tmp_path / "image_labels.csv").write_text("image,labels\n0,cat\n1,dog\n2,cat\n3,dog\n")
    arguments = (*TINY, f"--data={tmp_path}", f"--run_dir={tmp_path / 'run'}")
    result = run("pipeline", *arguments, cwd=ROOT)
    user_error(result, "2.png")
    assert list(_stages(result.stdout)) == ["cam"]


def test_wrong_flags_end_in_one_line(tmp_path):
    for arguments, word in [
        ((*TINY,), "--run_dir"),
        ((*TINY, f"--run_dir={tmp_path}", "--until=nothing"), "--until=nothing"),
    ]:
        user_error(run("pipeline", *arguments, cwd=ROOT), word)
    assert not list(tmp_path.iterdir())
