import pathlib

import numpy as np
import pytest

from wsss_tf.evaluation.confusion import Confusion
from wsss_tf.evaluation.metrics import cam_metrics, format_table
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, Sweep, label_pixels

GOLDEN = pathlib.Path(__file__).parent / "data" / "seam" / "eval_threshold_sweep.npz"


def _present(present, cams):
    """Return `(class_ids, cams)` as CAM files hold them, from the golden file's [h, w, C] maps."""
    classes = np.flatnonzero(present)
    return classes + 1, np.moveaxis(cams[..., classes], -1, 0)


def test_agrees_with_the_official_script():
    with np.load(GOLDEN, allow_pickle=False) as golden:
        sweep = Sweep(num_classes=21)
        for cams, present, gt in zip(golden["cams"], golden["present"], golden["gt"]):
            sweep.update(*_present(present, cams), gt)
        names = [str(i) for i in range(21)]
        result = sweep.result(names, absent_as_zero=True)
        np.testing.assert_array_equal(THRESHOLDS, golden["thresholds"])
        # In percent; the official script adds 1e-10 to the union, which is far below this.
        np.testing.assert_allclose(100 * result.miou, golden["miou_percent"], atol=1e-4)
        iou = 100 * np.nan_to_num(result.iou)
        np.testing.assert_allclose(iou, golden["iou_percent"], atol=1e-4)
        assert result.best == golden["best_index"]


def _images(seed, num_classes=6):
    """Return random `(class_ids, cams float16, mask)` with ties, zeros and exact thresholds."""
    rng = np.random.default_rng(seed)
    images = []
    for count in [0, 1, 2, 3, num_classes - 1, 2]:
        shape = (count, 9, 7)
        cams = rng.choice([rng.random(shape), rng.integers(0, 8, shape) / 8], 1)[0]
        cams[rng.random(shape) < 0.2] = 0
        exact = rng.random(shape) < 0.3
        cams[exact] = rng.choice(THRESHOLDS, exact.sum())
        class_ids = rng.permutation(np.arange(1, num_classes))[:count]
        mask = rng.choice([*range(num_classes), 255], shape[1:]).astype(np.uint8)
        images.append((class_ids, cams.astype(np.float16), mask))
    return images


def _official_prediction(class_ids, cams, threshold, num_classes):
    """Return argmax over [t, maps of all classes], as the official script computes it."""
    stack = np.zeros((num_classes, *cams.shape[1:]), np.float32)
    stack[0] = threshold
    stack[class_ids] = cams
    return np.argmax(stack, axis=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=["float16", "float32"])
def test_equals_one_argmax_for_each_threshold(dtype):
    images = _images(seed=1)
    if dtype == np.float32:
        # Float32 maps can equal a threshold exactly; float16 ones mostly cannot.
        rng = np.random.default_rng(2)
        images = [(i, rng.choice(THRESHOLDS, cams.shape), m) for i, cams, m in images]
    sweep = Sweep(6)
    for image in images:
        sweep.update(*image)
    matrices = sweep.confusion()
    for t, threshold in enumerate(THRESHOLDS):
        expected = Confusion(6)
        for class_ids, cams, mask in images:
            prediction = _official_prediction(class_ids, cams, threshold, 6)
            np.testing.assert_array_equal(label_pixels(class_ids, cams, threshold), prediction)
            expected.update(mask, prediction)
        np.testing.assert_array_equal(matrices[t], expected.matrix[:, :6], err_msg=str(threshold))
    assert sweep.ignored_pixels == expected.ignored_pixels > 0
    assert sweep.num_images == 6


def test_order_of_images_and_merging_do_not_matter():
    images = _images(seed=3)
    whole, parts = Sweep(6), [Sweep(6), Sweep(6)]
    for image in images:
        whole.update(*image)
    for i, image in enumerate(images[::-1]):
        parts[i % 2].update(*image)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].histogram, whole.histogram)
    assert parts[0].num_images == whole.num_images
    assert parts[0].ignored_pixels == whole.ignored_pixels


def test_order_of_classes_in_a_cam_file_does_not_matter():
    cams = np.full((2, 1, 2), 0.5)
    forward, backward = Sweep(3), Sweep(3)
    forward.update([1, 2], cams, np.array([[1, 2]]))
    backward.update([2, 1], cams, np.array([[1, 2]]))
    np.testing.assert_array_equal(forward.histogram, backward.histogram)


def test_mfn_and_mfp_by_hand():
    # One row of pixels: truth, CAM of cat, CAM of dog.
    mask = np.array([[0, 1, 1, 1, 2, 255]])
    cat = [0.25, 0.5, 0.5, 0.125, 0.0, 1.0]
    dog = [0.0, 0.0, 0.0, 0.0, 0.375, 0.0]
    sweep = Sweep(3, thresholds=[0.1875, 0.3125, 0.4375, 0.5625])
    sweep.update([1, 2], np.array([[cat], [dog]]), mask)
    result = sweep.result(["background", "cat", "dog"])
    # 0.1875: cat has TP 2, FN 1, FP 1; dog TP 1 and no error. 0.3125: cat loses its FP.
    # 0.4375: the dog is missed, so only cat has a ratio. 0.5625: no class has one.
    np.testing.assert_allclose(result.mfn, [0.25, 0.25, 0.5, np.nan])
    np.testing.assert_allclose(result.mfp, [0.25, 0, 0, np.nan])
    assert result.without_hits == ((), (), ("dog",), ("cat", "dog"))
    np.testing.assert_allclose(
        result.miou, [(0 + 1 / 2 + 1) / 3, (1 / 2 + 2 / 3 + 1) / 3, (1 / 3 + 2 / 3) / 3, 0.2 / 3]
    )
    assert result.best == 1


def test_class_in_neither_masks_nor_predictions_is_left_out_of_the_mean():
    sweep = Sweep(4)
    sweep.update([2], np.array([[[0.0, 0.305]]]), np.array([[0, 2]]))
    names = ["background", "cat", "dog", "cow"]
    assert sweep.result(names).miou[30] == 1
    assert sweep.result(names, absent_as_zero=True).miou[30] == 0.5
    metrics = cam_metrics(sweep, names, split="train")
    assert metrics["absent_classes"] == ["cat", "cow"]
    assert metrics["iou"] == {"background": 1, "cat": None, "dog": 1, "cow": None}
    assert metrics["best_background_threshold"] == 0
    assert len(metrics["sweep"]) == 60
    assert metrics["sweep"][31] == {
        "threshold": 0.31,
        "miou": 0.25,
        "mfn": None,
        "mfp": None,
        "without_hits": ["dog"],
    }


def test_a_threshold_of_ones_own_is_scored_and_leaves_the_sweep_alone():
    sweep = Sweep(2, thresholds=np.union1d(THRESHOLDS, np.float32(0.305)))
    sweep.update([1], np.array([[[0.0, 0.302, 0.307]]]), np.array([[0, 0, 1]]))
    metrics = cam_metrics(sweep, ["background", "cat"], split="val", background_threshold=0.305)
    assert metrics["miou"] == 1
    assert metrics["background_threshold"] == 0.305
    assert [point["threshold"] for point in metrics["sweep"]] == [i / 100 for i in range(60)]
    assert max(point["miou"] for point in metrics["sweep"]) < 1
    table = format_table(metrics)
    assert "The table is for background threshold 0.305, as asked." in table


@pytest.mark.parametrize(
    ("class_ids", "cams", "mask", "message"),
    [
        ([1], np.zeros((1, 2, 3)), np.zeros((3, 2)), r"\(2, 3\), the mask's is \(3, 2\)"),
        ([1, 2], np.zeros((1, 2, 3)), np.zeros((2, 3)), "do not match"),
        ([4], np.zeros((1, 2, 3)), np.zeros((2, 3)), r"\[4\] are not all in 1\.\.3"),
        ([0], np.zeros((1, 2, 3)), np.zeros((2, 3)), r"\[0\] are not all in 1\.\.3"),
        ([2, 2], np.zeros((2, 2, 3)), np.zeros((2, 3)), "twice"),
        ([1], np.full((1, 2, 3), np.nan), np.zeros((2, 3)), "NaN"),
        ([1], np.zeros((1, 2, 3)), np.full((2, 3), 4), "value 4"),
    ],
    ids=["size", "count", "class_too_high", "background", "repeated", "nan", "mask_value"],
)
def test_bad_cams_are_refused(class_ids, cams, mask, message):
    sweep = Sweep(4)
    with pytest.raises(ValueError, match=message):
        sweep.update(class_ids, cams, mask)
    assert sweep.histogram.sum() == 0


@pytest.mark.parametrize("thresholds", [[], [-0.1, 0.2], [0.2, 0.1], [0.1, 0.1]])
def test_bad_thresholds_are_refused(thresholds):
    with pytest.raises(ValueError, match="ascend"):
        Sweep(3, thresholds)


def test_sweeps_over_other_thresholds_do_not_merge():
    with pytest.raises(ValueError, match="cannot be merged"):
        Sweep(3).merge(Sweep(3, [0.5]))


def test_threshold_that_was_not_swept_is_refused():
    sweep = Sweep(2)
    sweep.update([1], np.zeros((1, 1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="swept"):
        sweep.result(["background", "cat"], thresholds=[0.333])
