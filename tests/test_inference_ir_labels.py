"""Labels for IRN: the official numbers, by whichever lattice, and the files they leave."""

import os

import numpy as np
import pytest
from test_inference_write_crf import CLASS_IDS, SIZES, cams, picture, source

from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder
from wsss_tf.inference.dense_crf import dense_crfs
from wsss_tf.inference.ir_labels import (
    BACKGROUND_THRESHOLD,
    IR_CRF,
    IR_THRESHOLDS,
    IrSettings,
    combined_label,
    confident_marginals,
    ir_label_source,
    seed,
    threshold_for_maps,
    write_ir_label,
)
from wsss_tf.runs.ir_labels import ir_label_options


@pytest.mark.parametrize("file", ["a", "b"])
def test_labels_are_the_official_ones(golden, file):
    data = golden(f"irn/ir_label_{file}")
    maps = data["cam"].transpose(2, 0, 1)
    thresholds = tuple(float(data[f"{name}_threshold"]) for name in ("bg", "fg"))
    assert thresholds == pytest.approx(IR_THRESHOLDS)
    for name, threshold in zip(("bg", "fg"), thresholds):
        np.testing.assert_array_equal(seed(maps, threshold), data[f"{name}_seed"])
    settings = IrSettings(thresholds)
    others = (1 - settings.confidence) / len(maps)
    np.testing.assert_allclose(-np.log([0.7, others]), data["unary_values"], atol=1e-6)

    class_ids = data["class_keys"] + 1
    both = confident_marginals(maps, data["image"], IR_CRF, settings)
    for marginals, name in zip(both, ("bg", "fg")):
        # The lattice is pydensecrf's, and only sums are in another order: 2e-7 on the drawn
        # picture; on the photograph such narrow kernels leave two pixels undecided, by 0.01.
        error = np.abs(marginals - data[f"{name}_marginals"])
        assert np.quantile(error, 0.99) < 1e-4
        assert error.mean() < 1e-5
        confident = np.concatenate([[0], class_ids])[marginals.argmax(-1)]
        np.testing.assert_array_equal(confident, data[f"{name}_conf"])
    label = combined_label(class_ids, *both)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, data["ir_label"])


def test_labels_by_hand():
    def marginals(*labels):
        return np.eye(3)[np.array([labels])]

    background = marginals(0, 1, 2, 0, 1, 2)
    classes = marginals(0, 0, 0, 1, 1, 1)
    label = combined_label([4, 9], background, classes)
    assert label.tolist() == [[0, 255, 255, 4, 4, 4]]


def test_of_equal_scores_the_lower_label_is_the_seed():
    maps = np.float32([[[0.3, 0.5, 0.2]], [[0.1, 0.5, 0.6]]])
    assert seed(maps, np.float32(0.3)).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("official", [0.05, 0.25, 0.3])
def test_thresholds_follow_those_of_the_maps(official):
    assert threshold_for_maps(BACKGROUND_THRESHOLD, official) == pytest.approx(official)
    followed = [threshold_for_maps(t, official) for t in (0.02, 0.3, 0.5, 0.97)]
    assert followed == sorted(followed)
    assert all((official > 0.15) == (f > t) for f, t in zip(followed, (0.02, 0.3, 0.5, 0.97)))
    with pytest.raises(ValueError, match="threshold 1"):
        threshold_for_maps(1.0, official)


@pytest.fixture
def run_dir(tmp_path):
    for index, image_id in enumerate(source().ids):
        run_folder.save_cams(tmp_path / "cams", image_id, CLASS_IDS[index], cams(index))
    return tmp_path


def test_files_of_a_source(run_dir):
    run = run_folder.RunFolder(run_dir)
    assert ir_label_source(source(), run_dir, processes=1) == (3, 0)
    for index, image_id in enumerate(source().ids):
        label = images.load_mask(run.ir_label(image_id))
        assert label.shape == SIZES[index]
        assert set(np.unique(label)) <= {0, 255, *CLASS_IDS[index]}
        if not CLASS_IDS[index]:
            assert not label.any()
            continue
        class_ids, maps = run.read_cams(image_id)
        several = []
        for threshold in IR_THRESHOLDS:
            scores = np.concatenate([np.full((1, *SIZES[index]), threshold), np.float64(maps)])
            others = 0.3 / len(class_ids)
            several.append(np.where(scores == scores.max(0), 0.7, others).transpose(1, 2, 0))
        expected = [m.argmax(-1) for m in dense_crfs(several, picture(index), IR_CRF)]
        ids = np.array([0, *class_ids])
        inside = np.where(expected[0] == 0, 0, 255)
        np.testing.assert_array_equal(label, np.where(expected[1], ids[expected[1]], inside))
    run.ir_label("c").unlink()
    cam = run.cam("a")
    later = run.ir_label("a").stat().st_mtime_ns + 10**9
    os.utime(cam, ns=(later, later))
    assert ir_label_source(source(), run_dir, processes=1) == (2, 1)
    assert ir_label_source(source(), run_dir, processes=1, overwrite=True) == (3, 0)


def test_large_pictures_run_at_a_limited_size(run_dir):
    run = run_folder.RunFolder(run_dir)
    small = picture(0)[::2, ::2]
    write_ir_label(run, "a", small, size=SIZES[0])
    label = images.load_mask(run.ir_label("a"))
    assert label.shape == SIZES[0]
    assert set(np.unique(label)) <= {0, 255, *CLASS_IDS[0]}


def test_numbers_that_cannot_be():
    options = ir_label_options(BACKGROUND_THRESHOLD)
    assert options["settings"].thresholds == pytest.approx(IR_THRESHOLDS)
    assert options["parameters"] == IR_CRF
    by_odds = ir_label_options(0.5, odds=(0.25, 4))["settings"].thresholds
    assert by_odds == pytest.approx((0.2, 0.8))
    assert ir_label_options(0.5, crf_scale=2.0)["parameters"].bilateral_sxy == 25
    for wrong, word in [
        ({"thresholds": (0.3, 0.05)}, "--ir_thresholds=0.3,0.05"),
        ({"thresholds": (0.3, 1.5)}, "--ir_thresholds=0.3,1.5"),
        ({"odds": (1.5, 0.5)}, "--ir_odds=1.5,0.5: give two ratios"),
        ({"odds": (0.5,)}, "--ir_odds=0.5"),
        ({"odds": (0.5, 2), "thresholds": (0.1, 0.3)}, "--ir_odds takes the place"),
        ({"confidence": 1.0}, "--ir_confidence=1"),
        ({"crf_scale": 0.0}, "--crf_scale=0"),
    ]:
        with pytest.raises(UserError, match=word):
            ir_label_options(0.5, **wrong)
    with pytest.raises(UserError, match="threshold 0"):
        ir_label_options(0.0)
