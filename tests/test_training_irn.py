"""IRN's steps: what their terms are, that they learn a few images by heart, and replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone
from two_replicas import train_on_one_and_two

from wsss_tf import ops
from wsss_tf.data.source import Source
from wsss_tf.errors import UserError
from wsss_tf.models.irn import irn_cam_network, irn_network
from wsss_tf.training.irn import irn_cam_step, irn_step
from wsss_tf.training.optimizer import GroupedAdam, uniform_sgd

RADIUS = 3


def tiny_network(displacement=True, radius=RADIUS):
    return irn_network(backbone=tiny_backbone, radius=radius, displacement=displacement)


def tiny_batch(rows=8, columns=11):
    """Return four pictures of coloured boxes on grey, and their labels with unknown seams."""
    rng = np.random.default_rng(0)
    labels = np.zeros((4, rows, columns), np.uint8)
    image = 0.2 * rng.normal(size=(4, 4 * rows, 4 * columns, 3))
    for i in range(4):
        middle = rng.integers(4, columns - 3)
        labels[i, 1:, :middle] = 1 + i % 2
        image[i, 4:, : 4 * middle, i % 2] += 2
        labels[i, rng.integers(2, rows), :] = 255
    return {"image": image.astype(np.float32), "affinity_labels": labels}


def test_terms_are_those_of_the_formula():
    net, batch = tiny_network(), tiny_batch()
    terms = irn_step(net).loss_terms(batch)
    outputs = net(batch["image"], training=True)
    edge = 1 / (1 + np.exp(-np.float64(outputs["edge_logits"][..., 0])))
    displacement = np.float64(outputs["displacement"])
    names = ("bg", "fg", "neg", "dp_bg", "dp_fg")
    sums = {name: [0.0, 1e-5] for name in names}
    offsets = ops.pair_offsets(RADIUS)
    for i, y, x in np.ndindex(4, 8 - RADIUS + 1, 11 - 2 * RADIUS + 2):
        x += RADIUS - 1
        for dy, dx in offsets:
            ends = batch["affinity_labels"][i, [y, y + dy], [x, x + dx]].tolist()
            if 255 in ends:
                continue
            kind = "neg" if ends[0] != ends[1] else "fg" if ends[0] else "bg"
            box = np.mgrid[0 : dy + 1, min(0, dx) : max(0, dx) + 1].reshape(2, -1).T
            near = [(dy * b - dx * a) ** 2 < dy**2 + dx**2 for a, b in box]
            affinity = 1 - max(edge[i, y + a, x + b] for a, b in box[near])
            sums[kind][0] -= np.log(1 + 1e-5 - affinity if kind == "neg" else affinity + 1e-5)
            sums[kind][1] += 1
            if kind != "neg":
                way = np.array([dy, dx]) if kind == "fg" else 0
                error = displacement[i, y, x] - displacement[i, y + dy, x + dx] - way
                sums[f"dp_{kind}"][0] += np.abs(error).sum()
                sums[f"dp_{kind}"][1] += 2
    weights = {"bg": 0.25, "fg": 0.25, "neg": 0.5, "dp_bg": 0.5, "dp_fg": 0.5}
    assert set(terms) == {f"loss_{name}" for name in names}
    for name, (total, count) in sums.items():
        assert count > 20
        expected = weights[name] * total / count
        np.testing.assert_allclose(np.mean(terms[f"loss_{name}"]), expected, rtol=1e-4)
    # The boundaries' terms are the same without displacements.
    plain = tiny_network(displacement=False)
    for variable in plain.variables:
        [same] = [v for v in net.variables if v.path == variable.path]
        variable.assign(same)
    for name, term in irn_step(plain).loss_terms(batch).items():
        np.testing.assert_array_equal(term, terms[name])


def test_learns_four_images_by_heart():
    keras.utils.set_random_seed(0)
    net, batch = tiny_network(displacement=False), tiny_batch()
    before = {v.path: np.array(v) for v in net.variables}
    step = irn_step(net)
    step.compile(GroupedAdam(0.02))
    data = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(data, epochs=4, steps_per_epoch=20, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "loss_bg", "loss_fg", "loss_neg"}
    assert history["loss"][0] > 0.3
    assert history["loss"][-1] < 0.25
    edge = tf.sigmoid(net(batch["image"])["edge_logits"][..., 0]).numpy()
    labels = batch["affinity_labels"].astype(int)
    across = (labels[:, :, 1:] != labels[:, :, :-1]) & (labels.max(-1) < 255)[:, :, None]
    largest = np.maximum(edge[:, :, 1:], edge[:, :, :-1])
    assert largest[across].mean() > largest[~across].mean() + 0.3
    for variable in net.variables:  # the backbone stays as it is
        if not variable.path.startswith("fc_"):
            np.testing.assert_array_equal(variable, before[variable.path])


def test_labels_of_another_size_are_refused():
    batch = tiny_batch()
    batch["affinity_labels"] = batch["affinity_labels"][:, ::2, ::2]
    message = r"boundaries are 8 x 11, its labels 4 x 6 .* irn_augmentation\.stride = 4\."
    with pytest.raises(UserError, match=message):
        irn_step(tiny_network()).loss_terms(batch)


def test_two_replicas_equal_one():
    batch = tiny_batch()
    batch["affinity_labels"][0] = 255  # the replicas count different numbers of pairs

    def make_step(is_single):
        step = irn_step(tiny_network(radius=2))
        # Making a graph takes longer than three steps; test_commands.py has replicas in one.
        step.compile(uniform_sgd(3, momentum=0.9), run_eagerly=True)
        return step

    runs = train_on_one_and_two(make_step, batch, steps=2)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name, values in losses.items():
        np.testing.assert_allclose(mirrored_losses[name], values, atol=2e-6)
    for path, weight in weights.items():
        np.testing.assert_allclose(mirrored_weights[path], weight, atol=5e-6, err_msg=path)


def test_the_mean_of_displacements_is_that_of_the_pictures():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 30, 50, 3), dtype=np.uint8)

    def read(index):
        return {"image": tf.constant(pictures)[index]}

    names = ("background", "x")
    source = Source("test", "all", names, tuple("abcde"), np.ones((5, 1)), read, False)
    net = irn_network(backbone=tiny_backbone, radius=2, crop_size=40, displacement=True)
    step = irn_step(net)
    assert step.finish(source, batch_size=2)
    padded = np.zeros((5, 40, 40, 3), np.float32)
    padded[:, :30] = ops.normalize_image(pictures[:, :, :40])
    before = np.asarray(net(padded[:4], training=True)["displacement"])  # the last fills no batch
    expected = before.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(net.get_layer("mean_shift").mean, expected, atol=1e-5)
    after = np.asarray(net(padded[:4], training=False)["displacement"])
    np.testing.assert_allclose(after.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    assert np.abs(expected).max() > 1e-3
    # Boundaries have nothing of the kind.
    assert not irn_step(tiny_network(displacement=False)).finish(source)


def test_classifier_step():
    keras.utils.set_random_seed(0)
    step = irn_cam_step(irn_cam_network(3, backbone=tiny_backbone))
    images = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)
    labels = np.float32([[1, 0, 1], [0, 1, 0]])
    terms = step.loss_terms({"image": images, "labels": labels})
    logits = np.asarray(step.net(images, training=True)["class_logits"])
    expected = np.logaddexp(0, logits) - labels * logits
    assert step.term_names == ("loss_cls",)
    np.testing.assert_allclose(terms["loss_cls"], expected.mean(axis=1), rtol=1e-4)
