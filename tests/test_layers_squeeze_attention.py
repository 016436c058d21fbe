"""SANet's squeeze-and-attention, and the squeeze-and-excitation in its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_weights import assign, check_gradients, near

from wsss_tf.layers.squeeze_attention import SqueezeAttention, squeeze
from wsss_tf.layers.squeeze_excitation import SqueezeExcitation

SA_FILES = ["sa_module", "sa_module_ragged", "sa_module_tiny", "sa_module_sigmoid"]


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def sa_of(data, file):
    layer = SqueezeAttention(
        data["out"].shape[-1],
        mid_filters=data["aconv1.kernel"].shape[-1],
        attn_activation="sigmoid" if file.endswith("sigmoid") else "relu",
    )
    layer.build(data["x"].shape)
    return layer


def compare(layer, data):
    """Compare a layer's output and gradients with a golden file; returns the input."""
    assign(layer.variables, data, drop=(layer.name,))
    x = tf.constant(data["x"])
    weights = {v.path: v.value for v in layer.trainable_variables}
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x, training=False)
        loss = tf.reduce_sum(out * data["cotangent"])
    near(out, data["out"], 1e-4)
    gradients, dx = tape.gradient(loss, [weights, x])
    near(dx, data["dx"], 2e-4)
    check_gradients(gradients, {k: v for k, v in data.items() if k != "dx"}, drop=(layer.name,))
    return x


@pytest.mark.parametrize("file", SA_FILES)
def test_squeeze_attention_agrees_with_the_reference(golden, file):
    data = golden(f"sanet/{file}")
    layer = sa_of(data, file)
    x = compare(layer, data)
    near(squeeze(x), data["pooled"], 1e-4)
    near(layer.aconv2(layer.aconv1(squeeze(x))), data["attn_low"], 1e-4)
    near(layer.attn(x), data["attn_up"], 1e-4)
    near(layer.res(x), data["res"], 1e-4)
    near(layer(x, training=True), data["out_train"], 1e-4)


@pytest.mark.parametrize("file", ["se_module", "se_module_same"])
def test_squeeze_excitation_agrees_with_the_reference(golden, file):
    data = golden(f"sanet/{file}")
    channels = data["x"].shape[-1]
    reduction = channels // data["fc1.bias"].shape[0]
    layer = SqueezeExcitation(data["out"].shape[-1], reduction)
    layer.build(data["x"].shape)
    x = compare(layer, data)
    near(layer.res(x), data["res"], 1e-4)
    near(layer.weights_of(x), data["w"], 1e-4)
    near(layer.shortcut(x), data["shortcut"], 1e-4)
    assert (layer.proj is None) == file.endswith("same")


def test_squeeze_by_hand():
    x = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5, 1)
    # Windows of 2 x 2; the third row and the fifth column fill none.
    expected = [[[3, 5]], [[18, 20]]]
    np.testing.assert_allclose(squeeze(x, 2)[..., 0], expected)
    np.testing.assert_allclose(squeeze(x, 8)[..., 0], [[[7]], [[22]]])


@pytest.mark.parametrize("size", [(16, 24), (20, 29), (6, 19), (3, 2)])
def test_sizes_known_only_in_the_graph(size):
    x = features(2, *size, 16)
    layer = SqueezeAttention(16, 16)
    layer.build(x.shape)
    unknown = tf.function(
        layer, autograph=False, input_signature=[tf.TensorSpec([None, None, None, 16])]
    )
    np.testing.assert_allclose(unknown(x), layer(x), rtol=0, atol=1e-5)


def test_attention_is_constant_where_one_window_covers_the_map():
    layer = SqueezeAttention(16)
    x = features(2, 8, 8, 16)
    layer.build(x.shape)
    attn = np.asarray(layer.attn(x))
    np.testing.assert_allclose(attn, np.broadcast_to(attn[:, :1, :1], attn.shape), atol=1e-6)


def test_mid_filters_are_a_quarter():
    layer = SqueezeAttention(64)
    layer.build((None, None, None, 256))
    assert layer.aconv1.conv.kernel.shape == (3, 3, 256, 16)
    assert layer.mid_filters is None


def test_unknown_activation():
    with pytest.raises(ValueError, match="'tanh'"):
        SqueezeAttention(16, attn_activation="tanh")


LAYERS = {
    "SqueezeAttention": lambda: SqueezeAttention(
        16, 32, 4, "sigmoid", synchronized_batchnorm=False, name="sa"
    ),
    "SqueezeExcitation": lambda: SqueezeExcitation(
        32, 4, synchronized_batchnorm=False, name="se"
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_config_and_file_hold_every_argument(make, tmp_path):
    layer = make()
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    arguments = ("filters", "mid_filters", "window", "attn_activation", "reduction")
    for name in (*arguments, "synchronized_batchnorm"):
        assert getattr(copy, name, None) == getattr(layer, name, None)
    image = keras.Input((None, None, 16))
    model = keras.Model(image, layer(image))
    assert model.output_shape == (None, None, None, layer.filters)
    x = features(2, 9, 11, 16)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded(x), model(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_mixed_precision(make, policy):
    x = features(2, 9, 11, 16)
    full = make()
    expected = full(x, training=False)
    keras.config.set_dtype_policy(policy)
    layer = make()
    layer.build(x.shape)
    layer.set_weights(full.get_weights())
    try:
        out = layer(x, training=False)
    except tf.errors.AbortedError:
        pytest.skip("oneDNN has no half-precision convolution for this CPU")
    assert out.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(out, "float32"), expected, atol=5e-2)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_follows_the_batch(make):
    layer = make()
    x = features(3, 9, 11, 16)
    np.testing.assert_allclose(layer(x[::-1]), layer(x)[::-1], rtol=0, atol=1e-5)
