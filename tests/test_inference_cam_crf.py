"""Background powers and the thresholds of the maps that they stand for."""

import math

import numpy as np
import pytest

from wsss_tf.data.affinity import confident_labels
from wsss_tf.inference.cam_crf import (
    BACKGROUND_POWERS,
    BACKGROUND_THRESHOLD,
    WALK_POWER,
    crf_probs,
    power_for_maps,
    power_of_threshold,
    threshold_of_power,
)
from wsss_tf.runs.recipe import Recipe


@pytest.mark.parametrize("threshold", [0.03, 0.27, 0.5, 0.81])
def test_a_class_beats_the_background_above_the_threshold(threshold):
    maps = np.random.default_rng(0).random((3, 40, 30)).astype(np.float32)
    maps[:, :10] *= threshold
    power = power_of_threshold(threshold)
    is_class = crf_probs(maps, power).argmax(-1) > 0
    np.testing.assert_array_equal(is_class, maps.max(0) > threshold)
    assert 0 < is_class.mean() < 1


@pytest.mark.parametrize("power", [1e-3, 0.7, 4, 24, 1e5])
def test_powers_and_thresholds_are_inverse(power):
    threshold = threshold_of_power(power)
    assert (1 - threshold) ** power == pytest.approx(threshold, rel=1e-9)
    assert power_of_threshold(threshold) == pytest.approx(power, rel=1e-6)


def test_known_thresholds():
    assert threshold_of_power(1) == 0.5
    assert threshold_of_power(4) == pytest.approx(0.2755, abs=1e-4)
    assert threshold_of_power(24) == pytest.approx(0.0939, abs=1e-4)


@pytest.mark.parametrize("power", [*BACKGROUND_POWERS, WALK_POWER])
def test_official_powers_are_those_of_maps_with_the_official_threshold(power):
    assert Recipe.background_threshold == BACKGROUND_THRESHOLD
    # What the CRF and the walk reckon with is exactly the official number.
    assert np.float32(power_for_maps(BACKGROUND_THRESHOLD, power)) == power


@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.97])
def test_powers_of_other_maps_bracket_their_threshold(threshold):
    low, high = (threshold_of_power(power_for_maps(threshold, p)) for p in BACKGROUND_POWERS)
    assert 0 < high < threshold < low < 1
    assert high < threshold_of_power(power_for_maps(threshold, WALK_POWER)) < low


def test_affinity_learns_background_below_the_low_threshold_and_classes_above_the_high_one():
    """As `crf_stage.thresholds` says; without the CRF between, blocks of one value."""
    scores = np.array([0.1, 0.29, 0.31, 0.59, 0.61, 0.9], np.float32)
    maps = np.zeros((1, 8, 8 * len(scores)), np.float32) + np.repeat(scores, 8)
    low, high = (crf_probs(maps, power_of_threshold(t)) for t in (0.6, 0.3))
    labels = confident_labels(low, high).numpy()
    assert labels.tolist() == [[0, 0, 255, 255, 1, 1]]


def test_numbers_that_cannot_be():
    for threshold in (0, 1, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            power_of_threshold(threshold)
        with pytest.raises(ValueError, match="between 0 and 1"):
            power_for_maps(threshold, 4)
    for power in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="number above 0"):
            threshold_of_power(power)
