import functools

import keras
import numpy as np
import pytest

from wsss_tf.backbones.dilated_resnet import dilated_resnet

STAGES = ("stage1", "stage2", "stage3", "stage4")


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def up(n, stride):
    return -(-n // stride)


def randomise(network):
    """Move every weight, BatchNorm's too, from its start, and keep features finite."""
    rng = np.random.default_rng(1)
    for v in network.variables:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.0, v.shape))
        elif v.name != "kernel":
            v.assign(0.1 * rng.normal(size=v.shape))
    return network


@functools.cache
def narrow(output_stride=8, variant="v1c"):
    """Return a narrow network, made once: it has 160 layers."""
    return dilated_resnet(50, output_stride, variant, width=1 / 16)


# Each strided layer once in either variant; building a network takes seconds.
@pytest.mark.parametrize(("output_stride", "variant"), [(8, "v1c"), (16, "keras"), (32, "v1c")])
def test_sizes_are_rounded_up(output_stride, variant):
    for size in [(41, 50), (9, 8)]:
        shapes = narrow(output_stride, variant).compute_output_shape((2, *size, 3))
        for i, stage in enumerate(STAGES):
            stride = min(4 * 2**i, output_stride)
            assert shapes[stage] == (2, *(up(n, stride) for n in size), 16 * 2**i)


def test_real_maps_have_the_shapes_foretold():
    net = narrow()
    x = images(17, 26)
    maps = net(x)
    assert {k: tuple(v.shape) for k, v in maps.items()} == net.compute_output_shape(x.shape)
    assert all(np.min(v) >= 0 for v in maps.values())


@pytest.mark.parametrize("variant", ["v1c", "keras"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_features_at_every_stride_are_those_of_the_undilated_network(
    variant, output_stride
):
    nominal, dilated = randomise(narrow(32, variant)), narrow(output_stride, variant)
    dilated.set_weights(nominal.get_weights())
    x = images(70, 93)
    step = 32 // output_stride
    dense, sparse = dilated(x)["stage4"], nominal(x)["stage4"]
    worst = np.abs(dense[:, ::step, ::step] - sparse).max()
    assert worst <= 1e-4 * np.max(sparse)


def dilations(net):
    """Return {stage: dilations of its 3x3 convolutions}."""
    return [
        [
            layer.dilation_rate[0]
            for layer in net.layers
            if layer.name.startswith(f"conv{stage}_") and layer.name.endswith("_2_conv")
        ]
        for stage in (2, 3, 4, 5)
    ]


def test_dilations_are_the_papers():
    ones = [[1] * 3, [1] * 4]
    v1c = [*ones, [1, *[2] * 5], [2, 4, 4]]
    assert dilations(narrow()) == v1c
    assert dilations(narrow(8, "keras")) == [*ones, [2] * 6, [4] * 3]
    assert dilations(narrow(16))[2:] == [[1] * 6, [1, 2, 2]]


def test_stem_and_stride_are_the_variants():
    v1c, own = narrow(), narrow(variant="keras")
    shapes = [v1c.get_layer(f"conv1_{i}_conv").kernel.shape for i in (1, 2, 3)]
    assert shapes == [(3, 3, 3, 16), (3, 3, 16, 16), (3, 3, 16, 16)]
    assert own.get_layer("conv1_conv").kernel.shape == (7, 7, 3, 16)
    for net, first, second, bias in ((v1c, 1, 2, False), (own, 2, 1, True)):
        assert net.get_layer("conv3_block1_1_conv").strides == (first, first)
        assert net.get_layer("conv3_block1_2_conv").strides == (second, second)
        assert net.get_layer("conv3_block1_0_conv").strides == (2, 2)
        assert net.get_layer("conv3_block1_2_conv").use_bias is bias
    norms = [x for x in v1c.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}


@pytest.mark.parametrize("train", [True, False])
def test_batchnorm_is_trained_or_frozen(train):
    net = dilated_resnet(width=1 / 16, train_batchnorm=train, synchronized_batchnorm=False)
    names = {v.name for v in net.trainable_variables}
    assert names == ({"kernel", "gamma", "beta"} if train else {"kernel"})
    norm = net.get_layer("conv3_block2_1_bn")
    before = np.asarray(norm.moving_mean)
    x = images(16, 24)
    trained, plain = net(x, training=True)["stage4"], net(x, training=False)["stage4"]
    assert np.any(before != np.asarray(norm.moving_mean)) == train
    assert np.array_equal(trained, plain) != train


def test_batchnorm_is_synchronized_by_argument():
    own = dilated_resnet(width=1 / 16, synchronized_batchnorm=False)
    for net, expected in ((narrow(), True), (own, False)):
        norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
        assert {norm.synchronized for norm in norms} == {expected}


def test_blocks_begin_as_identities_where_wanted():
    net = dilated_resnet(width=1 / 16, zero_init_residual=True)
    inner = [net.get_layer(f"conv4_block{i}_out").output for i in (1, 6)]
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("f")
    first, last = keras.Model(net.input, inner)(image)
    assert np.ptp(first) > 0
    np.testing.assert_array_equal(first, last)


@pytest.mark.usefixtures("large_kernels_zero")
def test_parameters_are_the_published_ones():
    def trainable(net):
        return sum(int(np.prod(v.shape)) for v in net.trainable_variables)

    assert trainable(dilated_resnet(50)) == 23_527_264  # 23.5 million
    assert trainable(dilated_resnet(50, variant="keras")) == 23_534_592  # Keras' own count


@pytest.mark.large
def test_parameters_of_resnet101():
    count = sum(int(np.prod(v.shape)) for v in dilated_resnet(101).trainable_variables)
    assert round(count / 1e6, 1) == 42.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"depth": 34}, "depth=34"), ({"output_stride": 4}, "=4"), ({"variant": "v1d"}, "'v1d'")],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        dilated_resnet(**options)
