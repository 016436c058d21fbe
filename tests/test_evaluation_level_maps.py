"""CAMs as 8-bit levels: the labels of every threshold have to survive."""

import numpy as np
import pytest

from wsss_tf.evaluation.level_maps import first_levels, level_maps, reduced
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, label_pixels


def labels_of_levels(class_ids, levels, first, number):
    """Return the labels at threshold `number`, from nothing but levels, as the page does it."""
    order = np.argsort(class_ids)
    position = np.argmax(levels[order], axis=0)
    best = np.take_along_axis(levels[order], position[None], axis=0)[0]
    exceeded = np.searchsorted(first, best, side="right") - 1
    return np.where(exceeded > number, np.asarray(class_ids)[order][position], 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_labels_are_the_same_at_every_threshold(dtype):
    rng = np.random.default_rng(0)
    thresholds = np.union1d(THRESHOLDS, np.float32([0.455, 0.93]))
    ids = [7, 2, 4]
    cams = rng.random((3, 50, 61)) ** 2
    cams[1] = np.where(rng.random((50, 61)) < 0.5, cams[0] + rng.normal(0, 1e-3, (50, 61)), cams[1])
    cams[2, :10] = cams[0, :10]  # equal scores go to the lower mask value
    cams[:, 20:25] = rng.choice(thresholds, (3, 5, 61))  # a score on a threshold does not exceed it
    cams[:, 0, 0], cams[:, 0, 1] = 1, 0
    cams = cams.clip(0, 1).astype(dtype)
    levels = level_maps(ids, cams, thresholds)
    assert levels.dtype == np.uint8
    for number, threshold in enumerate(thresholds):
        expected = label_pixels(ids, cams, threshold)
        found = labels_of_levels(ids, levels, first_levels(thresholds), number)
        np.testing.assert_array_equal(found, expected)


def test_levels_follow_the_scores():
    scores = np.linspace(0, 1, 2001, dtype=np.float32).reshape(1, 1, -1)
    levels = level_maps([1], scores, THRESHOLDS)[0, 0].astype(int)
    steps = np.diff(levels)
    assert (levels[0], levels[-1]) == (0, 255)
    assert set(steps) == {0, 1}
    # Every step is of about the same size: half a percent of the scores.
    assert np.diff(np.flatnonzero(steps)).max() <= 2001 / 150


def test_first_levels():
    first = first_levels([0.25, 0.5])
    assert first[0] == 0
    assert first[2] == pytest.approx(128, abs=2)
    assert (np.diff(first_levels(THRESHOLDS)) >= 1).all()
    assert first_levels(np.arange(255) / 255).tolist() == list(range(256))
    with pytest.raises(ValueError, match="256 thresholds"):
        first_levels(np.arange(256) / 256)


def test_no_class_present():
    assert level_maps([], np.zeros((0, 4, 6)), THRESHOLDS).shape == (0, 4, 6)


def test_large_maps_are_reduced_by_picking():
    maps = np.arange(2 * 300 * 1024).reshape(2, 300, 1024)
    small = reduced(maps)
    np.testing.assert_array_equal(small, maps[:, 1::2, 1::2])
    np.testing.assert_array_equal(reduced(maps[:, :200, :512]), maps[:, :200, :512])
    assert reduced(np.zeros((1, 2000, 3))).shape == (1, 512, 1)
