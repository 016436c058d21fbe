import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import few_of

from wsss_tf.backbones.efficientnet import efficientnet

STAGES = ("stage1", "stage2", "stage3", "stage4")


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def randomise(network):
    rng = np.random.default_rng(1)
    for v in network.variables:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.0, v.shape))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(0.1 * rng.normal(size=v.shape))
    return network


@pytest.mark.parametrize("output_stride", few_of([8, 16, 32], 8))
def test_sizes(output_stride):
    net = efficientnet("b0", output_stride, width=1 / 2)
    x = images(64, 96)
    shapes = {k: tuple(v.shape) for k, v in net(x).items()}
    assert shapes == net.compute_output_shape(x.shape)
    for i, (stage, channels) in enumerate(zip(STAGES, (16, 16, 64, 160))):
        stride = min(4 * 2**i, output_stride)
        assert shapes[stage] == (2, 64 // stride, 96 // stride, channels)


def test_dilated_features_at_every_stride_are_those_of_the_undilated_network():
    nominal = randomise(efficientnet("b0", 32, width=1 / 4))
    dilated = efficientnet("b0", 8, width=1 / 4)
    dilated.set_weights(nominal.get_weights())

    # Squeeze and excitation averages over all positions, dense or not: leave it out.
    def without_excitation(net):
        for layer in net.layers:
            if layer.name.endswith("se_expand"):
                layer.kernel.assign(tf.zeros_like(layer.kernel))
        return net

    nominal, dilated = without_excitation(nominal), without_excitation(dilated)
    x = images(256, 320)[:1]
    sparse, dense = np.asarray(nominal(x)["stage4"]), np.asarray(dilated(x)["stage4"])
    # A stride of 2, padded for even sizes, takes the second of two positions: 2 (2 i + 1) + 1.
    # Away from the border, which is padded otherwise.
    worst = np.abs(dense[:, 3::4, 3::4] - sparse)[:, 3:-3, 3:-3].max()
    assert worst <= 1e-4 * np.abs(sparse).max()


def test_gradients_reach_every_weight():
    net = efficientnet("b0", 8, width=1 / 4)
    x = images(32, 48)
    variables = [v.value for v in net.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(net(x, training=True)["stage4"] ** 2)
    for variable, gradient in zip(net.trainable_variables, tape.gradient(loss, variables)):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path


def test_batchnorm_and_dropping_by_argument():
    net = efficientnet("b0", train_batchnorm=False, drop_connect=0.0, width=1 / 4)
    assert not [x for x in net.layers if isinstance(x, keras.layers.Dropout)]
    x = images(32, 32)
    np.testing.assert_array_equal(net(x, training=True)["stage4"], net(x, training=False)["stage4"])
    net = efficientnet("b0", synchronized_batchnorm=False, width=1 / 4)
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(norm.synchronized, norm.epsilon) for norm in norms} == {(False, 1e-3)}
    rates = [x.rate for x in net.layers if isinstance(x, keras.layers.Dropout)]
    assert len(rates) == 9  # one for every block that adds its input
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2 * 14 / 16)


def test_unknown_options():
    with pytest.raises(ValueError, match="'b8'"):
        efficientnet("b8")
    with pytest.raises(ValueError, match="output_stride=4"):
        efficientnet("b0", 4)
