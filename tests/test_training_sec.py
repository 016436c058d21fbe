import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from two_replicas import train_on_one_and_two

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.layers.mean_field import mean_field
from wsss_tf.losses.sec import clipped_softmax, constrain
from wsss_tf.training.optimizer import poly_adam, step_sgd
from wsss_tf.training.sec import classifier_step, crf_image, sec_step

SIZE, SIDE = 33, 5
TERMS = ("loss_seed", "loss_expand", "loss_constrain")


def close(actual, expected, atol=1e-5, rtol=0.0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


def network():
    """Return three convolutions to a grid of 5 x 5 scores, and their averages."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIZE, SIZE, 3))
    for name in ("conv1", "conv2", "conv3"):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(32, 3, strides=2, activation="relu", name=name)(x)
    scores = layers.Conv2D(4, 1, name="fc8")(x)
    class_logits = layers.GlobalAveragePooling2D(name="class_logits")(scores)
    return keras.Model(image, {"logits_low": scores, "class_logits": class_logits})


def tiny_batch():
    """Return four pictures of squares of their classes' colours, with the squares' middles as cues.

    Also returns the true masks on the network's grid.
    """
    rng = np.random.default_rng(0)
    labels = np.float32([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]])
    picture = np.full((4, SIZE, SIZE, 3), 90) + rng.integers(-10, 10, (4, SIZE, SIZE, 3))
    mask = np.zeros((4, SIZE, SIZE), int)
    for i, present in enumerate(labels):
        places = [(2, 1), (15, 16)] if i % 2 else [(14, 1), (1, 15)]
        for k, (top, left) in zip(np.flatnonzero(present), places):
            part = np.s_[i, top : top + 16, left : left + 16]
            picture[part][..., k] += 130
            mask[part] = k + 1
    mask = mask[:, ::8, ::8]
    cues = np.where(rng.random(mask.shape) < 0.5, mask, 255).astype(np.uint8)
    batch = {
        "image": np.asarray(ops.normalize_image(picture)),
        "labels": labels,
        "cues": cues,
    }
    return batch, mask


def test_crf_sees_every_eighth_pixel_as_it_was():
    picture = np.random.default_rng(0).integers(0, 256, (2, 321, 321, 3))
    colours = crf_image(ops.normalize_image(picture), (41, 41))
    np.testing.assert_array_equal(colours, picture[:, ::8, ::8])


def test_terms_are_the_losses_of_the_networks_scores():
    net, (batch, _) = network(), tiny_batch()
    net.get_layer("fc8").kernel.assign(10 * net.get_layer("fc8").kernel)
    terms = sec_step(net).loss_terms(batch)
    assert tuple(terms) == TERMS
    assert {tuple(term.shape) for term in terms.values()} == {(4,)}
    logits = np.asarray(net(batch["image"])["logits_low"])
    probs = np.asarray(clipped_softmax(logits), np.float64)

    cues = batch["cues"]
    seed = [
        -np.mean([np.log(probs[i, y, x, cues[i, y, x]]) for y, x in np.argwhere(cues[i] != 255)])
        for i in range(4)
    ]
    close(terms["loss_seed"], seed)

    def pooled(i, k, d):
        weights = d ** np.arange(SIDE**2)
        return np.sum(np.sort(probs[i, ..., k].ravel())[::-1] * weights) / weights.sum()

    expand = []
    for i, present in enumerate(batch["labels"]):
        there = [-np.log(pooled(i, k + 1, 0.996)) for k in np.flatnonzero(present)]
        absent = [-np.log(1 - probs[i, ..., k + 1].max()) for k in np.flatnonzero(1 - present)]
        expand.append(np.mean(there) + np.mean(absent) - np.log(pooled(i, 0, 0.999)))
    close(terms["loss_expand"], expand)

    colours = np.asarray(ops.denormalize_image(batch["image"]))[:, ::8, ::8].round()
    crf = mean_field(logits.astype(np.float64), colours)
    close(terms["loss_constrain"], constrain(probs, crf), atol=1e-3)


def test_settings_reach_the_losses():
    net, (batch, _) = network(), tiny_batch()
    usual = sec_step(net).loss_terms(batch)
    for term, options in {
        "loss_expand": [{"present_decay": 1.0}, {"absent_decay": 1.0}, {"background_decay": 0.0}],
        "loss_constrain": [
            {"crf_iterations": 1},
            {"bilateral_weight": 1.0},
            {"bilateral_xy": 0.5},
            {"bilateral_rgb": 100.0},
            {"gaussian_weight": 0.0},
            {"gaussian_xy": 2.0},
        ],
    }.items():
        for option in options:
            terms = sec_step(net, **option).loss_terms(batch)
            changed = {k for k in TERMS if np.abs(terms[k] - usual[k]).max() > 1e-6}
            assert changed == {term}, option


def test_no_gradient_flows_through_the_crf():
    net, (batch, _) = network(), tiny_batch()
    step = sec_step(net, use_seed=False, use_expand=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(step.loss_terms(batch)["loss_constrain"])
    kernel = net.get_layer("fc8").kernel.value
    through_step = tape.gradient(loss, kernel)
    logits = net(batch["image"], training=True)["logits_low"]
    q = mean_field(logits, crf_image(batch["image"], (SIDE, SIDE))).numpy()
    with tf.GradientTape() as tape:
        logits = net(batch["image"], training=True)["logits_low"]
        loss = tf.reduce_sum(constrain(clipped_softmax(logits), q))
    expected = tape.gradient(loss, kernel)
    close(through_step, expected, atol=1e-6 * np.abs(expected).max() + 1e-7)


@pytest.mark.parametrize("name", TERMS)
def test_each_loss_alone(name):
    net, (batch, _) = network(), tiny_batch()
    options = {f"use_{term.removeprefix('loss_')}": term == name for term in TERMS}
    step = sec_step(net, **options)
    alone = step.loss_terms(batch)
    assert list(alone) == list(step.term_names) == [name]
    assert [metric.name for metric in step.metrics] == [name, "loss"]
    close(alone[name], sec_step(net).loss_terms(batch)[name])
    step.compile(poly_adam(60, (), learning_rate=0.01))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(dataset, epochs=2, steps_per_epoch=15, shuffle=False, verbose=0).history
    # Classes share the pixels, so expansion cannot reach zero.
    bound = {"loss_seed": 0.05, "loss_expand": 1.9, "loss_constrain": 0.01}[name]
    assert np.mean(alone[name]) > (2.5 if name == "loss_expand" else 0.1)
    assert history[name][-1] < bound


def test_overfits_four_images():
    net, (batch, mask) = network(), tiny_batch()
    step = sec_step(net)
    step.compile(poly_adam(60, (), learning_rate=0.01))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(dataset, epochs=3, steps_per_epoch=20, shuffle=False, verbose=0).history
    assert set(history) == {"loss", *TERMS}
    assert history["loss_seed"][-1] < 0.1
    scores = net(batch["image"], training=True)["logits_low"]
    agreement = np.mean(np.argmax(scores, axis=-1) == mask)
    assert agreement > 0.85  # half of it is a cue


@pytest.mark.large
def test_two_replicas_equal_one():
    batch, _ = tiny_batch()
    order = [0, 3, 1, 2]  # the replicas see different classes
    batch = {name: array[order] for name, array in batch.items()}
    batch["cues"][0, :3] = 255  # and different numbers of cues

    def make_step(is_single):
        step = sec_step(network())
        step.compile(step_sgd(3, ("fc8",), learning_rate=0.01), run_eagerly=is_single)
        return step

    runs = train_on_one_and_two(make_step, batch)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name, values in losses.items():
        close(mirrored_losses[name], values, atol=5e-6)
    for path, weight in weights.items():
        close(mirrored_weights[path], weight, atol=5e-6)


@pytest.mark.large
def test_terms_compiled_by_xla_equal_those_that_are_not():
    step, (batch, _) = sec_step(network(), crf_iterations=2), tiny_batch()
    compiled = tf.function(step.loss_terms, autograph=False, jit_compile=True)(batch)
    for name, term in step.loss_terms(batch).items():
        close(compiled[name], term, atol=1e-4)


def test_what_cannot_be_trained_is_refused():
    net, (batch, _) = network(), tiny_batch()
    with pytest.raises(ValueError, match="all False"):
        sec_step(net, use_seed=False, use_expand=False, use_constrain=False)
    without = {key: value for key, value in batch.items() if key != "cues"}
    with pytest.raises(UserError, match=r"sec_augmentation\.cues"):
        sec_step(net).loss_terms(without)
    assert "loss_seed" not in sec_step(net, use_seed=False).loss_terms(without)
    fine = {**batch, "cues": np.zeros((4, 9, 9), np.uint8)}
    with pytest.raises(UserError, match=r"cues are 9 x 9.*grid is 5 x 5.*--grid=5"):
        sec_step(net).loss_terms(fine)
    assert "loss_seed" not in sec_step(net, use_seed=False).loss_terms(fine)
    with pytest.raises(ValueError, match="4 classes, the labels 4 and one"):
        sec_step(net).loss_terms({**batch, "labels": np.ones((4, 4), np.float32)})


def test_classifier_overfits_four_images():
    net, (batch, _) = network(), tiny_batch()
    batch["labels"] = np.float32([[1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0]])
    step = classifier_step(net)
    logits, labels = net(batch["image"])["class_logits"], batch["labels"]
    expected = -np.log(np.where(labels, keras.ops.sigmoid(logits), keras.ops.sigmoid(-logits)))
    close(step.loss_terms(batch)["loss_cls"], expected.sum(axis=1))
    step.compile(poly_adam(60, (), learning_rate=0.01))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(dataset, epochs=3, steps_per_epoch=20, shuffle=False, verbose=0).history
    assert history["loss_cls"][-1] < 0.1
