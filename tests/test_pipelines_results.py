"""The scores of a pipeline's stages, their table, and the report."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from wsss_tf.data.shapes import shapes_source
from wsss_tf.files import images, run_folder
from wsss_tf.pipelines import results
from wsss_tf.pipelines.context import Context, Maps, Planned, Scores
from wsss_tf.pipelines.records import Stage


@pytest.fixture(scope="module")
def source():
    return shapes_source("train", num_train=5, image_size=48)


def scores_of(run_dir, name, what, val=True, masks=True):
    if val and masks:
        return Scores(what, run_dir / name / "metrics_val.json")
    if val:
        note = "Split 'val' of shapes has no masks to score the network against."
    else:
        note = "The recipe has no validation split to score the network on."
    return Scores(what, None, note)


def context_of(run_dir, source, with_maps=True, **scores):
    """Return the context of a pipeline that has been run."""
    low, high, walk = (
        run_dir / folder
        for folder in ("cam/crf_low_labels", "cam/crf_high_labels", "affinity/pseudo_labels")
    )
    crf = {"dense CRF, background power 3.5": low, "dense CRF, background power 20": high}
    walk = {"random walk": walk}
    maps = Maps(run_dir / "cam", (), "cams", 0.26) if with_maps else None
    first = scores_of(run_dir, "segmentation", "network trained on pseudo labels", **scores)
    full = scores_of(run_dir, "full_supervision", "network trained on masks", **scores)
    planned = {
        "cams": Planned(stage("cams"), maps=maps),
        "crf": Planned(stage("crf"), scored=crf, shown=crf),
        "walk": Planned(stage("walk"), scored=walk, shown=walk),
        "scores": Planned(None, scores=first),
        "full_scores": Planned(None, scores=full),
        "label_scores": Planned(stage("label_scores")),
    }
    context = Context(run_dir, (), None, trained={"cam": None}, planned=planned)
    # In the place of what recipes would say.
    context.__dict__.update(train=source, score=source)
    return context


def stage(name):
    return Stage(name, (), {}, (), "")


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
    record = {"state": "finished", "made": "1", "inputs": {}, "after": {}}
    # As a version wrote it that did not measure times; others, one gone on with after a kill.
    run_folder.write_json(tmp_path / "stages/cams.json", record)
    run_folder.write_json(tmp_path / "stages/crf.json", {**record, "seconds": 372.4})
    killed = {"seconds": 60.0, "seconds_missing": True}
    run_folder.write_json(tmp_path / "stages/walk.json", {**record, **killed})
    run_folder.write_json(tmp_path / "stages/label_scores.json", {**record, "seconds": 6.0})
    return tmp_path


def test_labels_are_scored_against_the_masks(source, run_dir):
    results.score_labels(context_of(run_dir, source))
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


def test_all_maps_are_scored_and_the_last_are_shown(source, run_dir):
    shutil.copytree(run_dir / "cam", run_dir / "baseline")
    context = context_of(run_dir, source)
    maps = Maps(run_dir / "baseline", (), "baseline_cams", 0.26, what="CAM baseline")
    planned = {"baseline_cams": Planned(stage("baseline_cams"), maps=maps), **context.planned}
    context = dataclasses.replace(context, planned=planned)
    context.__dict__.update(train=source, score=source)
    results.score_labels(context)
    scores = json.loads((run_dir / "label_scores.json").read_text())["scores"]
    names = ["CAM baseline, best background threshold 0", "CAM, best background threshold 0"]
    assert list(scores)[:2] == names
    assert (run_dir / "baseline/metrics_train.json").is_file()
    assert results._maps(context).run == run_dir / "cam"


def test_images_left_out_are_left_out_of_all_scores(source, run_dir):
    run_folder.write_json(run_dir / "cam/bad_images.json", [[source.ids[3], "damaged"]])
    for path in run_dir.glob(f"*/*/{source.ids[3]}.*"):
        path.unlink()
    results.score_labels(context_of(run_dir, source))
    scores = json.loads((run_dir / "label_scores.json").read_text())["scores"]
    assert {metrics["num_images"] for metrics in scores.values()} == {4}


def data_of(page):
    """Return what the page's program is given."""
    [text] = re.findall(r"<script type='application/json' id='data'>(.*?)</script>", page)
    return json.loads(text)


def test_results_and_report(source, run_dir):
    context = context_of(run_dir, source)
    results.score_labels(context)
    results.write_pictures(context, 2)
    names = sorted(path.name for path in (run_dir / "shown/pictures").iterdir())
    assert names == [f"{source.ids[0]}.png", f"{source.ids[4]}.png"]
    results.write_results(context, 2, "full_scores")
    data = json.loads((run_dir / "results.json").read_text())
    assert [row["miou"] for row in data["rows"]][-2:] == [0.6, 0.8]
    assert [row["split"] for row in data["rows"]] == ["train"] * 4 + ["val"] * 2
    [note] = data["notes"]
    assert note == (
        "The network trained on pseudo labels reaches 75.0 % of the mean IoU of the network "
        "trained on masks."
    )

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
        "pseudo label at 0",
    ):
        assert page.count(f"<figcaption>{caption}</figcaption>") == 2
    assert page.count("<figcaption>CAM: ") == 2
    assert "75.0 % of" in page
    assert "http" not in page


def test_minutes_of_the_stages(source, run_dir):
    context = context_of(run_dir, source)
    results.score_labels(context)
    results.write_results(context, 0, None)
    lines = (run_dir / "results.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[lines.index("") :]]
    assert [row for row in table if row] == [
        ["stage", "minutes"],
        ["------------", "------------:"],
        ["cams", "?"],
        ["crf", "6.2"],
        ["walk", "more than 1.0"],
        ["label_scores", "0.1"],
        ["all", "more than 7.3"],
    ]
    minutes = json.loads((run_dir / "results.json").read_text())["minutes"]
    assert minutes == {"cams": None, "crf": 6.21, "walk": 1.0, "label_scores": 0.1}
    page = (run_dir / "report.html").read_text()
    assert "<tr><td>crf</td><td class='number'>6.2</td></tr>" in page
    assert "<tr><td>all</td><td class='number'>more than 7.3</td></tr>" in page


def test_the_slider_is_that_of_the_cams(source, run_dir):
    context = context_of(run_dir, source)
    results.score_labels(context)
    results.write_results(context, 2, None)
    page = (run_dir / "report.html").read_text()
    data = data_of(page)
    sweep = json.loads((run_dir / "cam/metrics_train.json").read_text())["sweep"]
    assert data["miou"] == [point["miou"] for point in sweep]
    assert (data["thresholds"][data["used"]], len(data["thresholds"])) == (0, 60)
    assert "id='curve'" in page
    # The maps that it labels are the CAMs of the pictures shown, and the masks behind them.
    for one, i in zip(data["images"], (0, 4), strict=True):
        class_ids = np.flatnonzero(source.labels[i]) + 1
        assert one["maps"]["ids"] == class_ids.tolist()
        assert (one["maps"]["height"], one["maps"]["width"]) == (48, 48)
        assert one["scores"]["miou"] == 1
    assert page.count("<figure class='label'>") == 2


def test_without_masks_the_slider_has_no_scores(source, run_dir):
    context = context_of(run_dir, source.without_masks(), val=False)
    results.score_labels(context)
    results.write_results(context, 2, None)
    page = (run_dir / "report.html").read_text()
    data = data_of(page)
    assert (data["thresholds"][data["used"]], data["thresholds"][-1]) == (0.26, 0.99)
    assert {*data["miou"]} == {None}
    assert [one["scores"]["miou"] for one in data["images"]] == [None, None]
    assert all(one["maps"]["png"] for one in data["images"])
    assert "type='range'" in page
    assert "id='curve'" not in page
    assert page.count("<figcaption>pseudo label at 0.26</figcaption>") == 2


def test_without_cams_the_network_is_what_is_scored(source, run_dir):
    context = context_of(run_dir, source, with_maps=False)
    # Cues, on a grid of their own.
    for image_id in source.ids:
        images.save_mask(run_dir / f"cues/{image_id}.png", np.full((5, 5), 255, np.uint8))
    cues = Planned(stage("cues"), shown={"localisation cues": run_dir / "cues"})
    context.planned["cues"] = cues
    results.score_labels(context)
    scores = json.loads((run_dir / "label_scores.json").read_text())["scores"]
    assert [*scores] == [
        "dense CRF, background power 3.5", "dense CRF, background power 20", "random walk"
    ]  # fmt: skip
    results.write_results(context, 2, None)
    page = (run_dir / "report.html").read_text()
    data = data_of(page)
    assert data["thresholds"] == []
    assert [one["scores"]["miou"] for one in data["images"]] == [1, 1]
    assert "type='range'" not in page
    assert "CAM" not in re.sub("<script.*", "", page, flags=re.DOTALL)
    assert page.count("<figcaption>localisation cues</figcaption>") == 2


def test_what_cannot_be_scored_is_said(source, run_dir):
    context = context_of(run_dir, source.without_masks(), val=False)
    results.score_labels(context)
    results.write_results(context, 2, "full_scores")
    data = json.loads((run_dir / "results.json").read_text())
    assert data["rows"] == []
    assert data["notes"] == [
        "Split 'train' of shapes has no masks to score labels against.",
        "The recipe has no validation split to score the network on.",
    ]
    assert (run_dir / "results.md").read_text().startswith("Split 'train'")
    assert "<figcaption>mask</figcaption>" not in (run_dir / "report.html").read_text()

    context = context_of(run_dir, source, masks=False)
    results.score_labels(context)
    results.write_results(context, 2, "full_scores")
    data = json.loads((run_dir / "results.json").read_text())
    assert len(data["rows"]) == 4
    assert data["notes"] == ["Split 'val' of shapes has no masks to score the network against."]
