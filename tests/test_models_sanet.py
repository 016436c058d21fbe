import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_weights import golden_name, near
from parameters import few_of
from tiny_backbone import tiny_backbone

from wsss_tf.losses.sanet import categorical_loss, class_presence
from wsss_tf.losses.segmentation import softmax_cross_entropy
from wsss_tf.models import fcn, sanet
from wsss_tf.models.fcn import fcn_network, fcn_se_network
from wsss_tf.models.sanet import sanet_head, sanet_network
from wsss_tf.ops import resize_bilinear

# Our layers by the golden files' names.
NAMES = {"den_conv": "fcn", "den_cls": "den", "mask": "mask", "cat": "cat", "sa4_cls": "sa4_cls"}


def cross_entropy(logits, mask):
    logits = resize_bilinear(logits, mask.shape[1:], align_corners=False)
    total, count = softmax_cross_entropy(logits, mask)
    return tf.reduce_sum(total) / tf.maximum(tf.reduce_sum(count), 1)


def golden_of(path):
    first, *rest = path.split("/")
    return golden_name("/".join([NAMES.get(first, first), *rest]))


def losses(mask_logits, dense_logits, category_logits, label, num_classes):
    """Return SANet's terms under their golden names."""
    presence = class_presence(label, num_classes)
    terms = {
        "l_mask": cross_entropy(mask_logits, label),
        "l_den": cross_entropy(dense_logits, label),
        "l_cat_mean": tf.reduce_mean(categorical_loss(presence, category_logits)),
        "l_cat_sum": tf.reduce_mean(categorical_loss(presence, category_logits, "sum")),
    }
    base = terms["l_mask"] + 0.8 * terms["l_den"]
    terms["total"] = base + 0.2 * terms["l_cat_mean"]
    terms["total_cat_sum"] = base + 0.2 * terms["l_cat_sum"]
    return terms


def test_heads_agree_with_the_reference(golden, monkeypatch):
    data = golden("sanet/sanet_heads")
    for module in (sanet, fcn):  # the golden modules are narrower than 16 channels
        monkeypatch.setattr(module, "scale_channels", lambda count, width: int(count * width))
    stages = ("stage1", "stage2", "stage3", "stage4")
    trunk = tiny_backbone()  # of the golden strides and channels, which is then cut off
    image = trunk.input
    num_classes = data["y_cat"].shape[1]
    outputs = sanet_head(trunk, num_classes)
    whole = keras.Model(image, outputs)
    inner = {f"sa{i}_out": whole.get_layer(f"sa{i}").output for i in (1, 2, 3, 4)}
    inner["concat_mean"] = whole.get_layer("concat_mean").output
    inner["y_sa4"] = whole.get_layer("sa4_cls").output
    inner["y_den"] = whole.get_layer("den_cls").output
    head = keras.Model([trunk.output[stage] for stage in stages], {**outputs, **inner})
    for v in head.variables:
        if "seed_generator" not in v.path:
            v.assign(data[golden_of(v.path)])

    features = {stage: tf.constant(data[f"feat{i}"]) for i, stage in enumerate(stages, start=1)}
    weights = {golden_of(v.path): v.value for v in head.trainable_variables}
    with tf.GradientTape() as tape:
        tape.watch(features)
        got = head(list(features.values()), training=False)
        terms = losses(got["mask"], got["dense"], got["category"], data["label"], num_classes)
    for name in inner:
        near(got[name], data[name], 1e-4)
    near(got["mask"], data["y_mask"], 1e-4)
    near(got["category"], data["y_cat"], 1e-4)
    near(got["dense"], data["y_den"] + data["y_sa4"], 1e-4)
    np.testing.assert_array_equal(class_presence(data["label"], num_classes), data["cat_target"])
    for name, term in terms.items():
        near(term, data[name], 1e-4)
    gradients, of_features = tape.gradient(terms["total"], [weights, features])
    for i, stage in enumerate(stages, start=1):
        near(of_features[stage], data[f"d_feat{i}"], 2e-4)
    names = [n for n in data if n.startswith("d_") and not n.startswith("d_feat")]
    assert len(names) == 4
    for name in names:
        near(gradients[name.removeprefix("d_")], data[name], 2e-4)


@pytest.mark.parametrize("case", ["plain", "ragged", "onevoid", "allvoid"])
def test_losses_agree_with_the_reference(golden, case):
    data = golden("sanet/sanet_losses")
    data = {k.removeprefix(f"{case}."): v for k, v in data.items() if k.startswith(f"{case}.")}
    names = ("y_mask", "y_den", "y_sa4", "y_cat")
    logits = {name: tf.constant(data[name]) for name in names}
    num_classes = data["y_cat"].shape[1]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        dense = logits["y_den"] + logits["y_sa4"]
        terms = losses(logits["y_mask"], dense, logits["y_cat"], data["label"], num_classes)
    for name, term in terms.items():
        near(term, data[name], 1e-4)
    for name, gradient in tape.gradient(terms["total"], logits).items():
        near(gradient, data[f"d_{name}"], 2e-4)


# === The networks ===

NETWORKS = {
    "sanet": lambda **options: sanet_network(5, backbone=tiny_backbone, **options),
    "fcn": lambda **options: fcn_network(5, backbone=tiny_backbone, auxiliary=True, **options),
    "fcn_se": lambda **options: fcn_se_network(5, backbone=tiny_backbone, **options),
}
OUTPUTS = {
    "sanet": {"logits", "dense_logits", "category_logits"},
    "fcn": {"logits", "aux_logits"},
    "fcn_se": {"logits"},
}


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", few_of(NETWORKS, "sanet"))
def test_outputs_gradients_and_file(name, tmp_path):
    net = NETWORKS[name]()
    x = images(64, 70)
    with tf.GradientTape() as tape:
        outputs = net(x, training=True)
        loss = sum(tf.reduce_mean(output**2) for output in outputs.values())
    assert outputs.keys() == OUTPUTS[name]
    for output, value in outputs.items():
        assert value.shape == ((2, 5) if output == "category_logits" else (2, 64, 70, 5))
        assert value.dtype == tf.float32
    variables = {v.path: v.value for v in net.trainable_variables}
    for path, gradient in tape.gradient(loss, variables).items():
        assert gradient is not None, path
        assert np.isfinite(gradient).all(), path
    net.save(tmp_path / "net.keras")
    copy = keras.models.load_model(tmp_path / "net.keras")
    x = images(41, 50)
    unknown = tf.function(
        copy, autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3])]
    )
    for output, value in unknown(x).items():
        np.testing.assert_allclose(value, net(x)[output], atol=1e-5)


def test_dense_prediction_has_the_last_module_in_it():
    net = NETWORKS["sanet"]()
    x = images(64, 64)
    before = net(x)
    net.get_layer("sa4_cls").bias.assign(np.arange(5))
    after = net(x)
    difference = np.asarray(after["dense_logits"] - before["dense_logits"])
    expected = np.broadcast_to(np.arange(5), difference.shape)
    np.testing.assert_allclose(difference, expected, atol=1e-5)
    np.testing.assert_array_equal(after["logits"], before["logits"])


def test_stages_of_other_strides_meet_at_stride_8():
    net = sanet_network(5, backbone=functools.partial(tiny_backbone, last=32))
    shapes = net.compute_output_shape((2, 64, 128, 3))
    assert shapes["logits"] == shapes["dense_logits"] == (2, 64, 128, 5)
    maps = {name: net.get_layer(name).output for name in ("stage4", "concat")}
    got = keras.Model(net.input, maps)(images(64, 128))
    assert got["stage4"].shape == (2, 2, 4, 64)
    assert got["concat"].shape == (2, 8, 16, 4 * 16)


def test_options_reach_the_modules():
    net = NETWORKS["sanet"](attn_activation="sigmoid", mid_filters=4, dropout=0.0)
    modules = [net.get_layer(f"sa{i}") for i in (1, 2, 3, 4)]
    assert {m.attn_activation for m in modules} == {"sigmoid"}
    assert {m.mid_filters for m in modules} == {4}
    rates = [x.rate for x in net.layers if isinstance(x, keras.layers.SpatialDropout2D)]
    assert set(rates) == {0}


@pytest.mark.usefixtures("large_kernels_zero")
def test_parameters_are_the_computed_ones():
    trunk = tiny_backbone(channels=(256, 512, 1024, 2048))
    image = trunk.input
    counts = {}
    for filters in (None, 4):
        net = keras.Model(image, sanet_head(trunk, 60, mid_filters=filters))
        counts[filters] = [
            sum(int(np.prod(v.shape)) for v in net.get_layer(f"sa{i}").trainable_variables) / 1e6
            for i in (1, 2, 3, 4)
        ]
    assert [round(count, 2) for count in counts[None]] == [0.23, 0.92, 3.69, 14.75]
    assert round(sum(counts[None]), 1) == 19.6
    assert round(sum(counts[4]), 1) == 15.8
    assert net.get_layer("concat").output.shape[-1] == 960
    head = [v for v in net.trainable_variables if v.path.startswith("den_conv")]
    assert round(sum(int(np.prod(v.shape)) for v in head) / 1e6, 1) == 9.4
