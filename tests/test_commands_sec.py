"""SEC as a user runs it: classifiers, cues, segmentation network; and its scripts."""

import json

import numpy as np
import pytest
from as_user import ROOT, ok, run, run_script, script_ok, user_error
from scores_by_hand import masks_of, mean_iou
from untrained_run import untrained_run

from wsss_tf.data.shapes import shapes_source
from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder
from wsss_tf.files.calibration import Calibration, save_calibration
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs import training_run
from wsss_tf.runs.sec_cues import CueWriter, write_from_cams
from wsss_tf.runs.trained_network import load_network

TINY_FILE = str(ROOT / "tests/data/tiny_sec.gin")
TINY = f"--gin_file={TINY_FILE}"


def train(method, run_dir, *bindings):
    options = [f"--gin_bindings={binding}" for binding in bindings]
    return ok(
        "train", f"--gin_file=gin/{method}.gin", TINY, f"--run_dir={run_dir}",
        *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Both localisation networks, as they are before training."""
    folder = tmp_path_factory.mktemp("runs")
    names = ("background", *shapes_source("train", num_train=1, image_size=40).foreground_names)
    for name in ("foreground", "background"):
        untrained_run(folder / name, names, f"gin/sec_{name}.gin", TINY_FILE)
    return folder


@pytest.fixture(scope="module")
def cues(classifiers):
    out = ok(
        "cues",
        f"--foreground_run={classifiers / 'foreground'}",
        f"--background_run={classifiers / 'background'}",
        f"--output={classifiers / 'cues'}",
        "--npz",
    )
    assert "12 written, 0 kept" in out
    return classifiers / "cues"


@pytest.mark.large
def test_cues_imports_what_it_needs(classifiers, tmp_path):
    """The server of the other tests' commands has imported some of it for them."""
    runs = [f"--{name}_run={classifiers / name}" for name in ("foreground", "background")]
    assert "12 written, 0 kept" in ok("cues", *runs, f"--output={tmp_path / 'cues'}", fresh=True)


def test_the_second_classifier_starts_from_the_first(classifiers, capsys):
    weights = classifiers / "foreground/checkpoints/last.keras"
    binding = f"Recipe.initial_weights='{weights}'"
    recipe = recipe_lib.load(["gin/sec_background.gin", TINY_FILE], [binding])
    net = recipe.network(num_classes=4)
    training_run._initialise(net, recipe)
    assert "kept random: fc6_bg/bias" in capsys.readouterr().out
    first = load_network(classifiers / "foreground")
    for name in ("conv1_1", "conv5_3"):
        kernels = [network.get_layer(name).kernel for network in (net, first)]
        np.testing.assert_array_equal(*kernels)


@pytest.mark.large
def test_classifiers_are_trained_one_after_the_other(tmp_path):
    train("sec_foreground", tmp_path / "foreground")
    weights = tmp_path / "foreground/checkpoints/last.keras"
    out = train("sec_background", tmp_path / "background", f"Recipe.initial_weights='{weights}'")
    assert "kept random: fc6_bg/bias" in out
    runs = [f"--{name}_run={tmp_path / name}" for name in ("foreground", "background")]
    assert "12 written, 0 kept" in ok("cues", *runs, f"--output={tmp_path / 'cues'}")


def test_cues_of_the_classifiers(cues):
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
    out = ok("cues", f"--rows={cues}", "--grid=5", f"--output={cues}/again")
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
    ok(
        "cues",
        f"--cams={tmp_path}/cams",
        f"--gin_file={ROOT / 'gin/sec.gin'}",
        TINY,  # its network has a grid of 5 x 5
        f"--output={tmp_path}/c",
    )
    index = images.load_mask(tmp_path / "c/sub/a.png")
    np.testing.assert_array_equal(index[:3, :3], [[2, 2, 0], [2, 2, 0], [0, 0, 0]])


def test_cues_follow_the_threshold_of_the_maps(tmp_path, capsys):
    """As given, or as it was chosen for the run; numbers that are given have the last word."""
    values = np.float32([0, 0.15, 0.3, 0.45, 0.55, 0.7, 0.9, 1])  # on both sides of each number
    run_folder.save_cams(tmp_path / "cams", "a", [2], np.tile(values, (1, 8, 1)))

    def cues(**options):
        writer = CueWriter(tmp_path / "cues", overwrite=True)
        write_from_cams(writer, tmp_path / "cams", (8, 8), **options)
        return images.load_mask(tmp_path / "cues/a.png")[0].tolist()

    assert cues() == [0, 255, 2, 2, 2, 2, 2, 2]
    assert cues(maps_threshold=0.5) == [0, 0, 0, 255, 255, 2, 2, 2]
    save_calibration(tmp_path, Calibration(0.6, "colours"))
    assert cues() == [0, 0, 0, 0, 255, 255, 2, 2]
    assert "background below 0.465, a class above 0.708" in capsys.readouterr().out
    assert cues(maps_threshold=0.5) == [0, 0, 0, 255, 255, 2, 2, 2]
    assert cues(foreground_share=0.5) == [0, 0, 0, 0, 2, 2, 2, 2]
    with pytest.raises(UserError, match="threshold 0"):
        cues(maps_threshold=0.0)


@pytest.mark.large
def test_sec_from_cues_to_scores(cues, tmp_path):
    train("sec", tmp_path, f"sec_augmentation.cues='{cues}'")
    assert "dense_crf.crf_postprocess.bilateral_sxy = 80.0" in (tmp_path / "config.gin").read_text()
    ok("infer", f"--run_dir={tmp_path}", "--split=val")
    assert images.load_mask(tmp_path / "predictions/shapes_val_00000.png").shape == (40, 40)
    ok("evaluate", f"--run_dir={tmp_path}", "--split=val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    source = shapes_source("val", num_val=4, image_size=40)
    predictions = [images.load_mask(tmp_path / f"predictions/{name}.png") for name in source.ids]
    assert metrics["num_images"] == 4
    assert metrics["miou"] == pytest.approx(mean_iou(masks_of(source), predictions, 5), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--output"]),
        (["--output=o"], ["--foreground_run", "--cams", "--rows"]),
        (["--output=o", "--cams=a", "--rows=b"], ["or --rows"]),
        (["--output=o", "--foreground_run=a"], ["--background_run"]),
        (["--output=o", "--cams=a"], ["--gin_file", "--grid", "41"]),
        (["--output=o", "--cams=a", "--grid=5", "--gin_file=b"], ["one of them"]),
        (["--output=o", "--rows=b", "--maps_threshold=0.5"], ["nothing without --cams"]),
    ],
    ids=["output", "input", "two inputs", "one run", "no grid", "two grids", "no maps"],
)
def test_cues_command_refuses(options, words):
    user_error(run("cues", *options), *words)


def test_grid_that_does_not_fit(tmp_path):
    from wsss_tf.inference import sec_cues

    sec_cues.save_rows(tmp_path / "rows/a.npz", np.zeros((7, 7), np.uint8))
    options = (f"--rows={tmp_path}/rows", f"--output={tmp_path}/o", "--grid=5")
    user_error(run("cues", *options), "a.npz", "--grid=5")


# === The ablation ===


def test_ablation_says_what_it_would_run(tmp_path):
    out = script_ok(
        "ablate_sec",
        "--cues=c",
        f"--output={tmp_path}",
        "--dry_run",
        "--seeds=3",
        "--rows=sec,average",
        "--decays=0.9",
    )
    average = " ".join(f"sec_step.{x}_decay=1.0" for x in ("present", "absent", "background"))
    assert out.splitlines() == [
        f"{tmp_path / 'sec_3'}: the recipe's",
        f"{tmp_path / 'average_3'}: {average}",
        f"{tmp_path / 'present_0.9_3'}: sec_step.present_decay=0.9",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.large
def test_ablation_trains_once_and_scores_each_split(cues, tmp_path):
    arguments = (
        "--rows=no_constrain", "--seeds=0", TINY, f"--cues={cues}", f"--output={tmp_path}",
        "--postprocess",
    )  # fmt: skip
    out = script_ok("ablate_sec", *arguments)
    trained = (tmp_path / "no_constrain_0/checkpoints/last.keras").stat().st_mtime_ns
    script_ok("ablate_sec", *arguments, "--split=train")
    scores = json.loads((tmp_path / "no_constrain_0/scores.json").read_text())
    assert scores.keys() == {"train_seconds", "val", "train"}
    for split in ("val", "train"):
        assert scores[split].keys() == {"logits", "postprocessed"}
    assert scores["val"]["logits"]["pixel_accuracy"] != scores["train"]["logits"]["pixel_accuracy"]
    assert f"{100 * scores['val']['logits']['miou']:.2f}" in out
    assert (tmp_path / "no_constrain_0/checkpoints/last.keras").stat().st_mtime_ns == trained


def test_ablation_tables_what_has_been_run(tmp_path):
    scores = {"sec_0": 0.5, "sec_1": 0.6, "present_0.9_0": 0.25, "present_0.9_1": 0.25}
    for name, miou in scores.items():
        run_folder.write_json(
            tmp_path / name / "scores.json",
            {
                "train_seconds": 90,
                "val": {
                    "logits": {"miou": miou, "pixel_accuracy": miou + 0.1},
                    "postprocessed": {"miou": miou + 0.2, "pixel_accuracy": miou + 0.3},
                },
            },
        )
    out = script_ok(
        "ablate_sec",
        "--cues=c",
        f"--output={tmp_path}",
        "--seeds=0,1",
        "--rows=sec",
        "--decays=0.9",
    )
    assert "| mIoU after the postprocess |" in out
    row = "| seed + expand + constrain | 55.00 ± 7.07 | 65.00 ± 7.07 | 75.00 ± 7.07 | 2 | 1.5 |"
    assert row in out
    assert "classes | 25.00 ± 0.00 | 35.00 ± 0.00 | 45.00 ± 0.00 | 2 | 1.5 |" in out
    assert (tmp_path / "table.md").read_text() == out
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[0] == "row,seed,output,miou,pixel_accuracy,train_seconds"
    assert rows[3:5] == [
        "sec,1,logits,0.6000,0.7000,90",
        "sec,1,postprocessed,0.8000,0.9000,90",
    ]
    assert "paper" not in out
    assert len(rows) == 1 + 4 * 2
    assert (tmp_path / "table.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output=o"], ["--cues"]),
        (["--output=o", "--cues=c", "--rows=huh"], ["huh", "no_seed"]),
        (["--output=o", "--cues=c", "--decays=2"], ["--decays=2"]),
    ],
    ids=["cues", "row", "decay"],
)
def test_ablation_refuses(options, words):
    user_error(run_script("ablate_sec", *options), *words)
