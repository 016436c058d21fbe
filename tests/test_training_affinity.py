"""AffinityNet's step: it learns a few images by heart, and replicas change nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from two_replicas import train_on_one_and_two

from wsss_tf import ops
from wsss_tf.backbones.resnet38 import _Blocks
from wsss_tf.errors import UserError
from wsss_tf.models.affinitynet import affinity_head
from wsss_tf.training.affinity import affinity_step
from wsss_tf.training.optimizer import poly_adam, poly_sgd

NEW_LAYERS = ("f8_3", "f8_4", "f8_5", "f9")


def tiny_network():
    """Return three of the backbone's units, with trained BatchNorm, under the real head."""
    image = keras.Input((None, None, 3))
    blocks = _Blocks(width=1, train_batchnorm=True, synchronized=True, dropout=0, frozen_stages=0)
    x = blocks.conv(image, 16, 3, "conv1a")
    for name in ("b2", "b3"):
        x, _ = blocks.residual(x, name, 16, 16, 2, (1, 1))
    x, side = blocks.residual(x, "b4", 16, 32, 2, (1, 2))
    features = {"stage2": blocks.norm_relu(x, "bn4"), "stage3": blocks.norm_relu(x, "bn5")}
    features["stage4"] = blocks.norm_relu(x, "bn7")
    return keras.Model(image, affinity_head(features, (16, 16, 16)))


def tiny_batch(rows=6, columns=10):
    """Return four pictures of coloured boxes on grey, and labels with unknown seams."""
    rng = np.random.default_rng(0)
    labels = np.zeros((4, rows, columns), np.uint8)
    image = 0.2 * rng.normal(size=(4, 8 * rows, 8 * columns, 3))
    for i in range(4):
        middle = rng.integers(4, columns - 3)
        labels[i, 1:, :middle] = 1 + i % 2
        image[i, 8:, : 8 * middle, i % 2] += 2
        if i == 3:  # two classes side by side
            labels[i, 2:, middle:] = 2
            image[i, 16:, 8 * middle :, 0] -= 2
        labels[i, rng.integers(0, rows), :] = 255
    return {"image": image.astype(np.float32), "affinity_labels": labels}


def test_terms_are_those_of_the_formula():
    network, batch = tiny_network(), tiny_batch()
    terms = affinity_step(network).loss_terms(batch)
    assert {name: term.shape for name, term in terms.items()} == {
        "loss_bg": (4,), "loss_fg": (4,), "loss_neg": (4,)
    }  # fmt: skip
    features = np.asarray(network(batch["image"], training=True)["features"], np.float64)
    sums = {"bg": [0, 1e-5], "fg": [0, 1e-5], "neg": [0, 1e-5]}
    # A map of 6 rows: radius 2, one pixel around.
    for i, y, x in np.ndindex(4, 5, 8):
        for dy, dx in [(0, 1), (1, -1), (1, 0), (1, 1)]:
            a, b = batch["affinity_labels"][i, [y, y + dy], [x + 1, x + 1 + dx]].tolist()
            if 255 in (a, b):
                continue
            difference = features[i, y + dy, x + 1 + dx] - features[i, y, x + 1]
            affinity = np.exp(-np.abs(difference).mean())
            kind = "neg" if a != b else "fg" if a else "bg"
            sums[kind][0] -= np.log(1 + 1e-5 - affinity if kind == "neg" else affinity + 1e-5)
            sums[kind][1] += 1
    for (name, (total, count)), weight in zip(sums.items(), (0.25, 0.25, 0.5)):
        assert count > 5
        np.testing.assert_allclose(
            np.mean(terms[f"loss_{name}"]), weight * total / count, rtol=1e-4
        )


@pytest.mark.large
def test_overfits_four_images():
    keras.utils.set_random_seed(0)
    network, batch = tiny_network(), tiny_batch()
    step = affinity_step(network)
    step.compile(poly_adam(50, NEW_LAYERS, learning_rate=0.01))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(dataset, epochs=5, steps_per_epoch=10, verbose=0).history
    assert set(history) == {"loss", "loss_bg", "loss_fg", "loss_neg"}
    assert history["loss"][0] > 0.25
    assert history["loss"][-1] < 0.08
    # Pairs of different labels are told from pairs of equal ones.
    features = network(batch["image"], training=True)["features"]
    radius = ops.search_radius(6, 10)
    affinity = np.asarray(ops.pairwise_affinity(features, radius))
    start, end = ops.pair_values(tf.constant(batch["affinity_labels"]), radius)
    start, end = np.broadcast_arrays(start[:, None], end)
    known = (start < 255) & (end < 255)
    assert affinity[known & (start == end)].mean() > 0.8
    assert affinity[known & (start != end)].mean() < 0.3


def test_gradient_reaches_the_backbone():
    network = tiny_network()
    with tf.GradientTape() as tape:
        terms = affinity_step(network).loss_terms(tiny_batch())
        loss = sum(tf.reduce_mean(term) for term in terms.values())
    variables = network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
        assert gradient is not None, variable.path


def test_labels_of_another_size_are_refused():
    batch, step = tiny_batch(), affinity_step(tiny_network())
    batch["affinity_labels"] = batch["affinity_labels"][:, ::2, ::2]
    message = r"features are 6 x 10, its labels 3 x 5 .* affinity_augmentation\.stride = 8\."
    with pytest.raises(UserError, match=message):
        step.loss_terms(batch)


@pytest.mark.large
def test_two_replicas_equal_one():
    batch = tiny_batch()
    batch["affinity_labels"][0] = 255  # the replicas count different numbers of pairs

    def make_step(is_single):
        step = affinity_step(tiny_network())
        # Making a graph takes longer than three steps; test_commands.py has replicas in one.
        step.compile(poly_sgd(3, NEW_LAYERS, momentum=0.9), run_eagerly=True)
        return step

    runs = train_on_one_and_two(make_step, batch)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name, values in losses.items():
        np.testing.assert_allclose(mirrored_losses[name], values, atol=2e-6)
    for path, weight in weights.items():
        np.testing.assert_allclose(mirrored_weights[path], weight, atol=5e-6, err_msg=path)
