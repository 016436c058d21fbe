"""IRN's branches and CAM network: values and gradients of the official code."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone

from wsss_tf.backbones.dilated_resnet import _VARIANTS, _Blocks
from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.models.irn import (
    SOURCES,
    displacement_head,
    edge_head,
    irn_cam_head,
    irn_cam_network,
    irn_network,
    irn_resnet50,
)

STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 16}
_WEIGHTS = {"moving_mean": "mean", "moving_variance": "var"}


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def golden_name(variable):
    """Return the name in the golden files: fc_edge1_gn/gamma is fc_edge1__gamma there."""
    layer, name = variable.path.split("/")
    return f"{layer.removesuffix('_gn')}__{_WEIGHTS.get(name, name)}"


def assign(net, data):
    for variable in net.variables:
        name = golden_name(variable)
        variable.assign(data["mean_shift"] if name == "mean_shift__mean" else data[name])


def golden_branches(data, displacement=True):
    """Return the branches with the golden weights, as a model of a dict of features."""
    inputs = {
        source: keras.Input((None, None, data[f"x{i}"].shape[-1]), name=source)
        for i, source in enumerate(SOURCES, start=1)
    }
    edge = edge_head(inputs, STRIDES, data["fc_edge1__kernel"].shape[-1])
    outputs = {"edge_logits": edge}
    if displacement:
        filters = [data[f"fc_dp{i}__kernel"].shape[-1] for i in range(1, 8)]
        outputs["dp"] = displacement_head(inputs, STRIDES, filters)
    net = keras.Model(inputs, outputs)
    assign(net, data)
    return net


def features(data):
    return {source: tf.constant(data[f"x{i}"]) for i, source in enumerate(SOURCES, start=1)}


def test_branches_are_the_official_ones(golden):
    data = golden("irn/edge_displacement_branch")
    net = golden_branches(data)
    inputs = features(data)
    with tf.GradientTape() as tape:
        outputs = net(inputs, training=True)
        total = sum(
            tf.reduce_sum(outputs[name] * data[f"upstream_{part}"])
            for name, part in (("edge_logits", "edge"), ("dp", "dp"))
        )
    close(outputs["edge_logits"], data["edge_logits"])
    close(outputs["dp"], data["dp"])
    close(net(inputs, training=False)["dp"], data["dp_shifted"])
    sides = keras.Model(net.input, net.get_layer("edge_features").output)(inputs)
    close(sides, np.concatenate([data[f"edge{i}"] for i in range(1, 6)], axis=-1))
    variables = net.trainable_variables
    expected = {name for name in data if name.startswith("grad_")}
    assert {f"grad_{golden_name(v)}" for v in variables} == expected
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
        # Values to 43; the official float32 is off by up to 1.7e-5.
        close(gradient, data[f"grad_{golden_name(variable)}"], atol=5e-5)


def test_edge_branch_of_the_published_widths(golden):
    data = golden("irn/edge_branch_full")
    net = golden_branches(data, displacement=False)
    assert net.count_params() == 125_409
    close(net(features(data))["edge_logits"], data["edge_logits"])


# === The backbone's blocks ===


@pytest.mark.parametrize("file", ["stride2_0", "stride2_1", "project", "identity"])
def test_bottleneck_is_the_official_one(golden, file):
    data = golden(f"irn/bottleneck_{file}")
    x = keras.Input((None, None, data["x"].shape[-1]))
    is_first = "downsample__kernel" in data
    blocks = _Blocks(_VARIANTS["v1"], width=1.0, fixed_statistics=True)
    out = blocks.bottleneck(x, 16, "conv2_b", int(data["stride"]), 1, is_first)
    net = keras.Model(x, out)
    names = {f"conv2_b_{i}_conv": f"conv{i}" for i in (1, 2, 3)}
    names |= {f"conv2_b_{i}_bn": f"bn{i}" for i in (1, 2, 3)}
    names |= {"conv2_b_0_conv": "downsample", "conv2_b_0_bn": "downsample_bn"}

    def name(variable):
        layer, weight = variable.path.split("/")
        return f"{names[layer]}__{_WEIGHTS.get(weight, weight)}"

    for variable in net.variables:
        variable.assign(data[name(variable)])
    x = tf.constant(data["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = net(x, training=True)  # BatchNorm has its own statistics in training too
        total = tf.reduce_sum(out * data["upstream"])
    close(out, data["out"])
    variables = net.trainable_variables
    assert {v.path.split("/")[1] for v in variables} == {"kernel", "gamma", "beta"}
    grad_x, *gradients = tape.gradient(total, [x, *variables])
    close(grad_x, data["grad_x"], atol=5e-5)
    compared = 0
    for variable, gradient in zip(variables, gradients):
        if (key := f"grad_{name(variable)}") in data:
            close(gradient, data[key], atol=5e-5)  # values to 75
            compared += 1
    assert compared == 9


def test_stem_is_the_official_one(golden):
    data = golden("irn/resnet_stem")
    x = keras.Input((None, None, 3))
    net = keras.Model(x, _Blocks(_VARIANTS["v1"], width=1.0).stem(x))
    for variable in net.variables:
        layer, weight = variable.path.split("/")
        layer = {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
        variable.assign(data[f"{layer}__{_WEIGHTS.get(weight, weight)}"])
    close(net(data["x"]), data["out"])


# === The CAM network ===


def test_classifier_is_the_official_one(golden):
    data = golden("irn/classifier_cam")
    features = keras.Input((None, None, 48))
    net = keras.Model(features, irn_cam_head(features, 20))
    net.get_layer("classifier").kernel.assign(data["classifier__kernel"])
    x = tf.constant(data["features"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = net(x, training=True)
        loss = tf.reduce_mean(sigmoid_cross_entropy(data["label"], outputs["class_logits"]))
    close(outputs["class_logits"], data["logits"])
    close(loss, data["loss"])
    close(tf.reduce_mean(outputs["cam"], axis=(1, 2))[:, 1:], data["logits"])
    assert not np.any(outputs["cam"][..., 0])
    variables = net.trainable_variables
    grad_x, grad_kernel = tape.gradient(loss, [x, *variables])
    close(grad_x, data["grad_features"], atol=1e-7)
    close(grad_kernel, data["grad_classifier__kernel"], atol=1e-7)
    maps = np.maximum(outputs["cam"][..., 1:], 0)
    close(maps[0] + maps[1][:, ::-1], data["cam"])


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_cam_network():
    net = irn_cam_network(20)
    assert net.name, net.backbone_name == ("irn_cam", "resnet50_v1")
    trained = {}
    for variable in net.trainable_variables:
        part = variable.path.split("_")[0].split("/")[0]
        trained[part] = trained.get(part, 0) + int(np.prod(variable.shape))
    assert trained.pop("classifier") == 40_960
    assert set(trained) == {"conv4", "conv5"}
    assert sum(trained.values()) == 22_063_104
    assert net.compute_output_shape((1, 321, 500, 3))["cam"] == (1, 21, 32, 21)
    dilations = {x.dilation_rate for x in net.layers if hasattr(x, "dilation_rate")}
    assert dilations == {(1, 1)}


# === Whole networks ===


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_network():
    net = irn_network(displacement=True)
    variables = net.trainable_variables
    sizes = dict.fromkeys(("fc_edge", "fc_dp"), 0)
    for variable in variables:
        [branch] = [name for name in sizes if variable.path.startswith(name)]
        sizes[branch] += int(np.prod(variable.shape))
    assert sizes == {"fc_edge": 125_409, "fc_dp": 1_269_120}
    shapes = net.compute_output_shape((1, 321, 500, 3))
    assert shapes["edge_logits"] == (1, 81, 125, 1)
    assert shapes["displacement"] == (1, 81, 125, 2)
    assert (net.get_layer("affinity").radius, net.get_layer("affinity").crop_size) == (10, 512)
    limit = np.abs(net.get_layer("fc_edge5").kernel).max()
    assert limit == pytest.approx(2048**-0.5, rel=1e-3)


BACKBONES = {
    "tiny": functools.partial(tiny_backbone, last=16),
    "resnet50_v1": functools.partial(irn_resnet50, width=1 / 16),
    "efficientnet_lite0": efficientnet_lite,
    "resnet38": functools.partial(resnet38, width=1 / 64),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_will_do(name):
    net = irn_network(backbone=BACKBONES[name], radius=3, displacement=True)
    x = np.random.default_rng(0).normal(size=(2, 37, 50, 3)).astype(np.float32)
    outputs = net(x, training=True)
    assert outputs["edge_logits"].shape == (2, 10, 13, 1)
    assert outputs["displacement"].shape == (2, 10, 13, 2)
    shapes = net.compute_output_shape(x.shape)
    assert {k: tuple(v.shape) for k, v in outputs.items()} == shapes
    assert all(np.isfinite(v).all() for v in outputs.values())
    # The frozen backbone gives the same in training.
    again = net(x, training=False)
    close(outputs["edge_logits"], again["edge_logits"], atol=1e-6)
    assert all(v.path.startswith("fc_") for v in net.trainable_variables)


def test_saved_network_reloads_without_custom_objects(tmp_path):
    net = irn_network(backbone=tiny_backbone, radius=3, crop_size=64, displacement=True)
    net.get_layer("mean_shift").mean.assign([0.5, -1.0])
    x = np.random.default_rng(0).normal(size=(2, 33, 18, 3)).astype(np.float32)
    net.save(tmp_path / "irn.keras")
    copy = keras.models.load_model(tmp_path / "irn.keras")
    for name, expected in net(x).items():
        np.testing.assert_array_equal(copy(x)[name], expected)
    assert copy.get_layer("affinity").crop_size == 64
    assert len(copy.trainable_variables) == len(net.trainable_variables)


def test_mixed_precision_keeps_the_branches_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = irn_network(backbone=tiny_backbone, radius=3, displacement=True)
    assert net.get_layer("fc_edge2").output.dtype == "bfloat16"
    assert {v.dtype for v in net.output.values()} == {"float32"}
    assert net.get_layer("fc_edge2_gn").compute_dtype == "float32"
