"""DeepLab's head against the official code, its initial values, and what BatchNorm does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.models.deeplab import deeplab_head, deeplab_network, deeplab_resnet38
from wsss_tf.training.optimizer import poly_sgd
from wsss_tf.training.supervised import supervised_step

NEW_LAYERS = ("conv_fov", "conv_fov2", "cls_conv")


def head(num_classes=21, depth=24, filters=512, **options):
    image = keras.Input((None, None, 3))
    features = keras.Input((None, None, depth))
    outputs = deeplab_head(image, features, num_classes, filters=filters, **options)
    return keras.Model([image, features], outputs)


def test_head_agrees_with_the_official_code(golden):
    data = golden("deeplab_head_eval")
    model = head()
    arrays = {name for name in data if "__" in name}
    for layer in model.layers:
        for variable in layer.weights:
            if "seed" in variable.path:
                continue
            name = f"{layer.name}__{variable.name.removeprefix('moving_')}"
            name = name.replace("variance", "var")
            variable.assign(data[name])
            arrays.remove(name)
    assert not arrays
    height, width = data["size"]
    outputs = model([np.zeros((1, height, width, 3), np.float32), data["feature"]], training=False)
    np.testing.assert_allclose(outputs["logits_low"], data["logits_low"], atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], data["logits"], atol=1e-5)


def _expression(features, weights, size):
    """The head in training, without dropout, in other operations than Keras' layers."""

    def norm_relu(x, name):
        mean = tf.reduce_mean(x, [0, 1, 2])
        variance = tf.reduce_mean(tf.square(x - mean), [0, 1, 2])
        x = (x - mean) / tf.sqrt(variance + 1e-5)
        return tf.maximum(x * weights[f"{name}/gamma"] + weights[f"{name}/beta"], 0)

    padded = tf.pad(features, [[0, 0], [2, 2], [2, 2], [0, 0]])
    height, width = features.shape[1:3]
    x = 0
    for i in range(3):  # dilation 2: shifted products
        for j in range(3):
            part = padded[:, 2 * i : 2 * i + height, 2 * j : 2 * j + width]
            x += tf.einsum("bhwc,cd->bhwd", part, weights["conv_fov/kernel"][i, j])
    x = norm_relu(x, "bn_fov")
    x = norm_relu(tf.einsum("bhwc,cd->bhwd", x, weights["conv_fov2/kernel"][0, 0]), "bn_fov2")
    x = tf.einsum("bhwc,cd->bhwd", x, weights["cls_conv/kernel"][0, 0]) + weights["cls_conv/bias"]
    return tf.compat.v1.image.resize(x, size, align_corners=True)


def test_gradients_are_those_of_an_independent_expression():
    keras.utils.set_random_seed(0)
    model = head(num_classes=3, depth=16, filters=16, dilation=2, dropout=0.0)
    rng = np.random.default_rng(0)
    features = tf.Variable(rng.normal(size=(2, 6, 5, 16)).astype("float32"))
    upstream = rng.normal(size=(2, 21, 17, 3)).astype("float32")
    weights = {v.path: tf.Variable(v.value) for v in model.trainable_variables}
    for name in ("bn_fov", "bn_fov2"):
        for part, low in (("gamma", 0.5), ("beta", -0.5)):
            value = rng.uniform(low, low + 1, 16).astype("float32")
            weights[f"{name}/{part}"].assign(value)
            model.get_layer(name).weights[part == "beta"].assign(value)
    with tf.GradientTape(persistent=True) as tape:
        image = tf.zeros([2, 21, 17, 3])
        ours = model([image, features], training=True)["logits"]
        theirs = _expression(features, weights, (21, 17))
        ours_sum, theirs_sum = (tf.reduce_sum(x * upstream) for x in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    variables = {v.path: v.value for v in model.trainable_variables}
    assert variables.keys() == weights.keys()
    pairs = {
        "features": (tape.gradient(ours_sum, features), tape.gradient(theirs_sum, features)),
        **{
            name: (tape.gradient(ours_sum, variables[name]), tape.gradient(theirs_sum, weight))
            for name, weight in weights.items()
        },
    }
    for name, (a, b) in pairs.items():
        # Float32 sums over the map in another order.
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), err_msg=name)


def test_initial_values_are_those_of_pytorch():
    keras.utils.set_random_seed(0)
    weights = {v.path: np.asarray(v.value) for v in head().weights if "seed" not in v.path}
    for name, fan_out in (("conv_fov", 9 * 512), ("conv_fov2", 512), ("cls_conv", 21)):
        kernel = weights[f"{name}/kernel"]
        assert kernel.std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
        assert np.abs(kernel).max() > 2.5 * kernel.std()  # not truncated
    bias = weights["cls_conv/bias"]
    assert 0.6 * 512**-0.5 < np.abs(bias).max() <= 512**-0.5


def network(**options):
    backbone = functools.partial(deeplab_resnet38, width=1 / 32, **options)
    return deeplab_network(5, backbone, head_width=1 / 32, dilation=2)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    return {
        "image": rng.normal(size=(2, 33, 41, 3)).astype("float32"),
        "mask": rng.integers(0, 5, (2, 33, 41)).astype("uint8"),
    }


def test_outputs_and_names(batch):
    net = network()
    outputs = net(batch["image"])
    assert outputs["logits_low"].shape == (2, 5, 6, 5)
    assert outputs["logits"].shape == (2, 33, 41, 5)
    assert outputs["logits"].dtype == "float32"
    names = {v.path.split("/")[0] for v in net.trainable_variables}
    assert {"conv1a", "b2_conv_branch2a", *NEW_LAYERS} <= names  # nothing is frozen


@pytest.mark.large
def test_saved_network_reloads(batch, tmp_path):
    net = network()
    outputs = net(batch["image"])
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False)
    np.testing.assert_allclose(loaded(batch["image"])["logits"], outputs["logits"], atol=1e-5)


def test_batchnorm_takes_batch_statistics_and_keeps_gamma_and_beta(batch):
    net = network()
    before = {v.path: np.array(v.value) for v in net.variables}
    step = supervised_step(net, align_corners=True)
    step.compile(
        poly_sgd(10, NEW_LAYERS, learning_rate=0.01, batchnorm_multiplier=0.0), run_eagerly=True
    )
    step.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    for variable in net.variables:
        change = np.abs(variable.value - before[variable.path]).max()
        if "seed" in variable.path or variable.path.endswith(("gamma", "beta")):
            continue
        assert change > 0, variable.path
    for variable in net.variables:
        if variable.path.endswith(("gamma", "beta")):
            np.testing.assert_array_equal(variable.value, before[variable.path])
    # A step moves the statistics by 0.0003 of the way; the input's own are known.
    stem = net.get_layer("b2_bn_branch2a")
    mean = keras.ops.conv(
        np.pad(batch["image"], [[0, 0], [1, 1], [1, 1], [0, 0]]), before["conv1a/kernel"]
    )
    mean = np.mean(mean, axis=(0, 1, 2))
    np.testing.assert_allclose(stem.moving_mean.value, 0.0003 * mean, atol=1e-6)


def test_frozen_batchnorm_is_that_of_the_backbone_only(batch):
    net = network(train_batchnorm=False)
    trained = {v.path for v in net.trainable_variables if v.path.endswith("gamma")}
    assert trained == {"bn_fov/gamma", "bn_fov2/gamma"}
    before = np.array(net.get_layer("bn7").moving_mean.value)
    net(batch["image"], training=True)
    np.testing.assert_array_equal(net.get_layer("bn7").moving_mean.value, before)
    assert np.abs(net.get_layer("bn_fov").moving_mean.value).max() > 0
