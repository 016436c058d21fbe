"""The ablation script: what tables consist of, sharing of runs, and a tiny run from end to end."""

import csv
import importlib.util
import json
import sys

import numpy as np
import pytest
from as_user import ROOT, run_script, user_error
from PIL import Image

SCALES = ("0.5", "1")


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module("seam_tables")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def run(output, *arguments):
    tiny = [f"--output={output}", f"--gin_file={ROOT / 'tests/data/tiny.gin'}"]
    tiny += ["--gin_bindings=Recipe.validation_split=None", "--gin_bindings=Recipe.epochs=1"]
    return run_script("ablate_seam", *tiny, *arguments)


def ok(output, *arguments):
    result = run(output, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# === Tables ===


def test_table_1_is_the_papers(tables):
    one = tables.table("1", SCALES)
    assert one.columns == ("ER", "PCM", "hard pixels", "CRF")
    assert [(cell.labels, cell.evaluation, cell.paper) for cell in one.cells] == [
        (("", "", "", ""), "cam", 47.43),
        (("", "", "", "x"), "cam+crf", 52.40),
        (("x", "", "", ""), "cam", 49.90),
        (("x", "", "", "x"), "cam+crf", None),
        (("x", "x", "", ""), "cam_rv", 55.08),
        (("x", "x", "", "x"), "cam_rv+crf", None),
        (("x", "x", "x", ""), "cam_rv", 55.41),
        (("x", "x", "x", "x"), "cam_rv+crf", 56.83),
    ]
    assert not any("crf" in cell.evaluation for cell in tables.table("1", SCALES, False).cells)


def test_runs_are_shared_between_tables(tables):
    every = [tables.table(name, SCALES) for name in tables.NAMES]
    plan = tables.needed(every)
    assert set(plan) == set(tables.CONFIGURATIONS)
    assert plan["cam"] == ["cam", "cam+crf", "gradcam", "gradcam++", "cam@0.5", "cam@1"]
    assert plan["seam"] == ["cam_rv", "cam_rv+crf", "cam_rv@0.5", "cam_rv@1"]
    assert tables.needed([every[1]]).keys() == {"cam"}
    # 1 to 5 have more cells than there are things to score.
    cells = sum(len(one.cells) for one in every)
    assert sum(map(len, plan.values())) < cells


def test_configurations_differ_in_what_they_say(tables):
    values = {
        "rescale": 0.3,
        "rotation": 20,
        "translation": 15,
        "rate": 0.5,
        "wide_min_long_side": 224,
    }
    texts = {name: tuple(tables.bindings(name, **values)) for name in tables.CONFIGURATIONS}
    assert len(set(texts.values())) == len(texts)
    assert texts["rescale_translation"] == (
        "seam_step.rescale=0.3",
        "seam_step.flip=False",
        "seam_step.rotation=0.0",
        "seam_step.translation=15",
    )
    assert texts["all_transforms"][1:3] == ("seam_step.flip=True", "seam_step.rotation=20")
    assert texts["seam_wide"] == (
        "seam_step.rescale=0.5",
        "seam_step.flip=False",
        "seam_step.rotation=0.0",
        "seam_step.translation=0.0",
        "seam_augmentation.min_long_side=224",
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("cam", ("cam", None, False)),
        ("cam_rv@1.5", ("cam_rv", "1.5", False)),
        ("gradcam++", ("gradcam++", None, False)),
        ("cam_rv+crf", ("cam_rv", None, True)),
    ],
)
def test_evaluations_are_parsed(tables, name, parts):
    assert tables.parse_evaluation(name) == parts


def scored(miou, **more):
    return {"miou": miou, "threshold": 0.25, "mfn": 0.5, "mfp": None, "seconds": 6, **more}


def test_tables_from_given_scores(tables):
    scores = {
        ("cam", "0"): {"train_seconds": 60, "cam": scored(0.40), "gradcam++": scored(0.3)},
        ("cam", "1"): {"train_seconds": 120, "cam": scored(0.44), "cam+crf": scored(0.5, sweep=[])},
        ("seam", "0"): {"train_seconds": None, "cam_rv": scored(0.61)},
    }
    text = tables.markdown(tables.table("1", SCALES), scores, "val")
    lines = text.splitlines()
    assert lines[0] == "| ER | PCM | hard pixels | CRF | mIoU, val | paper (VOC train) | seeds |"
    # 40 and 44: the mean is 42, the standard deviation sqrt(8).
    assert lines[2] == "|  |  |  |  | 42.00 ± 2.83 | 47.43 | 2 |"
    assert lines[3] == "|  |  |  | x | 50.00 | 52.40 | 1 |"
    assert lines[4] == "| x |  |  |  | - | 49.90 | 0 |"
    assert lines[8] == "| x | x | x |  | 61.00 | 55.41 | 1 |"

    lines = tables.outputs_markdown(scores, "val", ["cam", "seam"]).splitlines()
    assert lines[2:] == [
        "| CAM baseline | 42.00 ± 2.83 | - | 2 | 1.5 |",
        "| + ER + PCM + hard pixels (SEAM) | - | 61.00 | 1 | - |",
    ]
    lines = tables.markdown(tables.table("2", SCALES), scores, "val").splitlines()
    assert lines[2:] == [
        "| CAM | 42.00 ± 2.83 | 47.43 | 2 |",
        "| Grad-CAM | - | - | 0 |",
        "| Grad-CAM++ | 30.00 | - | 1 |",
    ]
    sweep = [{"threshold": 24.0, "miou": 0.5}, {"threshold": 4.0, "miou": 0.4}]
    scores["cam", "1"]["cam+crf"]["sweep"] = sweep
    lines = tables.crf_markdown(tables.table("1", SCALES), scores, "val").splitlines()
    assert lines[1] == "| with the CRF, val | power 4 | power 24 |"
    assert lines[3:5] == ["| CAM baseline | 40.00 | 50.00 |", "| + ER | - | - |"]
    assert tables.crf_markdown(tables.table("2", SCALES), scores, "val") == ""
    rows = tables.csv_rows(tables.table("2", SCALES), scores)
    assert rows[0][:4] == ["method", "configuration", "evaluation", "seed"]
    assert rows[1] == ["CAM", "cam", "cam", "0", "0.4000", "0.2500", "0.5000", "", "47.43"]
    assert len(rows) == 1 + 3


def test_tables_over_scales_have_a_column_a_network(tables, tmp_path):
    scores = {
        ("cam", "0"): {"cam@0.5": scored(0.3), "cam@1": scored(0.4, mfp=1.0), "cam": scored(0.5)},
        ("seam", "0"): {"cam_rv@0.5": scored(0.6), "cam_rv": scored(0.7)},
    }
    one = tables.table("5", SCALES)
    lines = tables.markdown(one, scores, "train").splitlines()
    assert lines[0].startswith("| scale | CAM baseline, train | paper, CAM baseline")
    assert lines[2:] == [
        "| 0.5 | 30.00 | - | 60.00 | - |",
        "| 1 | 40.00 | - | - | - |",
        "| all | 50.00 | 47.43 | 70.00 | 55.41 |",
    ]
    (tmp_path / "figure.png").write_bytes(tables.figure6_png(one, scores))
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (1296, 547)


def test_expected_time_is_that_of_the_most_alike(tables):
    known = {
        ("cam", "0"): {"train_seconds": 60, "cam": scored(0.4)},
        ("seam", "0"): {"train_seconds": 200, "cam_rv": scored(0.4), "cam": scored(0.4, seconds=8)},
        ("seam", "1"): {"train_seconds": None},
    }
    assert tables.expected_seconds("cam", ["cam"], known) == (60, 6)
    assert tables.expected_seconds("cam_wide", [], known) == (60, 0)
    assert tables.expected_seconds("flip", ["cam_rv", "cam"], known) == (200, 14)
    assert tables.expected_seconds("flip", ["gradcam"], known) == (200, None)
    assert tables.expected_seconds("flip", ["cam"], {}) == (None, None)


# === The script ===


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Tables 1, 2 and 5 and Figure 6 of one tiny run of the baseline."""
    folder = tmp_path_factory.mktemp("ablation")
    out = ok(folder, "--tables=1,2,5,figure6", "--rows=cam", "--seeds=0", "--scales=0.5,1")
    assert "Table 2: Methods on the baseline network" in out
    return folder


@pytest.mark.large
def test_a_tiny_run_from_end_to_end(output):
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["cam_0", "tensorboard"]
        + [f"{x}.{y}" for x in ("table1", "table2", "table5", "figure6") for y in ("csv", "md")]
        + ["table1.png", "figure6.png"]
    )
    scores = json.loads((output / "cam_0/scores.json").read_text())
    assert scores["cam@1"]["split"] == "val"
    evaluations = {"cam", "cam_rv", "gradcam", "gradcam++", "cam@0.5", "cam@1"}
    assert scores.keys() == {"train_seconds", *evaluations, "cam+crf"}
    # The network's classifier is linear, so Grad-CAM is the plain CAM.
    assert scores["gradcam"]["miou"] == pytest.approx(scores["cam"]["miou"], abs=1e-3)
    assert scores["gradcam++"]["sweep"] != scores["cam"]["sweep"]
    with (output / "table5.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["evaluation"] for row in rows] == ["cam@0.5", "cam@1", "cam"]
    for row in rows:
        assert float(row["miou"]) == pytest.approx(scores[row["evaluation"]]["miou"], abs=1e-4)
    settings = (output / "cam_0/settings.gin").read_text()
    assert "seam_step.siamese = False" in settings


@pytest.mark.large
def test_settings_and_scores_are_hparams(output):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    events = EventAccumulator(str(output / "tensorboard/cam_0"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    hparams = data.session_start_info.hparams
    assert hparams["configuration"].string_value == "cam"
    assert hparams["seam_step.siamese"].bool_value is False
    assert hparams["Recipe.batch_size"].number_value == 4
    assert "miou/gradcam++" in events.Tags()["tensors"]


@pytest.mark.large
def test_dry_run_says_what_is_left_and_how_long(output):
    arguments = ["--tables=2,5,4", "--seeds=0", "--scales=0.5,1", "--dry_run"]
    out = ok(output, *arguments).splitlines()
    assert out[0] == "cam_0: finished"
    # The overlay's rescale is Table 4's, so that is one run and not two.
    assert [line.split(":")[0] for line in out] == ["cam_0", "seam_0", "cam_wide_0", "seam_wide_0",
                                                    out[-1]]  # fmt: skip
    assert out[1].startswith("seam_0: to do: training, cam_rv@0.5, cam_rv@1, cam_rv (time not")
    assert "cam_wide_0: to do: training, cam (about" in out[2]
    assert out[-1].startswith("in all about ")
    assert not (output / "seam_0").exists()
    # Scores on another split are other scores, the training is the same.
    out = ok(output, "--tables=2", "--seeds=0", "--scales=0.5,1", "--dry_run", "--split=train")
    assert out.startswith("cam_0: to do: cam, gradcam, gradcam++ (about")


@pytest.mark.large
def test_finished_runs_are_kept_and_other_settings_refused(output):
    before = (output / "cam_0/checkpoints/last.keras").stat().st_mtime_ns
    (output / "table2.md").unlink()
    ok(output, "--tables=2", "--seeds=0", "--scales=0.5,1")
    assert (output / "table2.md").is_file()
    assert (output / "cam_0/checkpoints/last.keras").stat().st_mtime_ns == before
    result = run(output, "--tables=2", "--seeds=0", "--gin_bindings=Recipe.epochs=7")
    user_error(result, "other settings (now recipe.Recipe.epochs = 7)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tables=7"], "'7'"),
        (["--tables=2", "--rows=seam"], "'seam'"),
        (["--scales=0"], "--scales=0"),
        (["--crf_powers=4,x"], "--crf_powers=4,x"),
    ],
)
def test_wrong_flags_end_in_one_line(tmp_path, arguments, words):
    user_error(run(tmp_path, *arguments), words)


@pytest.mark.large
def test_scores_with_the_crf_are_those_of_its_labels(output):
    scores = json.loads((output / "cam_0/scores.json").read_text())["cam+crf"]
    points = {point["threshold"]: point["miou"] for point in scores["sweep"]}
    assert list(points) == [4, 24]
    assert scores["miou"] == max(points.values()) == points[scores["threshold"]]
    table = (output / "table1.md").read_text()
    assert f"| {100 * scores['miou']:.2f} |" in table
    assert f"| CAM baseline | {100 * points[4]:.2f} | {100 * points[24]:.2f} |" in table
    # Other powers are other scores.
    arguments = ["--tables=1", "--rows=cam", "--seeds=0", "--scales=0.5,1", "--dry_run"]
    assert "cam_0: finished" in ok(output, *arguments)
    assert "cam_0: to do: cam+crf (about" in ok(output, *arguments, "--crf_powers=2,4")

    from wsss_tf.data.shapes import shapes_source
    from wsss_tf.evaluation.confusion import Confusion, mean_iou
    from wsss_tf.inference.cam_crf import crf_label
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam
    from wsss_tf.runs.trained_network import load_network

    compute = MultiScaleCam(load_network(output / "cam_0"), "cam", (0.5, 1.0))
    source = shapes_source("val", num_train=12, num_val=6, image_size=48)
    confusion = Confusion(5)
    for i in range(6):
        image, mask = (value.numpy() for value in source.read(i).values())
        present = np.flatnonzero(source.labels[i])
        cams = compute(image[None])["cams"].numpy()[0].transpose(2, 0, 1)[present]
        confusion.update(mask, crf_label(present + 1, cams, image, 4))
    assert points[4] == pytest.approx(mean_iou(confusion.matrix), abs=1e-3)
