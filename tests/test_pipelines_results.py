"""The scores of a pipeline's stages, their table, and the report."""

import dataclasses
import json

import numpy as np
import pytest

from wsss_tf.data.shapes import shapes_source
from wsss_tf.files import images, run_folder
from wsss_tf.pipelines import results
from wsss_tf.pipelines.plan import Plan


@pytest.fixture(scope="module")
def source():
    return shapes_source("train", num_train=5, image_size=48)


@pytest.fixture
def plan(source):
    val = shapes_source("val", num_val=3, image_size=48)
    return Plan((), source, source, val, (3.5, 20.0), report_images=2, full_supervision=True)


@pytest.fixture
def run_dir(tmp_path, source):
    """Perfect CAMs, labels that are more and more background, and scores of two networks."""
    for i, image_id in enumerate(source.ids):
        mask = source.read(i)["mask"].numpy()
        class_ids = np.flatnonzero(source.labels[i]) + 1
        cams = 0.5 * (mask == class_ids[:, None, None])
        run_folder.save_cams(tmp_path / "cam/cams", image_id, class_ids, cams)
        folders = ("cam/crf_low_labels", "cam/crf_high_labels", "affinity/pseudo_labels")
        for rows, folder in zip((0, 16, 48), folders):
            label = mask.copy()
            label[:rows] = 0
            images.save_mask(tmp_path / folder / f"{image_id}.png", label)
        images.save_mask(tmp_path / f"shown/predictions/{image_id}.png", mask)
    metrics = {"split": "val", "num_images": 3, "miou": 0.6, "pixel_accuracy": 0.7, "iou": {}}
    run_folder.write_json(tmp_path / "segmentation/metrics_val.json", metrics)
    metrics["miou"] = 0.8
    run_folder.write_json(tmp_path / "full_supervision/metrics_val.json", metrics)
    return tmp_path


def test_labels_are_scored_against_the_masks(plan, run_dir):
    results.score_labels(plan, run_dir)
    scores = json.loads((run_dir / "label_scores.json").read_text())["scores"]
    assert list(scores) == [
        "CAM, best background threshold 0",
        "dense CRF, background power 3.5",
        "dense CRF, background power 20",
        "random walk",
    ]
    mious = [metrics["miou"] for metrics in scores.values()]
    assert mious[:2] == [1, 1]
    assert 1 > mious[2] > mious[3] > 0
    assert {metrics["split"] for metrics in scores.values()} == {"train"}
    assert {metrics["num_images"] for metrics in scores.values()} == {5}
    # The curve over thresholds is in the CAMs' own run.
    assert len(json.loads((run_dir / "cam/metrics_train.json").read_text())["sweep"]) == 60


def test_images_left_out_are_left_out_of_all_scores(plan, source, run_dir):
    run_folder.write_json(run_dir / "cam/bad_images.json", [[source.ids[3], "damaged"]])
    for path in run_dir.glob(f"*/*/{source.ids[3]}.*"):
        path.unlink()
    results.score_labels(plan, run_dir)
    scores = json.loads((run_dir / "label_scores.json").read_text())["scores"]
    assert {metrics["num_images"] for metrics in scores.values()} == {4}


def test_results_and_report(plan, source, run_dir):
    results.score_labels(plan, run_dir)
    results.write_pictures(plan, run_dir)
    names = sorted(path.name for path in (run_dir / "shown/pictures").iterdir())
    assert names == [f"{source.ids[0]}.png", f"{source.ids[4]}.png"]
    results.write_results(plan, run_dir)
    data = json.loads((run_dir / "results.json").read_text())
    assert [row["miou"] for row in data["rows"]][-2:] == [0.6, 0.8]
    assert [row["split"] for row in data["rows"]] == ["train"] * 4 + ["val"] * 2
    [note] = data["notes"]
    assert "reaches 75.0 % of" in note

    lines = (run_dir / "results.md").read_text().splitlines()
    assert len({len(line) for line in lines[:8]}) == 1
    assert lines[2].split("|")[1:-1][1].strip() == "train"
    assert lines[2].endswith("| 100.00 |")
    assert lines[6].startswith("| network trained on pseudo labels ")
    assert lines[7].endswith("|  80.00 |")

    page = (run_dir / "report.html").read_text()
    assert page.count("<article>") == 2
    for caption in (
        "image",
        "dense CRF, background power 3.5",
        "dense CRF, background power 20",
        "random walk",
        "trained network",
        "mask",
    ):
        assert page.count(f"<figcaption>{caption}</figcaption>") == 2
    assert page.count("<figcaption>CAM: ") == 2
    assert "75.0 % of" in page
    assert "http" not in page


def test_what_cannot_be_scored_is_said(plan, source, run_dir):
    bare = source.without_masks()
    other = dataclasses.replace(plan, score=bare, val=None)
    results.score_labels(other, run_dir)
    results.write_results(other, run_dir)
    data = json.loads((run_dir / "results.json").read_text())
    assert data["rows"] == []
    assert data["notes"] == [
        "Split 'train' of shapes has no masks to score labels against.",
        "The recipe has no validation split to score the network on.",
    ]
    assert (run_dir / "results.md").read_text().startswith("Split 'train'")
    assert "<figcaption>mask</figcaption>" not in (run_dir / "report.html").read_text()

    results.score_labels(plan, run_dir)
    other = dataclasses.replace(plan, val=plan.val.without_masks())
    results.write_results(other, run_dir)
    data = json.loads((run_dir / "results.json").read_text())
    assert len(data["rows"]) == 4
    assert data["notes"] == ["Split 'val' of shapes has no masks to score the network against."]
