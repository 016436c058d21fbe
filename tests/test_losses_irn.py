"""IRN's losses: values and gradients of the official training loop, and displacements by hand."""

import numpy as np
import pytest
import tensorflow as tf
from test_layers_path_affinity import order_of

from wsss_tf import ops
from wsss_tf.layers.path_affinity import path_affinity
from wsss_tf.losses.affinity import affinity_terms, pair_kinds
from wsss_tf.losses.irn import TERM_WEIGHTS, displacement_terms
from wsss_tf.training.step import global_mean


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("radius", [5, 10])
def test_losses_are_the_official_ones(golden, radius):
    data = golden(f"irn/irn_losses_r{radius}")
    order = order_of(data["offsets"], radius)
    logits, displacement = tf.constant(data["edge_logits"]), tf.constant(data["dp"])
    kinds = pair_kinds(data["label"], radius)
    with tf.GradientTape() as tape:
        tape.watch([logits, displacement])
        affinity = path_affinity(tf.sigmoid(logits[..., 0]), radius)
        terms = affinity_terms(affinity, kinds)
        terms |= displacement_terms(displacement, kinds, radius)
        means = {
            name: tf.reduce_mean(global_mean(total, count, epsilon=1e-5))
            for name, (total, count) in terms.items()
        }
        loss = sum(TERM_WEIGHTS[name] * mean for name, mean in means.items())
    close(affinity, data["aff"][:, order])
    close(ops.pair_differences(displacement, radius), data["pair_disp"][:, order])
    for name, mean in means.items():
        kind = name.removeprefix("dp_")
        assert float(tf.reduce_sum(kinds[kind])) == data[f"{kind}_count"]
        close(mean, data[f"loss_{name}"])
    close(loss, data["loss"])
    grad_logits, grad_displacement = tape.gradient(loss, [logits, displacement])
    close(grad_logits, data["grad_edge_logits"], atol=1e-7)
    close(grad_displacement, data["grad_dp"], atol=1e-7)


def test_pair_labels_are_the_official_ones(golden):
    data = golden("irn/affinity_labels")
    order = order_of(data["offsets"], 10)
    kinds = pair_kinds(data["label"][None], 10)
    for name, official in (("bg", "bg_pos"), ("fg", "fg_pos"), ("neg", "neg")):
        np.testing.assert_array_equal(kinds[name][0], data[official][order])


def test_displacements_to_one_centre_cost_nothing():
    rows, columns = np.indices((6, 9)).astype(np.float32)
    centre = np.stack([2.5 - rows, 4.0 - columns], axis=-1)[None]
    labels = np.full((1, 6, 9), 3)
    terms = displacement_terms(centre, pair_kinds(labels, 3), 3)
    close(terms["dp_fg"][0], [0.0], atol=1e-4)
    assert terms["dp_fg"][1].numpy().tolist() == [2 * len(ops.pair_offsets(3)) * 4 * 5]
    # The same displacements for background, which is to have none.
    terms = displacement_terms(centre, pair_kinds(0 * labels, 3), 3)
    ways = np.abs(ops.pair_offsets(3)).sum() * 4 * 5
    close(terms["dp_bg"][0], [ways], atol=1e-3)
    assert not np.any(terms["dp_fg"][1])


def test_gradient_of_pair_differences_by_differences():
    maps = np.random.default_rng(0).normal(size=(2, 5, 8, 2)).astype(np.float32)
    x = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(x)
        differences = ops.pair_differences(x, 3)
    upstream = np.random.default_rng(1).normal(size=differences.shape).astype(np.float32)
    gradient = tape.gradient(differences, x, upstream)
    expected = np.zeros_like(maps)
    pixels = np.arange(40).reshape(1, 5, 8)
    start, end = (np.asarray(v)[0] for v in ops.pair_values(tf.constant(pixels), 3))
    flat = expected.reshape(2, 40, 2)
    for b in range(2):
        np.add.at(flat[b], np.broadcast_to(start, end.shape), upstream[b])
        np.subtract.at(flat[b], end, upstream[b])
    close(gradient, expected)
