"""Softmax cross entropy over the pixels that count: values, gradients, counts."""

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.losses.segmentation import softmax_cross_entropy


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 4, 5, 6)).astype("float32") * 4
    mask = rng.integers(0, 6, (3, 4, 5)).astype("uint8")
    mask[0, :2] = 255
    mask[2] = 255
    return logits, mask


def reference(logits, mask):
    """The same in float64, pixel by pixel."""
    totals, gradient = np.zeros(len(logits)), np.zeros(logits.shape)
    for b, y, x in np.ndindex(mask.shape):
        if mask[b, y, x] == 255:
            continue
        z = logits[b, y, x].astype(np.float64)
        probability = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        totals[b] -= np.log(probability[mask[b, y, x]])
        gradient[b, y, x] = probability
        gradient[b, y, x, mask[b, y, x]] -= 1
    return totals, gradient


def test_values_and_gradients(case):
    logits, mask = case
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        total, count = softmax_cross_entropy(variable, mask)
        loss = tf.reduce_sum(total)
    expected, gradient = reference(logits, mask)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, variable), gradient, atol=1e-6)
    np.testing.assert_array_equal(count, [10, 20, 0])
    assert float(total[2]) == 0


def test_over_all_pixels_changes_the_count_only(case):
    valid, everywhere = softmax_cross_entropy(*case), softmax_cross_entropy(*case, True)
    np.testing.assert_array_equal(valid[0], everywhere[0])
    np.testing.assert_array_equal(everywhere[1], [20, 20, 20])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(case, dtype):
    logits = tf.cast(case[0], dtype)
    total, count = softmax_cross_entropy(logits, case[1])
    assert total.dtype == count.dtype == tf.float32
    np.testing.assert_allclose(total, reference(np.float64(tf.cast(logits, "float32")), case[1])[0])


def test_large_logits_stay_finite():
    logits = np.float32([[[[1e4, -1e4]]]])
    total, _ = softmax_cross_entropy(logits, np.uint8([[[1]]]))
    np.testing.assert_allclose(total, [2e4])
