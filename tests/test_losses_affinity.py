import numpy as np
import tensorflow as tf

from wsss_tf.losses.affinity import TERM_WEIGHTS, affinity_terms, pair_kinds
from wsss_tf.training.step import global_mean


def close(actual, expected, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def test_pairs_of_a_label_map_are_the_official_ones(golden):
    data = golden("psa_labels")
    kinds = pair_kinds(data["label"][None], 5)
    for name, expected in [("bg", "bg_pos"), ("fg", "fg_pos"), ("neg", "neg")]:
        np.testing.assert_array_equal(kinds[name][0], data[expected])


def test_loss_and_gradient_are_the_official_ones(golden):
    data = golden("psa_loss")
    kinds = pair_kinds(data["label"], 5)
    for name, kind in kinds.items():
        np.testing.assert_array_equal(kind, data[f"{name}_label"])
    affinity = tf.constant(data["aff"])
    with tf.GradientTape() as tape:
        tape.watch(affinity)
        terms = affinity_terms(affinity, kinds)
        means = {
            name: tf.reduce_mean(global_mean(total, count, epsilon=1e-5))
            for name, (total, count) in terms.items()
        }
        loss = sum(TERM_WEIGHTS[name] * mean for name, mean in means.items())
    for name, mean in means.items():
        assert terms[name][0].shape == terms[name][1].shape == (2,)
        close(tf.reduce_sum(terms[name][1]), data[f"{name}_count"])
        close(mean, data[f"{name}_loss"])
    close(loss, data["loss"])
    close(tape.gradient(loss, affinity), data["grad_aff"], atol=1e-7)


def test_kinds_by_hand():
    labels = np.array([[[0, 0, 7, 7, 255], [255, 0, 7, 3, 0]]])  # radius 2, offsets (0, 1) first
    kinds = pair_kinds(labels, 2)
    # Starts: the first row without its ends. Partners: right, then below left, below, below right.
    assert kinds["bg"][0].numpy().tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert kinds["fg"][0].numpy().tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert kinds["neg"][0].numpy().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_nothing_known_is_no_loss():
    kinds = pair_kinds(np.full((2, 6, 16), 255), 5)
    terms = affinity_terms(tf.fill([2, 34, 16], 0.5), kinds)
    for total, count in terms.values():
        assert not np.any(total)
        assert not np.any(global_mean(total, count, epsilon=1e-5))


def test_extreme_affinities_are_finite():
    kinds = {name: tf.ones([1, 1, 2]) for name in TERM_WEIGHTS}
    affinity = tf.constant([[[0.0, 1.0]]])
    with tf.GradientTape() as tape:
        tape.watch(affinity)
        loss = sum(total for total, _ in affinity_terms(affinity, kinds).values())
    assert np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, affinity)).all()
