"""Networks are written with keras.ops alone: each takes a picture on Keras' JAX backend too."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# In a process of its own: Keras chooses its backend when it is imported. JAX compiles every
# operation anew for each shape: values are computed on few layers, and the backbones are traced.
CODE = """
import functools, re, sys
import jax
import numpy as np
import keras
from tiny_backbone import tiny_backbone
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.efficientnet import efficientnet
from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.backbones.vgg16 import vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov
from wsss_tf.models.affinitynet import affinity_network
from wsss_tf.models.cpnet import cpnet_network
from wsss_tf.models.deeplab import deeplab_network
from wsss_tf.models.fcn import fcn_network, fcn_se_network
from wsss_tf.models.irn import irn_cam_network, irn_network
from wsss_tf.models.sanet import sanet_network
from wsss_tf.models.seam import seam_network
from wsss_tf.models.sec import background_network, foreground_network, sec_network

assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules
x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
tiny = tiny_backbone
for network in (
    seam_network(3, tiny, head_width=1 / 4),
    affinity_network(backbone=tiny, head_width=1 / 16),
    irn_network(backbone=functools.partial(tiny, last=16), radius=3, displacement=True),
    irn_cam_network(3, backbone=tiny),
    deeplab_network(4, tiny, head_width=1 / 32, dilation=2),
    fcn_network(4, tiny, auxiliary=True),
    fcn_se_network(4, functools.partial(tiny, last=16)),
    sanet_network(4, tiny),
    cpnet_network(4, 64, tiny),
    sec_network(4, 64, tiny),
    foreground_network(3, 64, tiny, 1 / 64, True),
    background_network(3, 64, tiny, 1 / 64),
):
    outputs = network(x, training=True)
    shapes = network.compute_output_shape(x.shape)
    assert {k: tuple(v.shape) for k, v in outputs.items()} == shapes, network.name
    assert all(np.isfinite(v).all() for v in outputs.values()), network.name
    print(network.name)
# Gradients that are written by hand: of paths, and of pairs.
from wsss_tf import ops
from wsss_tf.layers.path_affinity import path_affinity
edge = 1 / (1 + np.exp(-x[..., 0]))[:, :9, :12]
gradient = jax.grad(lambda edge: path_affinity(edge, 3).sum())(edge)
assert gradient.shape == edge.shape and (gradient <= 0).all()
paths = path_affinity(edge, 3).size
np.testing.assert_allclose(gradient.sum(), -paths, rtol=1e-5)  # each path has one largest pixel
pairs = jax.grad(lambda maps: (ops.pair_differences(maps, 3) ** 2).sum())(x[:, :9, :12])
np.testing.assert_allclose(pairs.sum(axis=(1, 2)), 0, atol=1e-3)
# Dilated convolutions have the gradients of Keras' own, without its strided window of a map's size.
for size, taps, padding, dilation in (
    ((9, 14), (3, 3), "valid", (2, 2)),
    ((11, 10), (3, 3), "same", (4, 4)),
    ((13, 7), (3, 3), "same", (12, 12)),
    ((10, 13), (2, 3), "same", (1, 3)),
):
    kernel = np.random.default_rng(1).normal(size=(*taps, 3, 5)).astype("float32")
    maps, found = x[:, : size[0], : size[1]], []
    for convolve in (
        lambda x, kernel: keras.ops.conv(x, kernel, padding=padding, dilation_rate=dilation),
        lambda x, kernel: ops.dilated_conv(x, kernel, padding, dilation),
    ):
        def half_square(x, kernel):
            y = convolve(x, kernel)
            return (y**2).sum() / 2, y
        lowered = jax.jit(jax.grad(half_square, (0, 1), has_aux=True)).lower(maps, kernel)
        windows = re.findall(r"window={size=[0-9]+x[0-9]+ stride", lowered.as_text("hlo"))
        gradients, y = lowered.compile()(maps, kernel)
        found.append((y, *gradients, len(windows)))
    assert (found[0][-1], found[1][-1]) == (1, 0)
    for value, expected in zip(found[1][:-1], found[0][:-1]):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6 * abs(expected).max())
# The gradient of a resized map is a product, not a scatter.
gradient = jax.jit(jax.grad(lambda x: (ops.resize_bilinear(x, (13, 20), True) ** 2).sum()))
assert "scatter" not in gradient.lower(maps).as_text("hlo")
# SEAM's losses and their gradients are those on TensorFlow.
from wsss_tf.training.affine import Affine
from wsss_tf.training.seam import seam_losses
assert "tensorflow" not in sys.modules
data = dict(np.load(sys.argv[1]))
def seam_loss(branches):
    transform = lambda maps: Affine(0.5)(maps, None)
    weights = {"er": 1.0, "ecr": 1.0, "minimum_pooling": 1.0}
    terms = seam_losses(*branches, data["labels"], transform, weights)
    return sum(term.mean() for term in terms.values())
branches = [{name: data[f"{name}{branch}"] for name in ("cam", "cam_rv")} for branch in (1, 2)]
loss, gradients = jax.jit(jax.value_and_grad(seam_loss))(branches)
np.testing.assert_allclose(loss, data["loss"], rtol=1e-5)
for branch, of_branch in enumerate(gradients, start=1):
    for name, gradient in of_branch.items():
        expected = data[f"gradient_{name}{branch}"]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * abs(expected).max())
# On GPUs products are as exact as a recipe says; the resizing above is always exact.
from wsss_tf.training.precision import set_tensor_float_32
for allowed, precision in ((True, "HIGH"), (False, "HIGHEST")):
    set_tensor_float_32(allowed)
    lowered = jax.jit(jax.numpy.dot).lower(edge[0], edge[0].T)
    assert f"[{precision}, {precision}]" in lowered.as_text()
assert "tensorflow" not in sys.modules
# Nothing is computed below, so that weights need not be drawn, which is compiled for each shape.
keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: np.zeros(shape, "f")
for backbone in (
    functools.partial(resnet38, width=1 / 64, train_batchnorm=True),
    functools.partial(dilated_resnet, width=1 / 16),
    functools.partial(dilated_resnet, width=1 / 16, variant="keras"),
    functools.partial(dilated_resnet, width=1 / 16, variant="v1", fixed_statistics=True),
    functools.partial(efficientnet, width=1 / 4),
    functools.partial(efficientnet_lite, train_batchnorm=True),
    functools.partial(vgg16, width=1 / 64, train_batchnorm=True),
    functools.partial(vgg16_largefov, width=1 / 64),
):
    net = backbone()
    shapes = jax.eval_shape(lambda x: net(x, training=False), x)
    assert {k: v.shape for k, v in shapes.items()} == net.compute_output_shape(x.shape), net.name
    print(net.name)
"""


def seam_loss_on_tensorflow():
    """Return the outputs of two branches as arrays, their loss and its gradients, by name."""
    import tensorflow as tf

    from wsss_tf.training.affine import Affine
    from wsss_tf.training.seam import seam_losses

    rng = np.random.default_rng(0)
    sizes = {1: (12, 17), 2: (6, 8)}
    outputs = {
        f"{name}{branch}": tf.constant(rng.normal(size=(2, *size, 4)), "float32")
        for branch, size in sizes.items()
        for name in ("cam", "cam_rv")
    }
    labels = np.float32([[1, 0, 1], [0, 1, 0]])
    weights = {"er": 1.0, "ecr": 1.0, "minimum_pooling": 1.0}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        branches = ({n: outputs[f"{n}{branch}"] for n in ("cam", "cam_rv")} for branch in (1, 2))
        terms = seam_losses(*branches, labels, lambda maps: Affine(0.5)(maps, None), weights)
        loss = sum(tf.reduce_mean(term) for term in terms.values())
    gradients = tape.gradient(loss, outputs)
    return {
        **outputs, "labels": labels, "loss": loss,
        **{f"gradient_{name}": gradient for name, gradient in gradients.items()},
    }  # fmt: skip


@pytest.mark.large
def test_every_network_takes_a_picture_on_jax(tmp_path):
    pytest.importorskip("jax")
    np.savez(tmp_path / "seam.npz", **seam_loss_on_tensorflow())
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # half the time, most of it compilation
    }
    line = [sys.executable, "-c", CODE, tmp_path / "seam.npz"]
    result = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 20
