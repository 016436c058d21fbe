"""IRN's chain of stages: what it consists of, and a run of it as a user starts it."""

import json

import numpy as np
import pytest
from as_user import ROOT, ok, run_script, user_error
from test_pipelines_plan import make, prepare
from untrained_run import untrained_run

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.settings import load_pipeline

TINY = ["tests/data/tiny_irn_pipeline.gin"]


@pytest.fixture(autouse=True)
def _prepared(monkeypatch):
    prepare(monkeypatch)


def commands(plan):
    return {stage.name: stage.steps[0] for stage in plan.stages}


def test_stages_and_their_commands():
    plan = make(files=TINY)
    stages = commands(plan)
    assert list(stages) == [
        "cam", "cams", "ir_labels", "irn", "walk", "segmentation", "segmentation_scores", "export",
        "label_scores", "report",
    ]  # fmt: skip
    assert stages["ir_labels"] == (
        *("ir_labels", "--run_dir=RUN/cam", "--split=train", "--ir_thresholds=0.05,0.3"),
        *("--ir_confidence=0.7", "--crf_iterations=10", "--crf_scale=1"),
    )
    assert '--gin_bindings=with_ir_labels.cam_run="RUN/cam"' in stages["irn"]
    assert stages["walk"] == (
        *("walk", "--run_dir=RUN/cam", "--split=train", "--affinity_run=RUN/irn"),
        *("--walk_threshold=0.25", "--affinity_power=10", "--walk_steps=4", "--nowalk_crf"),
    )
    assert '--gin_bindings=Recipe.pseudo_labels="RUN/irn/pseudo_labels"' in stages["segmentation"]
    assert "random walk" in plan.planned["walk"].scored


def test_thresholds_follow_the_maps_where_they_are_not_given():
    other = commands(make("cams_stage.background_threshold=0.5", files=TINY))
    [flag] = [flag for flag in other["ir_labels"] if flag.startswith("--ir_thresholds=")]
    low, high = map(float, flag.removeprefix("--ir_thresholds=").split(","))
    # As 0.05 and 0.3 lie beside 0.15, by their odds.
    assert (low, high) == pytest.approx((0.2297, 0.7083), abs=1e-4)
    assert "--walk_threshold=0.6538" in other["walk"]
    walk = "walk_stage.odds=None", "walk_stage.threshold=0.3"
    bindings = "ir_labels_stage.thresholds=(0.1,0.4)", *walk
    given = commands(make(*bindings, files=TINY))
    assert "--ir_thresholds=0.1,0.4" in given["ir_labels"]
    assert "--walk_threshold=0.3" in given["walk"]
    by_odds = "ir_labels_stage.odds=(0.25,4)", "walk_stage.weigh_start=False"
    odds = commands(make("cams_stage.background_threshold=0.5", *by_odds, files=TINY))
    assert "--ir_thresholds=0.2,0.8" in odds["ir_labels"]
    assert "--nowalk_weigh_start" in odds["walk"]
    # A walk on the CAMs of another network is no other walk.
    from_seam = "cam/train_stage.recipe=('gin/seam.gin','tests/data/tiny.gin')"
    assert list(commands(make(from_seam, files=TINY))) == list(given)


@pytest.mark.parametrize(
    ("binding", "word"),
    [
        ("ir_labels_stage.thresholds=(0.4,0.1)", "ir_labels_stage.thresholds"),
        ("ir_labels_stage.confidence=1.5", "ir_labels_stage.confidence"),
        ("ir_labels_stage.odds=(2,)", "ir_labels_stage.odds"),
        ("walk_stage.odds=-1.5", "walk_stage.odds"),
        ("walk_stage.maps='nothing'", "walk_stage.maps = 'nothing'"),
    ],
)
def test_settings_that_cannot_be(binding, word):
    with pytest.raises(UserError, match=word):
        make(binding, files=TINY)


@pytest.mark.parametrize("name", ["irn", "irn_photos"])
def test_the_pipelines_load(name):
    pipeline = load_pipeline([f"gin/pipelines/{name}.gin"], [])
    names = [stage.name for stage in pipeline.stages]
    chosen = ["calibrate"] if name == "irn_photos" else []
    assert names[: names.index("segmentation")] == [
        "cam",
        "cams",
        *chosen,
        "ir_labels",
        "irn",
        "walk",
    ]


def test_a_threshold_that_is_chosen_is_followed_by_the_commands():
    files = ["gin/pipelines/irn_photos.gin", "gin/data/shapes.gin"]
    few = ("shapes_source.num_train=8", "shapes_source.num_val=4", "shapes_source.image_size=48")
    stages = {stage.name: stage for stage in make(*few, files=files).stages}
    assert stages["ir_labels"].after == ("calibrate",)
    assert stages["walk"].after == ("calibrate", "irn")
    flags = [*stages["ir_labels"].inputs["flags"], *stages["walk"].inputs["flags"]]
    assert not any("threshold" in flag or "background" in flag for flag in flags)
    assert {"--ir_odds=0.72,1.38", "--walk_odds=1.4"} <= set(flags)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of the chain as far as the walk, and what was printed."""
    path = tmp_path_factory.mktemp("irn") / "run"
    flags = f"--gin_file={TINY[0]}", f"--run_dir={path}", "--until=walk"
    return path, ok("pipeline", *flags, cwd=ROOT)


def check_labels(run_dir, out):
    """Check the files of the chain as far as the walk, and what was said of them."""
    cam, irn = RunFolder(run_dir / "cam"), RunFolder(run_dir / "irn")
    assert "labels for IRN: 12 written, 0 kept" in out
    assert "random walk: 12 written, 0 kept" in out
    ids = sorted(path.stem for path in irn.pseudo_labels.glob("*.png"))
    assert len(ids) == 12
    for image_id in ids:
        class_ids, _ = cam.read_cams(image_id, (48, 48))
        assert cam.read_strided_cams(image_id).shape == (len(class_ids), 12, 12)
        for path, others in ((cam.ir_label(image_id), {0, 255}), (irn.pseudo_label(image_id), {0})):
            mask = images.load_mask(path)
            assert mask.shape == (48, 48)
            assert set(np.unique(mask)) <= {*others, *class_ids.tolist()}


def test_commands_of_the_stages_as_far_as_the_labels(tmp_path):
    names = ("background", "cross", "stripes", "ring", "checker")
    for name, recipe in (("cam", "irn_cam"), ("irn", "irn")):
        untrained_run(tmp_path / name, names, f"gin/{recipe}.gin", f"tests/data/tiny_{recipe}.gin")
    steps, out = commands(make(files=TINY)), ""
    for stage in ("cams", "ir_labels", "walk"):
        name, *flags = (part.replace("=RUN/", f"={tmp_path}/") for part in steps[stage])
        out += ok(name, *flags, cwd=ROOT)
    check_labels(tmp_path, out)


@pytest.mark.large
def test_a_run_as_far_as_the_labels(run_dir):
    check_labels(*run_dir)
    run_dir, _ = run_dir
    assert json.loads((run_dir / "stages/walk.json").read_text())["state"] == "finished"
    assert "irn_augmentation.crop_size" in RunFolder(run_dir / "irn").config.read_text()


# === The ablation ===


def ablation(run_dir, output, *arguments):
    given = [f"--cam_run={run_dir}/cam", f"--output={output}"]
    given += ["--irn_gin_file=tests/data/tiny_irn.gin", "--irn_walk=10,4"]
    given += ["--affinity_gin_file=tests/data/tiny_affinity.gin", *arguments]
    return run_script("ablate_irn", *given, cwd=ROOT)


def test_dry_run_lists_the_runs(tmp_path):
    (tmp_path / "cam").mkdir()
    more = "--radii=5,15", f"--plain_cam_run={tmp_path}/plain", "--seeds=0,3", "--dry_run"
    result = ablation(tmp_path, tmp_path / "out", *more)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    names = [line.partition(":")[0].rpartition("/")[2] for line in lines]
    rows = ["affinitynet", "irn", "displacement", "radius_5", "radius_15", "affinitynet_plain"]
    assert names == [f"{row}_{seed}" for seed in (0, 3) for row in [*rows, "irn_plain"]]
    assert lines[2].endswith("gin/irn.gin irn_network.displacement=True")
    assert lines[0].endswith("gin/affinity.gin")
    assert not (tmp_path / "out").exists()
    for wrong, word in [
        ("--radii=1", "--radii=1"),
        ("--irn_walk=10", "--irn_walk=10"),
    ]:
        user_error(ablation(tmp_path, tmp_path / "out", wrong, "--dry_run"), word)


@pytest.mark.large
def test_a_row_is_trained_and_scored(run_dir, tmp_path):
    arguments = "--rows=irn", "--seeds=0"
    result = ablation(run_dir[0], tmp_path, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    scores = json.loads((tmp_path / "irn_0/scores.json").read_text())["train, power 10, 4 steps"]
    assert 0 < scores["followed"] <= scores["best"] < 1
    assert scores["followed_threshold"] == pytest.approx(0.25)
    assert (tmp_path / "table.md").read_text().count("| IRN |") == 1
    assert "done" in ablation(run_dir[0], tmp_path, *arguments, "--dry_run").stdout
