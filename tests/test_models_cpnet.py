import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_weights import assign, check_gradients, near
from tiny_backbone import tiny_backbone

from wsss_tf.losses.cpnet import affinity_loss, downsample_mask
from wsss_tf.losses.segmentation import softmax_cross_entropy
from wsss_tf.models.cpnet import CONTEXTS, cpnet_head, cpnet_network
from wsss_tf.models.fcn import fcn_head
from wsss_tf.ops import resize_bilinear


def cross_entropy(logits, mask):
    """Return the mean over all pixels, ignored ones as zero: the official host's."""
    logits = resize_bilinear(logits, mask.shape[1:], align_corners=False)
    total, count = softmax_cross_entropy(logits, mask, over_all_pixels=True)
    return tf.reduce_sum(total) / tf.reduce_sum(count)


@pytest.mark.parametrize(("file", "kernel_size"), [("cp_layer_12x12", 11), ("cp_layer_6x10", 5)])
def test_head_agrees_with_the_official_code(golden, file, kernel_size):
    data = golden(f"cpnet/{file}")
    _, height, width, channels = data["x"].shape
    num_classes = data["cls.bias"].shape[0]
    x = keras.Input((height, width, channels))
    filters = data["value"].shape[-1], data["bottleneck_out"].shape[-1]
    outputs = cpnet_head(x, num_classes, (height, width), "both", kernel_size, filters)
    head = keras.Model(x, outputs)
    names = {"value": "aggregation", "intra_out": "intra_conv", "inter_out": "inter_conv"}
    names["bottleneck_out"] = "bottleneck"
    inner = {golden_name: head.get_layer(n).output for golden_name, n in names.items()}
    context = head.get_layer("context_prior").output
    inner["intra_raw"], inner["inter_raw"] = context[:2]
    head = keras.Model(x, {**outputs, **inner})
    assign(head.variables, data, drop=("context_prior",))

    x = tf.constant(data["x"])
    weights = {v.path: v.value for v in head.trainable_variables}
    with tf.GradientTape() as tape:
        tape.watch(x)
        got = head(x, training=False)
        loss_seg = cross_entropy(got["low_logits"], data["label"])
        low_mask = downsample_mask(data["label"], (height, width))
        loss_prior = tf.reduce_mean(affinity_loss(got["prior"], low_mask, num_classes))
        loss = loss_seg + loss_prior
    for name in inner:
        near(got[name], data[name], 1e-4)
    near(got["low_logits"], data["logits"], 1e-4)
    prior = data["prior_logits_nhwc"]
    near(got["prior"], prior.reshape(len(prior), height * width, -1), 1e-4)
    near(tf.sigmoid(got["prior"]), data["prior_map"], 1e-4)
    flat = np.reshape(low_mask, (len(low_mask), -1))
    np.testing.assert_array_equal(flat[:, :, None] == flat[:, None, :], data["ideal_affinity"])
    near(loss_seg, data["loss_seg"], 1e-4)
    near(loss_prior, data["loss_prior"], 1e-4)
    gradients, dx = tape.gradient(loss, [weights, x])
    near(dx, data["dx"], 2e-4)
    check_gradients(
        gradients, {k: v for k, v in data.items() if k != "dx"}, drop=("context_prior",)
    )


def test_three_losses_agree_with_the_official_code(golden):
    data = golden("cpnet/total_loss")
    label = data["label"]
    size = data["logits"].shape[1:3]
    tensors = [tf.constant(data[name]) for name in ("logits", "aux_logits", "prior_logits")]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        logits, aux, prior = tensors
        loss_seg, loss_aux = cross_entropy(logits, label), cross_entropy(aux, label)
        loss_prior = tf.reduce_mean(affinity_loss(prior, downsample_mask(label, size), 5))
        total = loss_seg + 0.4 * loss_aux + loss_prior
    near(loss_seg, data["loss_seg_all"], 1e-4)
    near(loss_aux, data["loss_aux_all_unweighted"], 1e-4)
    near(loss_prior, data["loss_prior"], 1e-4)
    near(total, data["total_all"], 1e-4)
    for gradient, name in zip(tape.gradient(total, tensors), ("logits", "aux", "prior_logits")):
        near(gradient, data[f"d_{name}"], 2e-4)
    upsampled = resize_bilinear(logits, label.shape[1:], align_corners=False)
    near(upsampled[:1], data["upsampled_logits"], 1e-4)
    for name, low in (("seg", logits), ("aux", aux)):
        low = resize_bilinear(low, label.shape[1:], align_corners=False)
        sums = softmax_cross_entropy(low, label)
        expected = data["loss_seg_valid" if name == "seg" else "loss_aux_valid_unweighted"]
        near(tf.reduce_sum(sums[0]) / tf.reduce_sum(sums[1]), expected, 1e-4)


# === The network ===


@functools.cache
def network(context="both", **options):
    keras.utils.set_random_seed(0)
    return cpnet_network(4, crop_size=(32, 48), backbone=tiny_backbone, context=context, **options)


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def test_outputs():
    outputs = network()(images(32, 48))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "logits": (2, 32, 48, 4),
        "aux_logits": (2, 32, 48, 4),
        "prior": (2, 24, 24),
    }
    assert {x.dtype for x in outputs.values()} == {tf.float32}


def test_another_size_is_refused_and_windows_named():
    with pytest.raises(ValueError, match=r"maps of 4 x 6 cannot take 6 x 4.*sliding windows"):
        network()(images(48, 32))
    unknown = tf.function(
        lambda x: network()(x)["logits"],
        autograph=False,
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    x = images(32, 48)
    np.testing.assert_allclose(unknown(x), network()(x)["logits"], atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        unknown(images(48, 32))  # as many positions, in another order


VARIANTS = {"both": 3, "intra": 2, "inter": 2, "aggregation": 2, "none": 1}


@pytest.mark.parametrize("context", VARIANTS)
def test_variants(context):
    net = network(context, auxiliary=context != "none")
    outputs = net(images(32, 48))
    assert ("prior" in outputs) == bool(CONTEXTS[context])
    assert ("aux_logits" in outputs) == (context != "none")
    # The features have 64 channels, each part beside them a quarter.
    assert net.get_layer("bottleneck").conv.kernel.shape[2] == 64 + 16 * (VARIANTS[context] - 1)
    if not CONTEXTS[context]:
        assert net(images(40, 29))["logits"].shape == (2, 40, 29, 4)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(x**2) for x in net(images(32, 48), training=True).values())
    variables = {v.path: v.value for v in net.trainable_variables}
    for path, gradient in tape.gradient(loss, variables).items():
        assert gradient is not None, path
        assert np.isfinite(gradient).all(), path


def test_prior_learns_from_the_segmentation_loss_too():
    net = network()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(net(images(32, 48), training=True)["logits"] ** 2)
    kernel = net.get_layer("context_prior").prior_conv.kernel
    assert np.any(tape.gradient(loss, kernel.value))


def test_tiles_change_nothing():
    whole, tiled = network(), network(prior_tile=5)
    tiled.set_weights(whole.get_weights())
    x = images(32, 48)
    for name, expected in whole(x).items():
        np.testing.assert_allclose(tiled(x)[name], expected, atol=1e-5)


def test_saved_network_reloads_without_custom_objects(tmp_path):
    net = network(prior_tile=5)
    net.save(tmp_path / "cpnet.keras")
    copy = keras.models.load_model(tmp_path / "cpnet.keras")
    x = images(32, 48)
    for name, expected in net(x).items():
        np.testing.assert_allclose(copy(x)[name], expected, atol=1e-6)
    assert len(copy.trainable_variables) == len(net.trainable_variables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 500}, "crop_size=500"),
        ({"crop_size": (480, 0)}, r"crop_size=\(480, 0\)"),
        ({"context": "most"}, "'most'.*both, intra"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        cpnet_network(4, backbone=tiny_backbone, **options)


@pytest.mark.usefixtures("large_kernels_zero")
def test_parameters_of_the_head_are_the_published_ones():
    def trainable(make, shapes):
        layers = [keras.Input(shape) for shape in shapes]
        net = make(*layers)
        return sum(int(np.prod(v.shape)) for v in net.trainable_variables) / 1e6

    for size, num_classes, expected in [(60, 150, 26.1), (64, 60, 26.3), (96, 19, 28.9)]:
        count = trainable(
            lambda x: keras.Model(x, cpnet_head(x, num_classes, (size, size))),  # noqa: B023
            [(size, size, 2048)],
        )
        assert round(count, 1) == expected
    aux = trainable(lambda x: keras.Model(x, fcn_head(x, 150, "aux")), [(None, None, 1024)])
    assert round(aux, 1) == 2.4
