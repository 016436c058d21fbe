"""Softmax cross entropy over the pixels that count: values, gradients, counts."""

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.losses.segmentation import hard_pixels, softmax_cross_entropy


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


# === Hard pixels ===


def reference_hard(loss, is_valid, probability, share):
    """The same by sorting each image's probabilities, as implementations for one GPU do."""
    chosen = np.zeros(loss.shape, bool)
    for b in range(len(loss)):
        probs = np.exp(-loss[b][is_valid[b]].astype(np.float64))
        if not probs.size:
            continue
        least = min(int(np.ceil(share * loss[b].size)), probs.size)
        threshold = max(probability, np.sort(probs)[least - 1] if least else 0)
        chosen[b] = is_valid[b] & (np.exp(-loss[b].astype(np.float64)) <= threshold + 1e-9)
    return chosen


@pytest.mark.parametrize("share", [0, 0.2, 0.7, 1])
@pytest.mark.parametrize("probability", [0.01, 0.7, 1])
def test_hard_pixels(probability, share):
    rng = np.random.default_rng(5)
    loss = rng.exponential(0.4, (4, 5, 7)).astype("float32")
    loss[1] *= 0.1  # an easy image
    is_valid = rng.random(loss.shape) < 0.8
    is_valid[2], is_valid[3, 1:] = False, False  # nothing, and fewer pixels than the share
    found = np.asarray(hard_pixels(loss, is_valid, probability, share))
    expected = reference_hard(loss, is_valid, probability, share)
    np.testing.assert_array_equal(found, expected)
    assert not found[2].any()


def test_hard_pixels_alone_count_and_learn(case):
    logits, mask = case
    variable = tf.Variable(logits)

    def loss(**options):
        with tf.GradientTape() as tape:
            total, count = softmax_cross_entropy(variable, mask, **options)
            mean = tf.reduce_sum(total) / tf.reduce_sum(count)
        return total, count, tape.gradient(mean, variable).numpy()

    everything = loss()
    same = loss(hard_probability=1.0)
    for one, other in zip(everything, same):
        np.testing.assert_allclose(one, other)
    total, count, gradient = loss(hard_probability=0.3, hard_share=0.1)
    probs = tf.nn.softmax(logits).numpy()
    true = np.take_along_axis(probs, np.where(mask == 255, 0, mask)[..., None], -1)[..., 0]
    hard = (mask != 255) & (true <= 0.3)
    np.testing.assert_array_equal(count, hard.sum((1, 2)))
    assert 2 < hard[0].sum() < 10  # more than the share, and not all
    np.testing.assert_allclose(total[0], -np.log(true[0][hard[0]]).sum(), rtol=1e-5)
    np.testing.assert_array_equal((gradient != 0).any(-1), hard)
    with pytest.raises(ValueError, match="exclude each other"):
        softmax_cross_entropy(logits, mask, over_all_pixels=True, hard_probability=0.7)


@pytest.mark.parametrize(("probability", "share"), [(0, 0.1), (1.5, 0.1), (0.7, 2)])
def test_hard_pixels_out_of_range(probability, share):
    with pytest.raises(ValueError, match=f"{probability}, at least a share of {share}"):
        hard_pixels(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool), probability, share)
