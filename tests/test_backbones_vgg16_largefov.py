import functools

import keras
import numpy as np
import pytest
from keras import layers

from wsss_tf import ops
from wsss_tf.backbones.vgg16 import BLOCKS, vgg16
from wsss_tf.backbones.vgg16_largefov import subsample_vgg16, vgg16_largefov
from wsss_tf.models.sec import background_network, foreground_network, sec_network
from wsss_tf.training.initial_weights import load_initial_weights


def embed(network, data):
    """Fill a network of 16-channel layers with smaller golden kernels, zeros elsewhere."""
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            for variable, golden in ((layer.kernel, "w"), (layer.bias, "b")):
                small = data[f"{layer.name}_{golden}"]
                value = np.zeros(variable.shape, np.float32)
                value[tuple(slice(n) for n in small.shape)] = small
                variable.assign(value)


def test_geometry_agrees_with_the_reference(golden):
    data = golden("sec/largefov_tiny")
    network = vgg16_largefov(width=1 / 64)
    embed(network, data)
    layer_of = {"conv3_3": "conv3_3_relu", "conv5_3": "conv5_3_relu", "fc6": "fc6_relu"}
    inner = {
        name: network.get_layer(layer_of.get(name, name)).output
        for name in ("conv3_3", "conv5_3", "pool5", "pool5a", "fc6", "caffe_input")
    }
    picture = data["input"] + np.float32([104, 117, 123])
    features = keras.Model(network.input, {**network.output, **inner})(
        ops.normalize_image(picture[..., ::-1])
    )
    np.testing.assert_allclose(features["caffe_input"], data["input"], atol=1e-3)
    for stage, name in (("stage1", "conv3_3"), ("stage3", "conv5_3")):
        np.testing.assert_array_equal(features[stage], features[name])
    for name in ("conv3_3", "conv5_3", "pool5", "pool5a", "fc6"):
        expected = data[f"out_{name}"]
        actual = np.asarray(features[name])
        count = expected.shape[-1]
        np.testing.assert_allclose(
            actual[..., :count], expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )
        assert not actual[..., count:].any()
    scores = np.asarray(features["stage4"])[..., :12] @ data["fc8_w"][0, 0] + data["fc8_b"]
    expected = data["out_fc8"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_sizes_of_any_image():
    network = vgg16_largefov(width=1 / 64)
    shapes = network.compute_output_shape((2, 41, 66, 3))
    assert shapes["stage1"] == (2, 11, 17, 16)
    assert shapes["stage2"] == shapes["stage3"] == shapes["stage4"] == (2, 6, 9, 16)
    features = network(np.zeros((2, 41, 66, 3), np.float32))
    assert {name: tuple(x.shape) for name, x in features.items()} == shapes


def test_dropout_and_batchnorm_are_where_they_belong():
    network = vgg16_largefov(width=1 / 64, train_batchnorm=True, dropout=0.25)
    rates = {x.name: x.rate for x in network.layers if isinstance(x, layers.Dropout)}
    assert rates == {"drop6": 0.25, "drop7": 0.25}
    norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
    assert len(norms) == 15
    assert not any("bn" in x.name for x in vgg16_largefov(width=1 / 64).layers)


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_size():
    network = vgg16_largefov()
    assert network.count_params() == 14_714_688 + 4_719_616 + 1_049_600
    assert network.compute_output_shape((1, 321, 321, 3))["stage4"] == (1, 41, 41, 1024)


def small_vgg16():
    """Return a classifier with the names of Keras' VGG16, few channels, random weights."""
    image = x = keras.Input((224, 224, 3))
    for number, (repeats, _) in enumerate(BLOCKS, start=1):
        for i in range(1, repeats + 1):
            name = f"block{number}_conv{i}"
            x = layers.Conv2D(16, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2, 2)(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc1", "fc2"):
        x = layers.Dense(64, "relu", bias_initializer="normal", name=name)(x)
    return keras.Model(image, x)


def test_fully_connected_layers_become_dilated_convolutions():
    vgg16 = small_vgg16()
    weights = subsample_vgg16(vgg16)
    network = vgg16_largefov(width=1 / 64)  # 16 channels, and 16 of the 64 units
    assert {v.path for v in network.variables if "seed" not in v.path} == weights.keys()
    for variable in network.trainable_variables:
        assert tuple(variable.shape) == weights[variable.path].shape
    np.testing.assert_array_equal(weights["conv4_2/kernel"], vgg16.get_layer("block4_conv2").kernel)
    # fc1 on features that are zero but at its taps 0, 3 and 6 is the small kernel.
    rng = np.random.default_rng(0)
    taps = rng.normal(size=(3, 3, 16)).astype(np.float32)
    features = np.zeros((7, 7, 16), np.float32)
    features[::3, ::3] = taps
    fc1, fc2 = (vgg16.get_layer(name) for name in ("fc1", "fc2"))
    whole = features.reshape(-1) @ np.asarray(fc1.kernel) + np.asarray(fc1.bias)
    small = np.tensordot(taps, weights["fc6/kernel"], 3) + weights["fc6/bias"]
    np.testing.assert_allclose(small, whole[::4], atol=1e-5)
    # fc2 on units that are zero but for those that are kept.
    units = np.zeros(64, np.float32)
    units[::4] = rng.normal(size=16)
    whole = units @ np.asarray(fc2.kernel) + np.asarray(fc2.bias)
    small = units[::4] @ weights["fc7/kernel"][0, 0] + weights["fc7/bias"]
    np.testing.assert_allclose(small, whole[::4], atol=1e-5)


def test_weights_start_all_three_networks(tmp_path):
    np.savez(tmp_path / "vgg16.npz", **subsample_vgg16(small_vgg16()))
    expected = {
        sec_network: (set(), {"fc8"}),
        foreground_network: ({"fc6", "fc7"}, {"fc6_cam", "fc7_cam", "fc8_cam"}),
        background_network: ({"fc6", "fc7"}, {"fc6_bg", "fc7_bg", "fc8_bg"}),
    }
    trunks = (vgg16_largefov, vgg16, functools.partial(vgg16, pools=5))
    for trunk, (build, layers_of) in zip(trunks, expected.items()):
        network = build(3, 33, functools.partial(trunk, width=1 / 64))
        loaded, missing, unused = load_initial_weights(network, tmp_path / "vgg16.npz")
        assert {"conv1_1/kernel", "conv5_3/bias"} <= set(loaded)
        assert tuple({path.split("/")[0] for path in x} for x in (unused, missing)) == layers_of


@pytest.mark.large
def test_initial_weights_from_keras_vgg16_fit():
    weights = subsample_vgg16(keras.applications.VGG16(weights=None))
    network = vgg16_largefov()
    shapes = {v.path: tuple(v.shape) for v in network.trainable_variables}
    assert shapes == {name: array.shape for name, array in weights.items()}
