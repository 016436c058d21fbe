import numpy as np
import pytest

from wsss_tf.evaluation.confusion import (
    Confusion,
    class_iou,
    false_negatives,
    false_positives,
    mean_iou,
    pixel_accuracy,
    true_positives,
)
from wsss_tf.evaluation.metrics import describe, format_table, mask_metrics

# Class 0: 3 right, 1 given to class 1. Class 1: 2 right, 1 given to class 0, 1 left at 255.
MASK = np.array([[0, 0, 0, 0, 255], [1, 1, 1, 1, 255]], np.uint8)
PREDICTION = np.array([[0, 0, 0, 1, 1], [1, 1, 0, 255, 0]], np.uint8)


def _counted(num_classes=3):
    confusion = Confusion(num_classes)
    confusion.update(MASK, PREDICTION)
    return confusion


def test_matrix_has_truth_in_rows_and_unlabelled_pixels_in_the_last_column():
    confusion = _counted()
    np.testing.assert_array_equal(confusion.matrix, [[3, 1, 0, 0], [1, 2, 0, 1], [0, 0, 0, 0]])
    assert (confusion.ignored_pixels, confusion.num_images) == (2, 1)


def test_scores_by_hand():
    matrix = _counted().matrix
    np.testing.assert_array_equal(true_positives(matrix), [3, 2, 0])
    np.testing.assert_array_equal(false_negatives(matrix), [1, 2, 0])
    np.testing.assert_array_equal(false_positives(matrix), [1, 1, 0])
    np.testing.assert_allclose(class_iou(matrix), [3 / 5, 2 / 5, np.nan])
    assert mean_iou(matrix) == pytest.approx(0.5)
    assert mean_iou(matrix, absent_as_zero=True) == pytest.approx(1 / 3)
    assert pixel_accuracy(matrix) == pytest.approx(5 / 8)
    assert class_iou(matrix).dtype == np.float64


def test_large_counts_do_not_lose_pixels():
    # Above 2**24 float32 has no odd numbers.
    matrix = np.array([[2**40 + 1, 1], [0, 2**40 + 1]])
    assert false_negatives(matrix)[0] == 1
    assert mean_iou(matrix) < 1


def test_leading_dimensions():
    matrices = np.array([[[1, 1], [0, 2]], [[2, 0], [1, 1]]])
    expected = [mean_iou(matrices[0]), mean_iou(matrices[1])]
    np.testing.assert_array_equal(mean_iou(matrices), expected)


def test_equals_a_loop_over_pixels_and_any_order_and_merging():
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 3, 255])
    pairs = [(rng.choice(values, (5, 7)), rng.choice(values, (5, 7))) for _ in range(6)]
    expected = np.zeros((4, 5), np.int64)
    for mask, prediction in pairs:
        for truth, guess in zip(mask.ravel(), prediction.ravel()):
            if truth != 255:
                expected[truth, min(guess, 4)] += 1
    first, second = Confusion(4), Confusion(4)
    for i in [4, 1, 3]:
        first.update(*pairs[i])
    for i in [5, 0, 2]:
        second.update(*pairs[i])
    first.merge(second)
    np.testing.assert_array_equal(first.matrix, expected)
    assert first.num_images == 6
    assert first.matrix.sum() + first.ignored_pixels == 6 * 35


@pytest.mark.parametrize(
    ("mask", "prediction", "message"),
    [
        ([[0, 3]], [[0, 0]], r"value 3, but 3 classes allow only 0\.\.2"),
        ([[0, 0]], [[0, 254]], "value 254"),
        ([[0, -1]], [[0, 0]], "value -1"),
        ([[0, 1]], [[0], [1]], r"\(2, 1\), the mask's is \(1, 2\)"),
    ],
    ids=["mask_value", "prediction_value", "negative", "size"],
)
def test_bad_masks_are_refused_with_the_value(mask, prediction, message):
    confusion = Confusion(3)
    with pytest.raises(ValueError, match=message):
        confusion.update(mask, prediction)
    assert confusion.matrix.sum() == 0


def test_all_ignored_is_refused():
    with pytest.raises(ValueError, match="no pixel to score"):
        mean_iou(np.zeros((2, 2), np.int64))


def test_other_number_of_classes_does_not_merge():
    with pytest.raises(ValueError, match="2 classes"):
        Confusion(3).merge(Confusion(2))


def test_metrics_and_table():
    metrics = mask_metrics(
        _counted().matrix,
        ["background", "cat", "dog"],
        num_images=1,
        ignored_pixels=2,
        split="val",
        skipped_images=3,
    )
    assert metrics == {
        "split": "val",
        "num_images": 1,
        "skipped_images": 3,
        "miou": pytest.approx(0.5),
        "pixel_accuracy": 0.625,
        "iou": {"background": 0.6, "cat": 0.4, "dog": None},
        "absent_classes": ["dog"],
        "absent_as_zero": False,
        "ignored_pixels": 2,
        "known_pixels": 8,
        "true_classes": ["background", "cat"],
    }
    assert format_table(metrics).splitlines() == [
        "class             IoU %",
        "-----------------------",
        "background        60.00",
        "cat               40.00",
        "dog              absent",
        "-----------------------",
        "mean IoU          50.00",
        "pixel accuracy    62.50",
        "",
        "1 images, split 'val'.",
        "3 unreadable images left out.",
        "In neither masks nor predictions, so they are left out of the mean: dog.",
        "Ignored, as their mask is 255: 20.0 % of the pixels.",
    ]


def test_masks_of_background_and_255_are_spoken_of():
    """Where 255 is meant as the class, everything predicted as background scores 100."""
    confusion = Confusion(2)
    mask = np.array([[0, 255, 255, 0]], np.uint8)
    confusion.update(mask, np.zeros_like(mask))
    metrics = mask_metrics(confusion.matrix, ["background", "cat"], num_images=1, ignored_pixels=2)
    assert metrics["miou"] == 1
    assert describe(metrics)[-2:] == [
        "Ignored, as their mask is 255: 50.0 % of the pixels.",
        "Beside 255 the masks hold background only: if 255 is meant as a class, write its number "
        "for it.",
    ]


def test_absent_as_zero_in_metrics():
    metrics = mask_metrics(
        _counted().matrix, "abc", num_images=1, ignored_pixels=2, absent_as_zero=True
    )
    assert metrics["iou"]["c"] == 0
    assert metrics["absent_classes"] == ["c"]
    assert metrics["miou"] == pytest.approx(np.mean(list(metrics["iou"].values())))


def test_duplicate_names_are_refused():
    with pytest.raises(ValueError, match="distinct"):
        mask_metrics(_counted().matrix, ["a", "b", "a"], num_images=1, ignored_pixels=0)
