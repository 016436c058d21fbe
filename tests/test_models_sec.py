import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiny_backbone import tiny_backbone

from wsss_tf import ops
from wsss_tf.backbones.efficientnet import efficientnet
from wsss_tf.backbones.vgg16 import vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov
from wsss_tf.layers.caffe_input import CaffeInput
from wsss_tf.layers.log_probs import LogProbs
from wsss_tf.layers.resize_to import ResizeTo
from wsss_tf.models import sec


def close(actual, expected, atol=0.0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def pictures(*size, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)


def images(*size):
    return ops.normalize_image(pictures(*size))


NETWORKS = {
    "sec": (sec.sec_network, ("logits_low", "logits")),
    "foreground": (sec.foreground_network, ("class_logits", "heat", "cam")),
    "background": (sec.background_network, ("class_logits", "stage2")),
}
BACKBONES = {
    "sec": vgg16_largefov,
    "foreground": functools.partial(vgg16, pools=3),
    "background": functools.partial(vgg16, pools=5),
}


def head_of(name, **options):
    return {} if name == "sec" else {"head_width": 1 / 64, **options}


def narrow(name, num_classes=4, image_size=41, **options):
    keras.utils.set_random_seed(0)
    backbone = functools.partial(BACKBONES[name], width=1 / 64, **options)
    return NETWORKS[name][0](num_classes, image_size, backbone, **head_of(name))


def each_network(test):
    return pytest.mark.parametrize("name", NETWORKS)(test)


# === What is common to the three ===


@each_network
def test_output_shapes_of_any_image(name):
    network = narrow(name)
    expected = {
        "logits_low": (2, 6, 6, 4),
        "logits": (2, 37, 52, 4),
        "class_logits": (2, 4),
        "stage2": (2, 6, 6, 16),
        "heat": (2, 6, 6, 4),
        "cam": (2, 37, 52, 5),
    }
    expected = {key: expected[key] for key in NETWORKS[name][1]}
    assert network.compute_output_shape((2, 37, 52, 3)) == expected
    outputs = network(images(37, 52))
    assert {key: tuple(x.shape) for key, x in outputs.items()} == expected
    assert {x.dtype for x in outputs.values()} == {tf.float32}


@each_network
def test_saved_network_reloads_without_custom_objects(name, tmp_path):
    network = narrow(name, train_batchnorm=True)
    x = images(33, 18)
    network(x, training=True)  # statistics away from their start
    network.save(tmp_path / "network.keras")
    copy = keras.models.load_model(tmp_path / "network.keras")
    for key, expected in network(x).items():
        np.testing.assert_array_equal(copy(x)[key], expected)


@each_network
def test_image_size_must_suit_the_grid(name):
    with pytest.raises(ValueError, match=r"320 x 320 pixels.*8 k"):
        NETWORKS[name][0](3, image_size=320)


@each_network
def test_two_layers_have_dropout(name):
    for expected in (0.5, 0.2):
        own = {} if expected == 0.5 else {"dropout": expected}
        if name == "sec":
            network = narrow(name, **own)
        else:
            backbone = functools.partial(BACKBONES[name], width=1 / 64)
            network = NETWORKS[name][0](4, 41, backbone, 1 / 64, **own)
        rates = {x.name: x.rate for x in network.layers if isinstance(x, layers.Dropout)}
        assert rates == {"drop6": expected, "drop7": expected}


@each_network
def test_pictures_are_turned_into_what_caffe_sees(name):
    network = narrow(name)
    inner = keras.Model(network.input, network.get_layer("caffe_input").output)
    picture = pictures(41, 41)
    mean = (104, 117, 123) if name == "sec" else (104.008, 116.669, 122.675)
    close(inner(ops.normalize_image(picture)), picture[..., ::-1] - np.float32(mean), atol=1e-3)


# === On other backbones ===


strided = functools.partial(tiny_backbone, last=16)

# The backbone, the side of its last stage, the channels of its second, and its name.
OTHERS = {
    "stride 16": (strided, 4, 32, "tiny"),
    "stride 8": (functools.partial(tiny_backbone, channels=(16, 24, 40, 48)), 8, 24, "tiny"),
    "efficientnet": (
        functools.partial(efficientnet, "b0", output_stride=8, width=1 / 8),
        8,
        16,
        "efficientnet_b0",
    ),
}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *itertools.product(NETWORKS, ("stride 16", "stride 8")),
        # It has hundreds of layers: once will do.
        pytest.param("sec", "efficientnet", marks=pytest.mark.large),
    ],
)
def test_any_backbone_gives_the_same_outputs(name, other, tmp_path):
    backbone, side, channels, backbone_name = OTHERS[other]
    network = NETWORKS[name][0](3, 64, backbone, **head_of(name))
    assert network.backbone_name == backbone_name
    x = images(37, 52)
    outputs = network(x)
    expected = {
        "logits_low": (2, side, side, 3),
        "logits": (2, 37, 52, 3),
        "class_logits": (2, 3),
        "stage2": (2, 8, 8, channels),
        "heat": (2, side, side, 3),
        "cam": (2, 37, 52, 4),
    }
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        key: expected[key] for key in NETWORKS[name][1]
    }
    network.save(tmp_path / "network.keras")
    copy = keras.models.load_model(tmp_path / "network.keras")
    for key, value in copy(x).items():
        np.testing.assert_array_equal(value, outputs[key])


@each_network
def test_the_warp_is_before_the_backbone(name):
    network = NETWORKS[name][0](3, 64, strided, **head_of(name))
    x = images(37, 52)
    warped = ops.resize_bilinear(x, (64, 64), True)
    stages = keras.Model(network.input, network.get_layer("stage2").output)(x)
    trunk = strided()
    for layer in trunk.layers:
        layer.set_weights(network.get_layer(layer.name if layer.weights else "warp").get_weights())
    close(stages, trunk(warped)["stage2"], atol=1e-5)


def test_stages_of_a_network_with_other_names_are_averaged():
    shapes = [x.kernel.shape for x in _dense(sec.background_network(3, 64, strided))]
    assert shapes == [(64, 1024), (1024, 1024), (1024, 3)]
    assert _dense(narrow("background"))[0].kernel.shape == (2 * 2 * 16, 16)


def _dense(network):
    return [x for x in network.layers if isinstance(x, layers.Dense)]


# === The segmentation network ===


def test_agrees_with_the_reference_on_pictures_in_our_convention(golden):
    data = golden("sec/largefov_tiny")
    network = narrow("sec", num_classes=21, image_size=129)
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            for variable, part in ((layer.kernel, "w"), (layer.bias, "b")):
                small = data[f"{layer.name}_{part}"]
                value = np.zeros(variable.shape, np.float32)
                value[tuple(slice(n) for n in small.shape)] = small
                variable.assign(value)
    picture = data["input"] + np.float32([104, 117, 123])
    outputs = network(ops.normalize_image(picture[..., ::-1]))
    expected = data["out_fc8"]
    close(outputs["logits_low"], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_network_has_the_official_parameters():
    network = sec.sec_network(num_classes=21)
    assert network.count_params() == 20_505_429
    shapes = network.compute_output_shape((1, 375, 500, 3))
    assert shapes == {"logits_low": (1, 41, 41, 21), "logits": (1, 375, 500, 21)}
    kernel, bias = network.get_layer("fc8").get_weights()
    assert kernel.std() == pytest.approx(0.01, rel=0.02)
    assert not bias.any()


def test_logits_are_enlarged_log_probabilities():
    network = narrow("sec")
    network.get_layer("fc8").kernel.assign(100 * network.get_layer("fc8").kernel)  # far apart
    outputs = network(images(37, 52))
    probs = ops.resize_bilinear(keras.ops.softmax(outputs["logits_low"]), (37, 52), True)
    close(outputs["logits"], np.log(np.maximum(probs, 1e-5)), atol=1e-5)
    corners = np.asarray(outputs["logits"])[:, ::36, ::51]
    low = keras.ops.log_softmax(outputs["logits_low"])[:, ::5, ::5]
    close(corners, np.maximum(low, np.log(1e-5)), atol=1e-4)


def test_enlargement_agrees_with_the_reference(golden):
    data = golden("sec/testtime")
    height, width = data["image"].shape[:2]
    low = keras.Input((41, 41, 21))
    like = keras.Input((height, width, 3))
    network = narrow("sec", num_classes=21, image_size=321)
    x = network.get_layer("probs_low")(low)
    x = network.get_layer("probs")([x, like])
    logits = network.get_layer("logits")(x)
    model = keras.Model([low, like], logits)
    logits = np.asarray(model([data["logits"][None], data["image"][None].astype(np.float32)]))[0]
    rows, columns = data["positions"].T
    close(np.exp(logits[rows, columns]), data["probs_up_at"], atol=2e-6)
    np.testing.assert_array_equal(logits.argmax(-1), data["label_no_crf"])


def test_warp_of_a_picture_is_the_official_one(golden):
    data = golden("sec/resize")
    mean = np.float32([1, 2, 3])
    small = ResizeTo((5, 5))(data["down_in"][None] - mean) + mean
    np.testing.assert_array_equal(np.round(small)[0], data["down_out"])
    close(ResizeTo((13, 17))(data["up_in"][None])[0], data["up_out"], atol=1e-6)


def test_an_image_of_the_networks_size_is_not_touched():
    x = images(41, 41)
    np.testing.assert_array_equal(ResizeTo((41, 41))(x), x)


def test_logits_stay_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = narrow("sec")
    assert {output.dtype for output in network.output.values()} == {"float32"}


# === The classifiers ===


def test_heat_maps_average_to_the_class_logits():
    outputs = narrow("foreground")(images(37, 52))
    close(outputs["class_logits"], np.mean(outputs["heat"], axis=(1, 2)), atol=1e-6)
    cam = np.asarray(outputs["cam"])
    assert not cam[..., 0].any()
    close(cam[:, ::36, ::51, 1:], np.asarray(outputs["heat"])[:, ::5, ::5], atol=1e-6)


def test_ceil_pools_agree_with_the_reference(golden):
    data = golden("sec/largefov_tiny")
    for name, pools in (("foreground", 3), ("background", 5)):
        network = narrow(name)
        found = [x for x in network.layers if isinstance(x, layers.MaxPooling2D)]
        assert len(found) == pools
        for pool in found:
            np.testing.assert_array_equal(pool(data["ceilpool_in"]), data["ceilpool_out"])


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_classifiers():
    network = sec.foreground_network(20, image_size=321)
    assert network.compute_output_shape((1, 321, 321, 3))["heat"] == (1, 41, 41, 20)
    layer_of = {x.name: x for x in network.layers}
    assert not layer_of["fc8_cam"].use_bias
    assert "fc7_cam_relu" not in layer_of
    assert layer_of["fc7_cam"].kernel.shape == (3, 3, 1024, 1024)
    assert np.std(layer_of["fc6_cam"].kernel) == pytest.approx(0.005, rel=0.01)


@pytest.mark.large
def test_published_background_classifier():
    network = sec.background_network(20, image_size=321)
    assert network.get_layer("fc6_bg").kernel.shape == (11 * 11 * 512, 1024)
    assert network.get_layer("conv4_1").output.shape[1:] == (41, 41, 512)


# === Layers ===


@pytest.mark.parametrize(
    "layer",
    [
        CaffeInput((1.0, 2.0, 3.0), name="caffe_input"),
        ResizeTo((5, 7), align_corners=False, name="warp"),
        LogProbs(1e-3, name="logits"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_keep_their_settings(layer):
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert vars(copy).keys() == vars(layer).keys()
    x = np.random.default_rng(0).random((2, 4, 6, 3), np.float32)
    np.testing.assert_array_equal(copy(x), layer(x))
    spec = layer.compute_output_spec(keras.KerasTensor(x.shape))
    assert (tuple(spec.shape), spec.dtype) == (tuple(layer(x).shape), "float32")
