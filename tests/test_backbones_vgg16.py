import keras
import numpy as np
import pytest

from wsss_tf.backbones.vgg16 import vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov

STAGES = ("stage1", "stage2", "stage3", "stage4")


@pytest.mark.parametrize(("pools", "last"), [(3, [8, 8]), (5, [16, 32])])
def test_stages_and_their_strides(pools, last):
    network = vgg16(pools, width=1 / 64)
    assert network.name == "vgg16"
    sizes = network.compute_output_shape((2, 41, 66, 3))
    assert {stage: shape[1:3] for stage, shape in sizes.items()} == {
        stage: (-(-41 // stride), -(-66 // stride))
        for stage, stride in zip(("stem", *STAGES), [4, 4, 8, *last])
    }
    features = network(np.zeros((2, 41, 66, 3), np.float32))
    assert {stage: tuple(x.shape) for stage, x in features.items()} == sizes


@pytest.mark.parametrize("build", [vgg16, vgg16_largefov], ids=lambda build: build.__name__)
def test_blocks_that_are_frozen(build):
    blocks = {0: "", 1: "12", 2: "123", 3: "1234", 4: "12345"}
    for stages, expected in blocks.items():
        network = build(width=1 / 64, train_batchnorm=True, frozen_stages=stages)
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
