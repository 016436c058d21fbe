"""Networks are written with keras.ops alone: each takes a picture on Keras' JAX backend too."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# In a process of its own: Keras chooses its backend when it is imported. JAX compiles every
# operation anew for each shape: values are computed on few layers, and the backbones are traced.
CODE = """
import functools, sys
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


@pytest.mark.large
def test_every_network_takes_a_picture_on_jax():
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # half the time, most of it compilation
    }
    result = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 20
