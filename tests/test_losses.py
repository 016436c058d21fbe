import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.losses import classification, seam


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def mean_and_gradient(function, x):
    """Return the batch mean of a per-example loss and its gradient."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        terms = function(x)
        loss = tf.reduce_mean(terms)
    assert terms.shape == (len(x),)
    return loss, tape.gradient(loss, x)


def test_sigmoid_cross_entropy_agrees_with_the_official_code(golden):
    data = golden("multilabel_soft_margin")
    loss, gradient = mean_and_gradient(
        lambda logits: classification.sigmoid_cross_entropy(data["target"], logits), data["logits"]
    )
    close(loss, data["loss"])
    close(gradient, data["grad_logits"], atol=1e-7)


def test_sigmoid_cross_entropy_is_finite_for_huge_logits():
    loss, gradient = mean_and_gradient(
        lambda logits: classification.sigmoid_cross_entropy([[1, 0, 0]], logits),
        np.float32([[-1e4, -1e4, 1e4]]),
    )
    close(loss, 2e4 / 3, atol=1e-2)
    close(gradient, [[-1 / 3, 0, 1 / 3]])


def test_sigmoid_cross_entropy_by_hand():
    loss = classification.sigmoid_cross_entropy([[1, 0], [0, 0]], [[0.0, 0.0], [np.log(3), 0.0]])
    close(loss, [np.log(2), (np.log(4) + np.log(2)) / 2], atol=1e-6)


def test_minimum_pooling_agrees_with_the_official_code(golden):
    data = golden("adaptive_min_pooling_loss")
    loss, gradient = mean_and_gradient(seam.minimum_pooling, data["x"])
    close(loss, data["loss"])
    close(gradient, data["grad_x"], atol=1e-7)


def test_minimum_pooling_by_hand():
    # Strongest class per pixel: 1..8 (and 9 dropped: floor(9 / 4) = 2 smallest of nine).
    scores = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    scores = np.concatenate([scores, -scores], axis=-1)
    close(seam.minimum_pooling(scores), [1.5])
    close(seam.minimum_pooling(scores - 1.5), [0.25])  # -0.5 counts as zero


def test_equivariance_leaves_the_background_out_and_reaches_both_branches():
    rng = np.random.default_rng(0)
    first, second = tf.constant(rng.random((2, 2, 4, 5, 3), np.float32))
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        loss = seam.equivariance(first, second)
    close(loss, np.abs(first - second)[..., 1:].mean(axis=(1, 2, 3)))
    gradients = tape.gradient(loss, [first, second])
    for gradient in gradients:
        assert not np.any(gradient[..., 0])
        assert np.all(gradient[..., 1:])
    np.testing.assert_array_equal(gradients[0], -gradients[1])


def test_cross_equivariance_by_hand():
    # One pixel row, background and two classes; the target becomes (0.4, 0.6, 0) and (0.8, 0, 0.2).
    cam = np.float32([[[[7, 0.6, 0.5], [7, 0.1, 0.2]]]])
    refined = np.float32([[[[0.4, 0.5, 0.2], [0.5, 0.0, 0.2]]]])
    # Differences: 0, 0.1, 0.2 and 0.3, 0, 0.
    close(seam.cross_equivariance(cam, refined, hard_pixel_ratio=1), [0.1])
    close(seam.cross_equivariance(cam, refined, hard_pixel_ratio=0.5), [0.2])
    close(seam.cross_equivariance(cam, refined, hard_pixel_ratio=0.2), [0.3])


def test_cross_equivariance_trains_the_refined_map_only():
    rng = np.random.default_rng(0)
    cam, refined = tf.constant(rng.random((2, 2, 4, 5, 3), np.float32))
    with tf.GradientTape() as tape:
        tape.watch([cam, refined])
        loss = seam.cross_equivariance(cam, refined)
    to_cam, to_refined = tape.gradient(loss, [cam, refined])
    assert to_cam is None
    assert np.count_nonzero(to_refined) == 2 * int(0.2 * 4 * 5 * 3)


LOSSES = {
    "minimum_pooling": lambda a, b: seam.minimum_pooling(a),
    "equivariance": seam.equivariance,
    "cross_equivariance": seam.cross_equivariance,
    "cross_equivariance_all_pixels": lambda a, b: seam.cross_equivariance(a, b, 1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_terms_follow_the_order_of_the_batch_and_ignore_mirroring(loss):
    first, second = np.random.default_rng(0).random((2, 3, 4, 5, 6), np.float32)
    terms = np.asarray(loss(first, second))
    close(loss(first[::-1], second[::-1]), terms[::-1], atol=1e-7)
    close(loss(first[:, :, ::-1], second[:, :, ::-1]), terms, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_terms_are_the_same_where_sizes_are_known_only_in_the_graph(loss):
    first, second = np.random.default_rng(0).random((2, 3, 4, 5, 6), np.float32)
    unknown = tf.TensorSpec([None, None, None, 6])
    close(
        tf.function(loss, autograph=False, input_signature=[unknown, unknown])(first, second),
        loss(first, second),
    )
