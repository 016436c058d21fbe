import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone

from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.models.seam import seam_head, seam_network


def close(actual, expected, atol):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


# Names of the golden files.
FEATURES = {"stage2": "conv4", "stage3": "conv5", "stage4": "conv6"}


def golden_head(data):
    """Return the head with the golden kernels, as a model of a dict; two inner maps come along."""
    inputs = {
        name: keras.Input((None, None, array.shape[-1]), name=name)
        for name, array in inputs_of(data).items()
    }
    filters = [data[f"{name}__kernel"].shape[-1] for name in ("f8_3", "f8_4", "f9")]
    outputs = seam_head(inputs["x"], inputs, num_classes=20, filters=filters)
    head = keras.Model(inputs, outputs)
    outputs["cam_d_norm"] = head.get_layer("norm_cam").output
    outputs["f_concat"] = head.get_layer("pcm_features").output
    head = keras.Model(inputs, outputs)
    for name, kernel in kernels(head).items():
        kernel.assign(data[f"{name}__kernel"])
    return head


def kernels(head):
    layers = {name: head.get_layer(name) for name in ("fc8", "f8_3", "f8_4")}
    return {
        name: layer.kernel for name, layer in (*layers.items(), ("f9", head.get_layer("pcm").f9))
    }


def inputs_of(data):
    names = {"x": "x", **FEATURES}
    return {stage: tf.constant(data[name]) for stage, name in names.items()}


@pytest.mark.parametrize("file", ["seam_head_full", "seam_head_small"])
def test_head_agrees_with_the_official_code(golden, file):
    data = golden(file)
    outputs = golden_head(data)(inputs_of(data))
    for name, output in outputs.items():
        if name in data:  # "f_concat" is in one file only
            close(output, data[name], atol=1e-5)
    assert outputs.keys() - data.keys() <= {"f_concat"}


def test_head_gradients_agree_with_the_official_code(golden):
    data = golden("seam_head_small")
    head, inputs = golden_head(data), inputs_of(data)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = head(inputs)
        loss = tf.reduce_sum(outputs["cam"] * data["upstream_cam"])
        loss += tf.reduce_sum(outputs["cam_rv"] * data["upstream_cam_rv"])
    values = {name: kernel.value for name, kernel in kernels(head).items()}
    of_kernels, of_inputs = tape.gradient(loss, [values, inputs])
    for name, gradient in of_kernels.items():
        expected = data[f"grad_{name}__kernel"]
        close(gradient, expected, atol=1e-5)
    close(of_inputs["stage4"], data["grad_conv6"], atol=1e-5)
    assert of_inputs["stage2"] is None
    assert of_inputs["stage3"] is None


def test_refined_maps_train_the_pcm_only(golden):
    data = golden("seam_head_small")
    head, inputs = golden_head(data), inputs_of(data)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        refined = head(inputs)["cam_rv"]
    values = {name: kernel.value for name, kernel in kernels(head).items()}
    of_kernels, of_inputs = tape.gradient(refined, [values, inputs])
    assert [name for name, gradient in of_kernels.items() if gradient is None] == ["fc8"]
    assert [of_inputs[name] for name in FEATURES] == [None] * 3


def narrow_network(head_width=1 / 64, dropout=0.5, **options):
    keras.utils.set_random_seed(0)
    backbone = functools.partial(resnet38, width=1 / 64, **options)
    return seam_network(3, backbone, head_width, dropout)


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def test_output_shapes():
    network = narrow_network()
    shapes = network.compute_output_shape((2, 41, 50, 3))
    assert shapes == {
        "cam_low": (2, 6, 7, 4),
        "pcm_low": (2, 6, 7, 4),
        "cam": (2, 41, 50, 4),
        "cam_rv": (2, 41, 50, 4),
    }
    outputs = network(images(41, 50))
    assert {name: tuple(map_.shape) for name, map_ in outputs.items()} == shapes
    assert network.output["cam"].shape == (None, None, None, 4)
    for refined in (outputs["pcm_low"], outputs["cam_rv"]):
        assert np.min(refined) >= 0
        assert np.max(refined) <= 1


def test_tiles_of_the_pcm_change_nothing():
    whole, tiled = (seam_network(3, tiny_backbone, 1 / 4, pcm_tile=tile) for tile in (None, 4))
    tiled.set_weights(whole.get_weights())
    close(tiled(images(41, 50))["cam_rv"], whole(images(41, 50))["cam_rv"], atol=1e-6)


def test_a_head_by_itself_is_tiled_too():
    # Without, three megapixels at stride 8 took 3 GiB in a served model.
    features = {name: keras.Input((None, None, 8)) for name in ("stage2", "stage3", "stage4")}
    image = keras.Input((None, None, 3))
    outputs = seam_head(image, features, num_classes=3, filters=(8, 8, 8))
    net = keras.Model([image, *features.values()], outputs)
    assert net.get_layer("pcm").tile == 2048


def test_the_head_has_a_width_of_its_own():
    network = narrow_network(head_width=1 / 2)
    counts = [network.get_layer(name).filters for name in ("conv1a", "f8_3", "f8_4", "pcm")]
    assert counts == [16, 32, 64, 96]


def test_rates_of_dropout_are_the_papers():
    rates = [layer.rate for layer in narrow_network().layers if "dropout" in layer.name]
    assert rates == [0.3, 0.3, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_stages_of_other_strides_are_brought_to_the_last_ones_grid(stride):
    network = seam_network(3, functools.partial(tiny_backbone, last=stride), head_width=1 / 4)
    assert network.backbone_name == "tiny"
    shapes = network.compute_output_shape((2, 64, 96, 3))
    assert shapes["pcm_low"] == shapes["cam_low"] == (2, 64 // stride, 96 // stride, 4)
    assert shapes["cam_rv"] == (2, 64, 96, 4)
    outputs = network(images(64, 96))
    assert {name: tuple(map_.shape) for name, map_ in outputs.items()} == shapes


def test_saved_network_reloads_without_custom_objects(tmp_path):
    network = narrow_network(train_batchnorm=True, frozen_stages=0)
    x = images(33, 18)
    network(x, training=True)  # statistics away from their start
    network.save(tmp_path / "seam.keras")
    copy = keras.models.load_model(tmp_path / "seam.keras")
    for name, expected in network(x).items():
        np.testing.assert_array_equal(copy(x)[name], expected)
    assert len(copy.trainable_variables) == len(network.trainable_variables)


def elements(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_network_has_the_official_parameters():
    network = seam_network(num_classes=20)
    statistics = [v for v in network.variables if "/moving_" in v.path]  # buffers in PyTorch
    assert network.count_params() - elements(statistics) == 105_358_208
    trained = network.trainable_variables
    assert elements(trained) == 104_489_536
    assert len(trained) == 39
    assert {v.name for v in trained} == {"kernel"}
    shapes = network.compute_output_shape((1, 448, 448, 3))
    assert shapes["pcm_low"] == (1, 56, 56, 21)
    assert shapes["cam"] == (1, 448, 448, 21)
