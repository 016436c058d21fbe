import numpy as np
import pytest

from wsss_tf.errors import UserError
from wsss_tf.evaluation.confusion import Confusion
from wsss_tf.evaluation.metrics import cam_metrics, mask_metrics
from wsss_tf.evaluation.score import score_maps, score_masks
from wsss_tf.evaluation.threshold_sweep import Sweep

NAMES = ("background", "cat", "dog")
MASKS = [np.array([[0, 1, 2], [255, 1, 0]]), np.array([[2, 2, 0]])]
CAMS = [
    ([1, 2], np.array([[[0.1, 0.9, 0.2], [0.3, 0.4, 0.0]], [[0.2, 0.1, 0.3], [0.9, 0.5, 0.1]]])),
    ([2], np.array([[[0.7, 0.05, 0.3]]])),
]
PREDICTIONS = [np.array([[0, 1, 1], [2, 1, 255]]), np.array([[2, 0, 0]])]


def maps(masks=MASKS):
    return [(f"picture {i}", *cams, mask) for i, (cams, mask) in enumerate(zip(CAMS, masks))]


def predictions(masks=MASKS):
    triples = enumerate(zip(masks, PREDICTIONS))
    return [(f"picture {i}", mask, prediction) for i, (mask, prediction) in triples]


def test_maps_are_scored_as_a_sweep_of_them_is():
    sweep = Sweep(len(NAMES))
    for _, class_ids, cams, mask in maps():
        sweep.update(class_ids, cams, mask)
    options = {"split": "val", "skipped_images": 2, "absent_as_zero": True}
    expected = cam_metrics(sweep, NAMES, **options)
    assert score_maps(iter(maps()), NAMES, **options) == expected
    # A threshold of the caller's own is swept, but is not listed.
    own = score_maps(iter(maps()), NAMES, background_threshold=0.425)
    assert own["background_threshold"] == pytest.approx(0.425)
    assert own["sweep"] == score_maps(maps(), NAMES)["sweep"]


def test_masks_are_scored_as_their_confusion_is():
    confusion = Confusion(len(NAMES))
    for _, mask, prediction in predictions():
        confusion.update(mask, prediction)
    options = {"split": "val", "skipped_images": 2, "absent_as_zero": True}
    assert score_masks(iter(predictions()), NAMES, **options) == mask_metrics(
        confusion.matrix, NAMES, num_images=2, ignored_pixels=1, **options
    )


def test_nothing_to_score():
    ignored = [np.full_like(mask, 255) for mask in MASKS]
    assert score_maps(maps(ignored), NAMES) is None
    assert score_masks(predictions(ignored), NAMES) is None


@pytest.mark.parametrize("wrong", [np.array([[2, 2]]), np.array([[2, 3, 0]])])
def test_the_example_that_does_not_fit_is_named(wrong):
    masks = [MASKS[0], wrong]
    for score, examples in ((score_maps, maps(masks)), (score_masks, predictions(masks))):
        with pytest.raises(UserError, match=r"^picture 1, scored against the mask of its image"):
            score(examples, NAMES)
