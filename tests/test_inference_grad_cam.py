"""Grad-CAM against plain CAM, and both methods against sums over pixels written out."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone
from tiny_network import tiny_network

from wsss_tf import ops
from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.data.shapes import shapes_source
from wsss_tf.files import run_folder
from wsss_tf.inference.grad_cam import GradCam, grad_cam_weights, split_at_head
from wsss_tf.inference.multi_scale_cam import MultiScaleCam
from wsss_tf.inference.write_cams import label_source
from wsss_tf.models.seam import seam_network

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (2, 45, 38, 3)).astype("uint8")
LABELS = np.float32([[0, 1, 0, 1], [0, 1, 0, 0]])


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    return tiny_network(4, dropout=0.5)


def test_grad_cam_of_a_linear_head_is_the_plain_cam(net):
    plain = MultiScaleCam(net, "cam")(PICTURES)
    found = GradCam(net, "gradcam")(PICTURES, np.ones_like(LABELS))
    assert plain["cams"].numpy().std() > 0.05
    np.testing.assert_allclose(found["cams"], plain["cams"], atol=2e-5)
    np.testing.assert_allclose(found["probabilities"], plain["probabilities"], atol=1e-6)


def test_classes_that_nobody_has_are_left_out(net):
    compute = GradCam(net, "gradcam++", (0.5, 1.0))
    every = compute(PICTURES, np.ones_like(LABELS))["cams"].numpy()
    some = compute(PICTURES, LABELS)["cams"].numpy()
    np.testing.assert_allclose(some[..., [1, 3]], every[..., [1, 3]], atol=1e-6)
    assert not some[..., [0, 2]].any()
    none = compute(PICTURES, 0 * LABELS)["cams"].numpy()
    assert not none.any()
    assert none.shape == (2, 45, 38, 4)


def test_mirrored_pictures_give_mirrored_maps(net):
    compute = GradCam(net, "gradcam++", (1.0, 1.5))
    cams = compute(PICTURES, LABELS)["cams"].numpy()
    mirrored = compute(PICTURES[:, :, ::-1], LABELS)["cams"].numpy()
    np.testing.assert_allclose(mirrored[:, :, ::-1], cams, atol=2e-3)  # 8-bit rounding


class Nonlinear:
    """A score with gradients of both signs that differ from place to place, and those by hand."""

    def __init__(self, features):
        _, self.height, self.width, depth = features.shape
        rng = np.random.default_rng(1)
        self.weight = rng.normal(size=(self.height, self.width, depth))

    def score(self, features):  # sum of w * A^2 over everything
        return tf.reduce_sum(tf.cast(self.weight, tf.float32) * features**2, axis=[1, 2, 3])

    def gradient(self, features, b, i, j, k):
        return 2 * self.weight[i, j, k] * float(features[b, i, j, k])


def weights_by_hand(features, head, method):
    """Return [B, D] by loops over pixels, in float64."""
    batch, height, width, depth = features.shape
    weights = np.zeros((batch, depth))
    for b in range(batch):
        for k in range(depth):
            pixels = [(i, j) for i in range(height) for j in range(width)]
            total = sum(float(features[b, i, j, k]) for i, j in pixels)
            for i, j in pixels:
                g = head.gradient(features, b, i, j, k)
                if method == "gradcam":
                    weights[b, k] += g
                elif g != 0:
                    a = g**2 / (2 * g**2 + total * g**3)
                    weights[b, k] += a * max(g, 0)
    return weights


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_weights_agree_with_sums_over_pixels(method):
    features = RNG.uniform(0, 2, (2, 4, 5, 3)).astype("float32")
    features[0, 1] = 0
    head = Nonlinear(features)
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = head.score(x)
    found = grad_cam_weights(x, tape.gradient(score, x), method)
    expected = weights_by_hand(features, head, method)
    assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_are_bounded_whatever_the_features():
    """Also where the sum of linear features is -2 / g, at which the formula has its pole."""
    features = RNG.normal(-0.5, 1, (2, 4, 5, 7)).astype("float32")
    gradients = RNG.normal(0, 3, features.shape).astype("float32")
    features[0, :, :, 0] -= features[0, :, :, 0].mean() + 0.1  # a sum of -2 ...
    gradients[0, :, :, 0] = 1  # ... at a gradient of 1
    weights = grad_cam_weights(tf.constant(features), tf.constant(gradients), "gradcam++").numpy()
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights <= np.maximum(gradients, 0).sum((1, 2)) / 2 + 1e-6).all()
    positive = grad_cam_weights(np.maximum(features, 0), tf.constant(gradients), "gradcam++")
    np.testing.assert_allclose(weights, positive, rtol=1e-6)


def test_grad_cam_plus_plus_of_the_network_by_hand(net):
    # The score is the spatial mean of a 1x1 convolution, so dS/dA is fc8's weight over h * w.
    size = (24, 32)
    picture = RNG.integers(0, 255, (1, *size, 3)).astype("uint8")
    body, _ = split_at_head(net)
    conv6 = body(ops.normalize_image(picture), training=False)[0].numpy()[0].astype("float64")
    kernel = net.get_layer("fc8").kernel.numpy()[0, 0].astype("float64")
    height, width, depth = conv6.shape
    expected = np.zeros((height, width, 4))
    for c in range(4):
        for k in range(depth):
            g = kernel[k, c + 1] / (height * width)
            total, weight = conv6[:, :, k].sum(), 0.0
            for _ in range(height * width):
                weight += g**2 / (2 * g**2 + total * g**3) * max(g, 0)
            expected[:, :, c] += weight * conv6[:, :, k]
    compute = GradCam(net, "gradcam++", (1.0,), flip=False)
    maps = compute._maps(tf.constant(conv6[None], tf.float32), tf.range(4))[0]
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)
    # On the pictures: the same, brought to their size and scaled to one.
    cams = compute(picture, np.ones((1, 4), np.float32))["cams"].numpy()[0]
    full = ops.resize_bilinear(np.float32(expected[None]), size, align_corners=True).numpy()[0]
    full = np.maximum(full, 0)
    low, high = full.min(axis=(0, 1)), full.max(axis=(0, 1))
    np.testing.assert_allclose(cams, (full - low) / (high - low), atol=2e-3)  # 1e-5 terms


BACKBONES = {
    "bn7_relu": functools.partial(resnet38, width=1 / 64),
    "stage4": tiny_backbone,
    "lite_head_relu": efficientnet_lite,
}


@pytest.mark.parametrize("last", BACKBONES)
def test_head_begins_at_the_last_stage_of_any_backbone(last):
    net = seam_network(2, BACKBONES[last], head_width=1 / 64)
    body, head = split_at_head(net)
    assert body.output[0] is net.get_layer(last).output
    x = RNG.normal(size=(2, 19, 26, 3)).astype("float32")
    features, cam = body(x, training=False)
    outputs = net(x, training=False)
    np.testing.assert_allclose(cam, outputs["cam"], atol=1e-6)
    np.testing.assert_allclose(head(features, training=False), outputs["cam_low"], atol=1e-6)


def test_other_networks_and_methods_are_refused(net):
    with pytest.raises(ValueError, match="method 'cam'; there are"):
        GradCam(net, "cam")
    image = keras.Input((None, None, 3))
    other = keras.Model(image, {"cam": keras.layers.Conv2D(3, 1)(image)}, name="other")
    with pytest.raises(ValueError, match="other is not a network with SEAM's head"):
        GradCam(other)


def test_files_hold_the_classes_of_each_picture(net, tmp_path):
    source = shapes_source("val", num_val=3, image_size=32)
    compute = GradCam(net, "gradcam++", (1.0,), flip=False)
    assert label_source(compute, source, tmp_path / "labelled") == (3, 0)
    for i, image_id in enumerate(source.ids):
        class_ids, cams = run_folder.load_cams(tmp_path / "labelled/cams", image_id)
        assert class_ids.tolist() == (np.flatnonzero(source.labels[i]) + 1).tolist()
        assert cams.any()
    unlabelled = dataclasses.replace(source, labels=0 * source.labels)
    label_source(compute, unlabelled, tmp_path / "unlabelled", label_threshold=0)
    class_ids, cams = run_folder.load_cams(tmp_path / "unlabelled/cams", source.ids[0])
    assert class_ids.tolist() == [1, 2, 3, 4]
