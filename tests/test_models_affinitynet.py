import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone

from wsss_tf import ops
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.models.affinitynet import affinity_head, affinity_network

NEW_LAYERS = ("f8_3", "f8_4", "f8_5", "f9")
# Names of the golden files.
FEATURES = {"stage2": "conv4", "stage3": "conv5", "stage4": "conv6"}


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def golden_outputs(data):
    """Return the head's outputs with the golden kernels."""
    inputs = {
        stage: keras.Input((None, None, data[name].shape[-1]), name=stage)
        for stage, name in FEATURES.items()
    }
    filters = [data[f"{name}__kernel"].shape[-1] for name in NEW_LAYERS[:3]]
    head = keras.Model(inputs, affinity_head(inputs, filters))
    for name in NEW_LAYERS:
        head.get_layer(name).kernel.assign(data[f"{name}__kernel"])
    return head({stage: data[name] for stage, name in FEATURES.items()})


@pytest.mark.parametrize("file", ["psa_affinity_0", "psa_affinity_1"])
def test_features_and_affinities_are_the_official_ones(golden, file):
    data = golden(file)
    outputs = golden_outputs(data)
    features = outputs["features"]
    close(features, data["feature"])
    close(outputs["affinity"], data["aff"])
    radius = ops.search_radius(*features.shape[1:3])
    assert radius == data["radius"]
    close(ops.pairwise_affinity(features, radius), data["aff"])


@pytest.mark.parametrize("file", ["psa_affinity_0", "psa_affinity_1"])
def test_pairs_are_the_official_ones(golden, file):
    data = golden(file)
    height, width = data["feature"].shape[1:3]
    pixels = np.arange(height * width).reshape(1, height, width)
    start, end = ops.pair_values(tf.constant(pixels), int(data["radius"]))
    np.testing.assert_array_equal(start[0], data["ind_from"])
    np.testing.assert_array_equal(end[0], data["ind_to"])


def test_offsets_are_the_official_ones(golden):
    np.testing.assert_array_equal(ops.pair_offsets(5), golden("psa_labels")["search_dist"])
    assert ops.pair_offsets(1) == ops.pair_offsets(0) == []


def test_radius_of_small_maps():
    sizes = [(56, 56), (11, 30), (10, 30), (30, 9), (3, 3), (2, 8), (1, 40)]
    assert [ops.search_radius(*size) for size in sizes] == [5, 5, 4, 4, 1, 0, 0]
    assert ops.search_radius(6, 9, radius=3) == 2


@pytest.mark.parametrize("size", [(1, 7), (2, 3), (3, 5)])
def test_maps_too_small_for_pairs(size):
    features = np.random.default_rng(0).normal(size=(2, *size, 4))
    affinity = ops.pairwise_affinity(tf.constant(features), ops.search_radius(*size))
    assert affinity.shape == (2, 0, size[0] * size[1])
    start, end = ops.pair_values(tf.constant(features[..., 0]), ops.search_radius(*size))
    assert start.shape == (2, size[0] * size[1])
    assert end.shape == affinity.shape


def test_gradient_of_the_affinity_by_differences():
    features = np.random.default_rng(0).normal(size=(2, 5, 8, 3))
    weights = np.random.default_rng(1).normal(size=(2, 4, 24))

    def value(x):
        return tf.reduce_sum(ops.pairwise_affinity(x, 2) * weights.astype(np.float32))

    x = tf.constant(features, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = value(x)
    gradient = tape.gradient(total, x).numpy()
    for position in [(0, 0, 0, 0), (1, 4, 7, 2), (0, 2, 4, 1)]:
        step = np.zeros_like(features)
        step[position] = 1e-2
        difference = (value(x + step.astype("f")) - value(x - step.astype("f"))) / 2e-2
        close(gradient[position], difference, atol=2e-3)


def narrow_network(head_width=1 / 64, width=1 / 64, **options):
    keras.utils.set_random_seed(0)
    backbone = functools.partial(resnet38, width=width, **options)
    return affinity_network(backbone=backbone, head_width=head_width)


def test_sizes_and_widths():
    network = narrow_network(head_width=0.5)
    images = np.random.default_rng(0).normal(size=(2, 41, 50, 3)).astype(np.float32)
    assert network(images)["features"].shape == (2, 6, 7, 224)
    assert [network.get_layer(name).filters for name in NEW_LAYERS] == [32, 64, 128, 224]
    assert narrow_network().get_layer("f9").filters == 48


def test_coarse_stages_are_brought_to_stride_8():
    network = affinity_network(
        backbone=functools.partial(tiny_backbone, last=16), head_width=1 / 16
    )
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    assert network(images)["features"].shape == (2, 8, 12, 48)


def test_saved_network_reloads_without_custom_objects(tmp_path):
    network = affinity_network(backbone=tiny_backbone, head_width=1 / 16)
    x = np.random.default_rng(0).normal(size=(2, 33, 18, 3)).astype(np.float32)
    network(x, training=True)
    network.save(tmp_path / "affinity.keras")
    copy = keras.models.load_model(tmp_path / "affinity.keras")
    np.testing.assert_array_equal(copy(x)["features"], network(x)["features"])


def test_mixed_precision_keeps_the_affinity_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = narrow_network()
    assert network.get_layer("f9_elu").output.dtype == "bfloat16"
    assert network.output["features"].dtype == "float32"
    features = np.random.default_rng(0).normal(size=(2, 5, 8, 3))
    rounded = tf.cast(features, tf.bfloat16)
    affinity = ops.pairwise_affinity(rounded, 2)
    assert affinity.dtype == "float32"
    close(affinity, ops.pairwise_affinity(tf.cast(rounded, tf.float32), 2), atol=0)


@pytest.mark.usefixtures("large_kernels_zero")
def test_published_network():
    network = affinity_network()
    counts = {name: int(np.prod(network.get_layer(name).kernel.shape)) for name in NEW_LAYERS}
    assert counts == {"f8_3": 64 * 512, "f8_4": 128 * 1024, "f8_5": 256 * 4096, "f9": 448 * 448}
    trained = network.trainable_variables
    assert {v.name for v in trained} == {"kernel"}
    assert len(trained) == 39  # as SEAM's: four new ones, the same of the backbone
    assert network.compute_output_shape((1, 448, 448, 3))["features"] == (1, 56, 56, 448)
    limit = np.abs(network.get_layer("f9").kernel).max()
    assert limit == pytest.approx(4 * np.sqrt(6 / (448 + 448)), rel=1e-3)
    deviation = np.std(network.get_layer("f8_5").kernel)
    assert deviation == pytest.approx(np.sqrt(2 / 4096), rel=0.01)


def test_the_gradient_of_the_affinity_has_one_order_of_sums():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([2, 9, 14, 16])])
    def gradient(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_mean(tf.square(ops.pairwise_affinity(features, 5)))
        return tape.gradient(loss, features)

    # AddN adds more than two in the order in which their buffers become free: on large networks
    # that differs from one time to the next.
    operations = gradient.get_concrete_function().graph.get_operations()
    assert any(op.type == "StridedSlice" for op in operations)  # the windows
    assert [len(op.inputs) for op in operations if op.type == "AddN" and len(op.inputs) > 2] == []


def test_gradients_are_the_same_bit_for_bit_each_time():
    keras.utils.set_random_seed(0)
    net = affinity_network(backbone=tiny_backbone, head_width=1 / 8)
    images = np.random.default_rng(0).normal(size=(4, 96, 104, 3)).astype("f")

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            features = net(images, training=True)["features"]
            loss = tf.reduce_mean(tf.square(ops.pairwise_affinity(features, 5)))
        return tape.gradient(loss, [v.value for v in net.trainable_variables])

    first = gradients()
    for _ in range(3):
        for one, again in zip(first, gradients()):
            np.testing.assert_array_equal(one, again)
