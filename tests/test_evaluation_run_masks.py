"""Scoring the predicted masks of a run, without the command."""

import json

import numpy as np
import pytest

from wsss_tf.errors import UserError
from wsss_tf.evaluation.run_masks import evaluate_run
from wsss_tf.files import images

NAMES = ("road", "sky", "tree")


class _Source:
    """What `evaluate_run` needs of a source; no class is background."""

    name, split, has_masks, has_background = "streets", "val", True, False
    class_names, ids = NAMES, ("a", "b/c", "d")


@pytest.fixture
def run(tmp_path):
    """Three examples of different sizes; "a" is predicted right, the others shifted by a class."""
    rng = np.random.default_rng(0)
    examples = []
    for i, image_id in enumerate(_Source.ids):
        mask = rng.choice(np.uint8([0, 1, 2, 255]), (20 + i, 31))
        image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        examples.append({"image": image, "mask": mask})
        prediction = np.where(mask == 255, 1, (mask + (i > 0)) % 3)
        images.save_mask(tmp_path / f"predictions/{image_id}.png", prediction)
    (tmp_path / "config.gin").write_text("# configuration of the run")
    return _Source(), examples, tmp_path


def _evaluate(run, **options):
    source, examples, folder = run
    return evaluate_run(source, examples.__getitem__, folder, **options)


def test_run_is_scored_and_written(run):
    _, examples, folder = run
    metrics = _evaluate(run)
    valid = [(e["mask"] != 255).sum() for e in examples]
    assert metrics["pixel_accuracy"] == pytest.approx(valid[0] / sum(valid))
    assert metrics["ignored_pixels"] == sum((e["mask"] == 255).sum() for e in examples)
    assert list(metrics["iou"]) == list(NAMES)
    assert metrics["num_images"] == 3
    for name in ("metrics.json", "metrics_val.json"):
        assert json.loads((folder / name).read_text()) == metrics
    page = (folder / "report.html").read_text()
    assert page == (folder / "report_val.html").read_text()
    assert page.count("<figcaption>prediction</figcaption>") == 3
    assert page.count("<figcaption>ground truth</figcaption>") == 3
    assert "100.0 % of pixels right" in page
    assert "# configuration of the run" in page
    assert "CAM" not in page
    assert "id='threshold'" not in page
    assert "What goes with the marked pixel" not in page
    assert "http" not in page


def test_bad_images_are_left_out(run):
    folder = run[2]
    (folder / "predictions/d.png").unlink()
    (folder / "bad_images.json").write_text('[["d", "truncated"]]')
    metrics = _evaluate(run, num_report_images=1)
    assert (metrics["num_images"], metrics["skipped_images"]) == (2, 1)
    assert "Images left out: 1" in (folder / "report.html").read_text()


def _remove(run):
    for name in ("b/c", "d"):
        (run[2] / f"predictions/{name}.png").unlink()


def _truncate(run):
    path = run[2] / "predictions/d.png"
    path.write_bytes(path.read_bytes()[:60])


def _other_size(run):
    images.save_mask(run[2] / "predictions/d.png", np.zeros((31, 22), int))


def _other_class(run):
    images.save_mask(run[2] / "predictions/d.png", np.full((22, 31), 3))


def _no_masks(run):
    run[0].has_masks = False


def _all_ignored(run):
    for example in run[1]:
        example["mask"][:] = 255


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove, r"2 of 3 images of split 'val' .*b/c\.png.*wsss_tf\.infer --run_dir=.*val"),
        (_truncate, r"d\.png: cannot be read as a mask"),
        (_other_size, r"d\.png.*\(31, 22\).*\(22, 31\)"),
        (_other_class, r"d\.png.*value 3"),
        (_no_masks, "'val' has no masks"),
        (_all_ignored, "all 255"),
    ],
)
def test_what_cannot_be_scored(run, spoil, message):
    spoil(run)
    with pytest.raises(UserError, match=message):
        _evaluate(run)
    assert not (run[2] / "metrics.json").exists()
