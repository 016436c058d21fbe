"""CPNet's layers: aggregation module and context prior."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_weights import assign, check_gradients, near

from wsss_tf.layers.aggregation import Aggregation
from wsss_tf.layers.context_prior import ContextPrior, aggregate_context


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def variables(layer):
    """Return {path without the layer's own name: variable}."""
    return {v.path.split("/", 1)[1]: v for v in layer.variables}


# === Aggregation ===


@pytest.mark.parametrize(("file", "kernel_size"), [("aggregation_k3", 3), ("aggregation_k11", 11)])
def test_aggregation_agrees_with_the_official_code(golden, file, kernel_size):
    data = golden(f"cpnet/{file}")
    x = tf.constant(data["x"])
    layer = Aggregation(data["out"].shape[-1], kernel_size)
    layer.build(x.shape)
    assign(layer.variables, data, drop=(layer.name,))
    weights = {v.path: v.value for v in layer.trainable_variables}
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x, training=False)
        loss = tf.reduce_sum(out * data["cotangent"])
    near(out, data["out"], 1e-4)
    reduced = layer.reduce(x)
    near(reduced, data["reduce_out"], 1e-4)
    near(layer.t2(layer.t1(reduced)), data["branch_t"], 1e-4)
    near(layer.p2(layer.p1(reduced)), data["branch_p"], 1e-4)
    gradients, dx = tape.gradient(loss, [weights, x])
    near(dx, data["dx"], 2e-4)
    del data["dx"]
    check_gradients(gradients, data, drop=(layer.name,))
    near(layer(x, training=True), data["out_train"], 1e-4)


def test_aggregation_sees_a_cross_of_its_kernel_size():
    layer = Aggregation(16, kernel_size=5)
    x = tf.constant(features(1, 15, 17, 16))
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        centre = tf.reduce_sum(layer(x)[:, 7, 8])
    reached = np.argwhere(np.abs(tape.gradient(centre, x)[0]).sum(-1) > 0)
    # Two pixels each way by the pair of 5s, one more by the 3x3.
    np.testing.assert_array_equal(reached.min(0), [4, 5])
    np.testing.assert_array_equal(reached.max(0), [10, 11])


def test_aggregation_starts_as_the_official_code():
    layer = Aggregation(256, 11)
    layer.build((None, None, None, 128))
    # PyTorch's fan-out: 9 * 256, and 11 * 256 for the depthwise kernels.
    for kernel, fan_out in [(layer.reduce.conv.kernel, 9 * 256), (layer.t1.kernel, 11 * 256)]:
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_out), rel=5e-2)
    assert not np.any(layer.p2.bias)


# === Context prior ===


def test_aggregate_context_by_hand():
    prior = np.float32([[[1, 0], [0.5, 1]]])
    value = np.float32([[[2.0], [6.0]]])
    intra, inter = aggregate_context(prior, value)
    np.testing.assert_allclose(intra, [[[1], [3.5]]])  # 2 / 2 and (1 + 6) / 2
    np.testing.assert_allclose(inter, [[[3], [0.5]]])


def prior_layer(tile=None, size=(3, 5), channels=16):
    keras.utils.set_random_seed(0)
    layer = ContextPrior(size, tile)
    layer.build((None, *size, channels))
    layer.prior_bn.moving_mean.assign(features(size[0] * size[1]))
    return layer


@pytest.mark.parametrize("tile", [1, 4, 15, 64], ids="tile{}".format)  # of 15 positions
def test_tiled_context_equals_the_whole(tile):
    x = features(2, 3, 5, 16)
    for own, whole in zip(prior_layer(tile)(x, training=False), prior_layer()(x, training=False)):
        np.testing.assert_allclose(own, whole, rtol=0, atol=1e-6)


def test_tiles_are_for_inference_only():
    x = features(2, 3, 5, 16)
    for own, whole in zip(prior_layer(4)(x, training=True), prior_layer()(x, training=True)):
        np.testing.assert_array_equal(own, whole)  # batch statistics of the whole map


def has_square_map(graph_def, positions):
    """Return whether a pruned graph holds an operation with a [B, N, N] result."""
    return any(
        [d.size for d in node.attr["_output_shapes"].list.shape[0].dim][-2:] == [positions] * 2
        for node in graph_def.node
        if node.attr["_output_shapes"].list.shape
    )


@pytest.mark.parametrize(("tile", "expected"), [(None, True), (4, False)])
def test_tiled_context_makes_no_square_map_where_nobody_asks_for_it(tile, expected):
    layer = prior_layer(tile)
    spec = tf.TensorSpec([2, 3, 5, 16])
    whole = tf.compat.v1.wrap_function(lambda x: layer(x, training=False), [spec])
    context = whole.prune(whole.inputs[0], whole.structured_outputs[0])
    assert has_square_map(context.graph.as_graph_def(add_shapes=True), 15) == expected


def test_rows_are_positions_and_columns_channels():
    layer = prior_layer()
    x = features(2, 3, 5, 16)
    intra, inter, prior = (np.asarray(part) for part in layer(x, training=False))
    channels = np.asarray(layer.prior_bn(layer.prior_conv(x)))  # [B, h, w, N]
    np.testing.assert_allclose(prior[1, 1 * 5 + 3], channels[1, 1, 3], atol=1e-6)
    p = 1 / (1 + np.exp(-prior[1, 8]))
    flat = x[1].reshape(15, 16)
    np.testing.assert_allclose(intra[1, 1, 3], p @ flat / 15, atol=1e-6)
    np.testing.assert_allclose(inter[1, 1, 3], (1 - p) @ flat / 15, atol=1e-6)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="maps of 3 x 5 cannot take 5 x 3"):
        prior_layer()(features(1, 5, 3, 16))


LAYERS = {
    "Aggregation": lambda: Aggregation(32, 5, synchronized_batchnorm=False, name="aggregation"),
    "ContextPrior": lambda: ContextPrior((3, 5), 4, synchronized_batchnorm=False, name="prior"),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_config_and_file_hold_every_argument(make, tmp_path):
    layer = make()
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    for name in ("filters", "kernel_size", "size", "tile", "synchronized_batchnorm"):
        assert getattr(copy, name, None) == getattr(layer, name, None)
    image = keras.Input((3, 5, 16))
    model = keras.Model(image, layer(image))
    x = features(2, 3, 5, 16)
    model(x, training=True)  # statistics away from their start
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(tf.nest.flatten(reloaded(x)), tf.nest.flatten(model(x))):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        assert one.shape[0] == 2
    specs = tf.nest.flatten(model.output)
    assert [tuple(s.shape[1:]) for s in specs] == [
        tuple(t.shape[1:]) for t in tf.nest.flatten(model(x))
    ]


def test_frozen_layer_keeps_its_statistics():
    layer = Aggregation(16, 3)
    x = features(2, 4, 6, 16)
    layer.build(x.shape)
    layer.trainable = False
    before = [np.asarray(v) for v in layer.variables]
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    for v, old in zip(layer.variables, before):
        np.testing.assert_array_equal(v, old)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_context_and_prior_stay_in_float32_under_mixed_precision(policy):
    x = features(2, 3, 5, 16)
    expected = prior_layer()(x, training=False)
    keras.config.set_dtype_policy(policy)
    layer = prior_layer()
    try:
        outputs = layer(tf.cast(x, layer.compute_dtype), training=False)
    except tf.errors.AbortedError:
        pytest.skip("oneDNN has no half-precision convolution for this CPU")
    for own, whole in zip(outputs, expected):
        assert own.dtype == tf.float32
        np.testing.assert_allclose(own, whole, atol=3e-2)
    # A mean of rounded inputs is as exact as the inputs, not as a half-precision sum.
    mean = np.asarray(outputs[0] + outputs[1])
    flat = np.asarray(tf.cast(tf.cast(x, layer.compute_dtype), "float32")).reshape(2, 15, 16)
    np.testing.assert_allclose(mean[:, 0, 0], flat.mean(1), atol=1e-6)


def test_variable_counts():
    layer = Aggregation(32, 5)
    layer.build((None, 3, 5, 16))
    trained = {path: tuple(v.shape) for path, v in variables(layer).items() if v.trainable}
    assert trained["reduce/conv/kernel"] == (3, 3, 16, 32)
    assert trained["t1/kernel"] == trained["p2/kernel"] == (5, 1, 32, 1)
    assert trained["t2/kernel"] == trained["p1/kernel"] == (1, 5, 32, 1)
    assert sum(np.prod(s) for s in trained.values()) == 9 * 16 * 32 + 4 * (5 + 1) * 32 + 4 * 32
    prior = prior_layer()
    assert prior.count_params() == 16 * 15 + 4 * 15
