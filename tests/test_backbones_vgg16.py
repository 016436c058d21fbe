import keras
import numpy as np
import pytest

from wsss_tf import ops
from wsss_tf.backbones.vgg16 import BLOCKS, vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov

# What `keras.applications.vgg16.preprocess_input` subtracts, red first.
KERAS_MEAN = (123.68, 116.779, 103.939)
STAGES = ("stage1", "stage2", "stage3", "stage4")


def test_features_of_a_picture_are_those_of_keras_own_network():
    keras.utils.set_random_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    names = ("block1_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool")
    outputs = {name: theirs.get_layer(name).output for name in names}
    expected = keras.Model(theirs.input, outputs)(
        keras.applications.vgg16.preprocess_input(picture.astype(np.float32))
    )
    expected = dict(zip(("conv1_2", *STAGES), (np.asarray(expected[name]) for name in names)))
    # Our pools agree with Keras' as far as the fourth block, with all five of them to the end;
    # LargeFOV's are others from the first on.
    for network, compared in (
        (vgg16(pools=5, mean=KERAS_MEAN), ("conv1_2", *STAGES)),
        (vgg16(pools=3, mean=KERAS_MEAN), ("conv1_2", "stage1", "stage2")),
        (vgg16_largefov(mean=KERAS_MEAN), ("conv1_2",)),
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


@pytest.mark.parametrize(("pools", "last"), [(3, [8, 8]), (5, [16, 32])])
def test_stages_and_their_strides(pools, last):
    network = vgg16(pools, width=1 / 64)
    assert network.name == "vgg16"
    sizes = network.compute_output_shape((2, 41, 66, 3))
    assert {stage: shape[1:3] for stage, shape in sizes.items()} == {
        stage: (-(-41 // stride), -(-66 // stride)) for stage, stride in zip(STAGES, [4, 8, *last])
    }
    features = network(np.zeros((2, 41, 66, 3), np.float32))
    assert {stage: tuple(x.shape) for stage, x in features.items()} == sizes


@pytest.mark.parametrize("build", [vgg16, vgg16_largefov], ids=lambda build: build.__name__)
def test_blocks_that_are_frozen(build):
    blocks = {0: "", 1: "12", 2: "123", 3: "1234", 4: "12345"}
    for stages, expected in blocks.items():
        network = build(width=1 / 64, batchnorm=True, frozen_stages=stages)
        frozen = {x.name for x in network.layers if x.weights and not x.trainable}
        assert {name for name in frozen if name.startswith("conv")} == frozen
        assert {name[len("conv")] for name in frozen} == set(expected)
        assert all((f"{name}_bn" in frozen) for name in frozen if not name.endswith("_bn"))
    with pytest.raises(ValueError, match="frozen_stages=5"):
        build(frozen_stages=5)


@pytest.mark.parametrize("build", [vgg16, vgg16_largefov], ids=lambda build: build.__name__)
def test_sizes_that_are_known_have_to_suit(build):
    assert build(width=1 / 64, image=keras.Input((33, 41, 3))).input_shape == (None, 33, 41, 3)
    with pytest.raises(ValueError, match=r"33 x 40 pixels.*8 k \+ 1"):
        build(width=1 / 64, image=keras.Input((33, 40, 3)))
    with pytest.raises(ValueError, match="pools=4"):
        vgg16(pools=4)
