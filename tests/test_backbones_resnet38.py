import keras
import numpy as np
import pytest

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.resnet38 import _Blocks, resnet38


def close(actual, expected, atol):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


@pytest.fixture
def any_width(monkeypatch):
    """Let a unit have the golden files' 8 channels, too few for `scale_channels`."""
    monkeypatch.setattr("wsss_tf.backbones.resnet38.scale_channels", lambda count, width: count)


def unit(data, build):
    """Return a model of one unit, from `x` to its output and its `p`, with the golden weights."""
    symbolic = keras.Input(data["x"].shape[1:])
    blocks = _Blocks(
        width=1, train_batchnorm=False, synchronized=False, dropout=1.0, frozen_stages=1
    )
    model = keras.Model(symbolic, build(blocks, symbolic))
    arrays = {name for name in data if "__" in name}
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name.split('_', 1)[1]}__{variable.name.removeprefix('moving_')}"
            name = name.replace("variance", "var")
            variable.assign(data[name])
            arrays.remove(name)
    assert not arrays
    return model


@pytest.mark.parametrize(
    # The name decides whether the shortcut is a convolution.
    ("name", "file"),
    [
        ("a", "resblock_same"),
        ("b3", "resblock_stride2_0"),
        ("b3", "resblock_stride2_1"),
        ("b5", "resblock_dilated_first"),
        ("a", "resblock_dilated_same"),
    ],
    ids=["identity", "stride2_even_height", "stride2_odd_height", "b5", "b5_1"],
)
def test_residual_unit_agrees_with_the_official_code(golden, any_width, name, file):
    data = golden(file)
    middle, last = (
        data[f"conv_{branch}__kernel"].shape[-1] for branch in ("branch2a", "branch2b1")
    )
    dilations = int(data["first_dilation"]), int(data["dilation"])
    model = unit(
        data,
        lambda blocks, x: blocks.residual(x, name, middle, last, int(data["stride"]), dilations),
    )
    out, p = model(data["x"])
    close(out, data["out"], atol=1e-5)
    close(p, data["out_x_bn_relu"], atol=1e-5)


def test_bottleneck_unit_agrees_with_the_official_code(golden, any_width):
    data = golden("resblock_bot_eval")
    model = unit(
        data, lambda blocks, x: blocks.bottleneck(x, "b6", 8, 32, int(data["stride"]), 0.3)
    )
    out, p = model(data["x"], training=False)
    close(out, data["out"], atol=1e-5)
    close(p, data["out_x_bn_relu"], atol=1e-5)
    # Dropout is there, and the only difference.
    assert np.abs(model(data["x"], training=True)[0] - out).max() > 0.1
    assert [layer.rate for layer in model.layers if "dropout" in layer.name] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("count", "width", "expected"),
    [(4096, 1, 4096), (192, 1, 192), (512, 1 / 8, 64), (64, 1 / 8, 16), (192, 3 / 16, 32)],
)
def test_channels_are_multiples_of_16(count, width, expected):
    assert scale_channels(count, width) == expected


@pytest.fixture(scope="module")
def narrow():
    return resnet38(width=1 / 16)


def up(n, stride):
    return -(-n // stride)


@pytest.mark.parametrize("size", [(448, 448), (134, 134), (41, 50), (33, 42), (9, 8), (1, 1)])
def test_sizes_are_rounded_up(narrow, size):
    shapes = narrow.compute_output_shape((2, *size, 3))
    (h4, w4), (h8, w8) = ([up(n, stride) for n in size] for stride in (4, 8))
    assert shapes == {
        "stem": (2, *(up(n, 2) for n in size), 16),
        "stage1": (2, h4, w4, 16),
        "stage2": (2, h8, w8, 32),
        "stage3": (2, h8, w8, 64),
        "stage4": (2, h8, w8, 256),
    }
    if size[0] == 448:
        assert shapes["stage4"][1:3] == (56, 56)
    if size[0] == 134:
        assert shapes["stage4"][1:3] == (17, 17)


def test_real_maps_have_the_shapes_foretold(narrow):
    x = np.random.default_rng(0).normal(size=(2, 17, 10, 3)).astype(np.float32)
    maps = narrow(x)
    assert {k: tuple(v.shape) for k, v in maps.items()} == narrow.compute_output_shape(x.shape)
    assert all(np.min(v) >= 0 for v in maps.values())  # all follow a ReLU


def test_a_shift_by_one_output_stride_shifts_the_maps(narrow):
    x = np.random.default_rng(0).normal(size=(1, 16, 328, 3)).astype(np.float32)
    maps = np.asarray(narrow(x[:, :, :-8])["stage2"])
    shifted = np.asarray(narrow(x[:, :, 8:])["stage2"])
    # Away from the border: b4 to b4_5 see 11 pixels of stride 8, what comes before them 4.
    close(shifted[:, :, 16:-17], maps[:, :, 17:-16], atol=1e-5 * maps.max())


STEM = [
    "conv1a",
    "b2_conv_branch1",
    "b2_conv_branch2a",
    "b2_conv_branch2b1",
    "b2_1_conv_branch2a",
    "b2_1_conv_branch2b1",
    "b2_2_conv_branch2a",
    "b2_2_conv_branch2b1",
]


def test_stem_and_batchnorm_are_frozen(narrow):
    frozen = [layer for layer in narrow.layers if layer.weights and not layer.trainable]
    convolutions = [layer.name for layer in frozen if isinstance(layer, keras.layers.Conv2D)]
    assert sorted(convolutions) == sorted(STEM)
    assert len(frozen) - len(convolutions) == 37
    assert len(narrow.trainable_variables) == 35
    assert {v.name for v in narrow.trainable_variables} == {"kernel"}


def test_frozen_batchnorm_ignores_the_training_mode():
    network = resnet38(width=1 / 64, dropout=0)
    x = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    before = network.get_weights()
    expected, trained = network(x, training=False), network(x, training=True)
    for name in expected:
        np.testing.assert_array_equal(trained[name], expected[name])
    for weight, old in zip(network.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_from_scratch_everything_is_trained_and_statistics_move():
    network = resnet38(width=1 / 64, dropout=0, train_batchnorm=True, frozen_stages=0)
    assert len(network.trainable_variables) == 43 + 74
    x = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    norm = network.get_layer("b2_bn_branch2a")
    before = np.asarray(norm.moving_mean)
    stem = keras.Model(network.input, network.get_layer("conv1a").output)(x)
    network(x, training=True)
    # PyTorch's momentum 0.1 is 0.9 here.
    expected = 0.9 * before + 0.1 * np.mean(stem, axis=(0, 1, 2))
    close(norm.moving_mean, expected, atol=1e-6)


def test_batchnorm_is_as_in_pytorch(narrow):
    norms = [x for x in narrow.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
