"""BatchNorm folded into convolutions computes what it computed before."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from tiny_backbone import tiny_backbone

from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.layers.dilated_conv import DilatedConv2D
from wsss_tf.models.deeplab import deeplab_network
from wsss_tf.models.fcn import fcn_network
from wsss_tf.models.folding import Folded, folded
from wsss_tf.models.seam import seam_network

NETWORKS = {
    "seam": functools.partial(seam_network, 3, functools.partial(resnet38, width=1 / 64)),
    "deeplab": functools.partial(deeplab_network, 4, tiny_backbone, head_width=1 / 32),
    "fcn": functools.partial(fcn_network, 4, tiny_backbone),
}


def randomise(net):
    """Give every variable of BatchNorm a value that shows where it is left out."""
    rng = np.random.default_rng(0)
    for variable in net.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape, scale=0.2))
    return net


def largest_difference(net, other, size=(33, 47)):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    first, second = net(x, training=False), other(x, training=False)
    pairs = zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True)
    return max(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs)


def norms(net):
    return [layer.name for layer in net.layers if isinstance(layer, layers.BatchNormalization)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_computes_the_same(name):
    net = randomise(NETWORKS[name]())
    before = [np.array(variable) for variable in net.variables]
    new = folded(net)
    assert largest_difference(net, new) < 2e-5
    assert [layer.name for layer in new.layers] == [layer.name for layer in net.layers]
    assert list(new.output) == list(net.output)
    assert new.count_params() < net.count_params()
    assert len(norms(new)) < max(len(norms(net)), 1)
    for value, variable in zip(before, net.variables):
        np.testing.assert_array_equal(value, variable)


def test_all_of_a_backbone_without_preactivation_is_folded():
    assert norms(folded(efficientnet_lite())) == []


def test_what_cannot_be_folded_is_left():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="bias")(image)
    x = layers.BatchNormalization(scale=False, name="no_scale")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="two_each")(x)
    x = layers.BatchNormalization(center=False, name="no_center")(x)
    x = DilatedConv2D(5, 3, dilation_rate=2, name="dilated")(x)
    x = layers.BatchNormalization(name="of_dilated")(x)
    x = ConvBatchNorm(6, 3, name="unit")(x)
    x = layers.Conv2D(4, 1, activation="relu", name="activated")(x)
    x = layers.BatchNormalization(name="behind_activation")(x)
    twice = layers.Conv2D(4, 1, name="taken_twice")(x)
    x = layers.Add()([layers.BatchNormalization(name="of_one")(twice), twice])
    shown = layers.Conv2D(4, 1, name="shown")(x)
    x = layers.BatchNormalization(name="of_shown")(shown)
    # (Half precision is left too; not every CPU has it.)
    double = layers.Conv2D(4, 1, dtype="float64", name="double")(x)
    x = layers.BatchNormalization(dtype="float64", name="of_double")(double)
    net = randomise(keras.Model(image, {"shown": shown, "x": x}))
    new = folded(net)
    assert (
        norms(folded(new)) == norms(new) == ["behind_activation", "of_one", "of_shown", "of_double"]
    )
    assert isinstance(new.get_layer("no_center"), Folded)
    assert new.get_layer("unit").folded
    assert largest_difference(net, new) < 1e-5


def test_a_folded_network_is_saved_and_loaded(tmp_path):
    new = folded(randomise(fcn_network(4, tiny_backbone)))
    new.save(tmp_path / "net.keras")
    assert largest_difference(new, keras.saving.load_model(tmp_path / "net.keras")) == 0
