"""What every backbone has in common."""

import functools
import re

import keras
import numpy as np
import pytest

from wsss_tf import ops
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.efficientnet import efficientnet
from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.backbones.stages import STAGES
from wsss_tf.backbones.vgg16 import BLOCKS, vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov

# Name of the model: the backbone, narrow where it can be.
BACKBONES = {
    "resnet38": functools.partial(resnet38, width=1 / 64),
    "resnet50_v1c": functools.partial(dilated_resnet, width=1 / 16),
    "resnet50_v1": functools.partial(dilated_resnet, variant="v1", dilate=False, width=1 / 16),
    "resnet50_keras": functools.partial(dilated_resnet, variant="keras", width=1 / 16),
    "efficientnet_b0": functools.partial(efficientnet, width=1 / 4),
    "efficientnet_lite0": efficientnet_lite,
    "vgg16_largefov": functools.partial(vgg16_largefov, width=1 / 64),
}


@functools.cache
def backbone(name):
    """Return a backbone as it comes, made once: it has hundreds of layers."""
    return BACKBONES[name]()


def elements(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def weights(net):
    """Return what could be trained: no statistics, no states of random generators."""
    return [v for v in net.variables if not re.search("moving_|seed_generator", v.path)]


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_have_ascending_strides_and_names_that_tell_the_weights(name):
    net = backbone(name)
    assert net.name == name
    assert set(net.output) == {"stem", *STAGES}
    sizes = [net.compute_output_shape((1, 64, 96, 3))[stage][1:3] for stage in STAGES]
    strides = [64 // height for height, _ in sizes]
    assert strides[:2] == [4, 8]
    assert strides == sorted(strides)
    assert sizes == [(64 // stride, 96 // stride) for stride in strides]
    assert net.compute_output_shape((1, 64, 96, 3))["stem"][1:3] in [(32, 48), (16, 24)]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_picture_of_odd_size_goes_through(name):
    net = backbone(name)
    x = np.random.default_rng(0).normal(size=(2, 37, 50, 3)).astype("float32")
    maps = net(x)
    assert {k: tuple(v.shape) for k, v in maps.items()} == net.compute_output_shape(x.shape)
    assert all(np.isfinite(v).all() for v in maps.values())


@pytest.mark.parametrize(
    "name",
    [
        name if name == "efficientnet_lite0" else pytest.param(name, marks=pytest.mark.large)
        for name in BACKBONES
    ],
)
def test_frozen_stages_are_frozen_wholly_and_nothing_else_is(name):
    image = keras.Input((None, None, 3), name="picture")
    whole = BACKBONES[name](train_batchnorm=True, frozen_stages=0, image=image)
    assert whole.input is image
    everything = elements(whole.trainable_variables)
    assert everything == elements(weights(whole))
    frozen = []
    for count in (1, 2, 3, 4):
        net = BACKBONES[name](train_batchnorm=True, frozen_stages=count)
        frozen.append(everything - elements(net.trainable_variables))
        if count > 1:  # what a frozen stage is made from
            end = keras.Model(net.input, net.output[f"stage{count - 1}"])
            assert end.trainable_variables == []
            assert frozen[-1] == elements(weights(end))
    assert 0 < frozen[0] < frozen[1] < frozen[2] < frozen[3] < everything
    with pytest.raises(ValueError, match="frozen_stages=5"):
        BACKBONES[name](frozen_stages=5)


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_batchnorm_takes_no_batch_statistics(name):
    net = BACKBONES[name](train_batchnorm=False, frozen_stages=0)
    assert {v.name for v in net.trainable_variables} <= {"kernel", "bias"}
    x = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype("float32")
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [np.array(norm.moving_mean) for norm in norms]
    net(x, training=True)
    for norm, mean in zip(norms, before):
        np.testing.assert_array_equal(norm.moving_mean, mean)


# === Foreign weights; those of the other backbones: test_interop_imagenet.py ===


def test_a_picture_gives_the_features_of_keras_vgg16():
    keras.utils.set_random_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    names = ("block1_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool")
    outputs = {name: theirs.get_layer(name).output for name in names}
    expected = keras.Model(theirs.input, outputs)(
        keras.applications.vgg16.preprocess_input(picture.astype(np.float32))
    )
    expected = dict(zip(("conv1_2", *STAGES), (np.asarray(expected[name]) for name in names)))
    mean = (123.68, 116.779, 103.939)
    # Our pools agree with Keras' as far as the fourth block, with all five of them to the end;
    # LargeFOV's are others from the first on.
    for network, compared in (
        (vgg16(pools=5, mean=mean), ("conv1_2", *STAGES)),
        (vgg16(pools=3, mean=mean), ("conv1_2", "stage1", "stage2")),
        (vgg16_largefov(mean=mean), ("conv1_2",)),
    ):
        for number, (repeats, _) in enumerate(BLOCKS, start=1):
            for i in range(1, repeats + 1):
                weights = theirs.get_layer(f"block{number}_conv{i}").get_weights()
                network.get_layer(f"conv{number}_{i}").set_weights(weights)
        outputs = {**network.output, "conv1_2": network.get_layer("conv1_2_relu").output}
        features = keras.Model(network.input, outputs)(ops.normalize_image(picture))
        for name in compared:
            largest = expected[name].max()
            assert largest > 0
            np.testing.assert_allclose(features[name], expected[name], rtol=0, atol=1e-5 * largest)
