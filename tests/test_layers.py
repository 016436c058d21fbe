import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.layers.normalize_cam import NormalizeCam
from wsss_tf.layers.pcm import Pcm, _pooled_keys, pixel_correlation
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.stop_gradient import StopGradient


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def maps(*shape):
    """Return random scores in [0, 1] and features of the same size, [.., 4] and [.., 6]."""
    rng = np.random.default_rng(3)
    return rng.random((*shape, 4), np.float32), rng.normal(size=(*shape, 6)).astype(np.float32)


def test_pcm_agrees_with_the_official_code(golden):
    data = golden("pcm")
    cam, features = tf.constant(data["cam"]), tf.constant(data["f"])
    layer = Pcm(192)
    layer.build([cam.shape, features.shape])
    layer.f9.kernel.assign(data["f9__kernel"])
    with tf.GradientTape() as tape:
        tape.watch(features)
        refined = layer([cam, features])
        loss = tf.reduce_sum(refined * data["upstream"])
    close(refined, data["cam_rv"])
    to_features, to_kernel = tape.gradient(loss, [features, layer.f9.kernel.value])
    close(to_features, data["grad_f"])
    close(to_kernel, data["grad_f9__kernel"])


@pytest.mark.parametrize("tile", [1, 8, 35, 64], ids="tile{}".format)  # of 35 pixels
def test_tiled_pcm_equals_the_whole(tile):
    cam, features = maps(2, 5, 7)
    close(pixel_correlation(cam, features, tile), pixel_correlation(cam, features), atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_pcm_pools_its_keys_above_a_number(known):
    cam, features = maps(2, 9, 14)
    # Constant over blocks of 2 x 2, of which the last row is cut, so pooling is exact.
    cam, features = (np.repeat(np.repeat(x, 2, 1), 2, 2)[:, :-1] for x in (cam, features))
    whole = pixel_correlation(cam, features)
    size = [2, 17, 28] if known else [None] * 3

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([*size, x.shape[-1]]) for x in (cam, features)],
    )
    def pooled(cam, features):
        return pixel_correlation(cam, features, tile=100, max_keys=120)

    close(pooled(cam, features), whole, atol=1e-6)
    close(pixel_correlation(cam, features, max_keys=17 * 28), whole, atol=0)
    # Blocks of 3 x 3 mix what differs.
    mixed = np.abs(pixel_correlation(cam, features, max_keys=60) - whole)
    assert 1e-4 < mixed.max() < 0.2


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [(40, 40), (2, 800), (800, 2), (1, 1600)])
def test_no_shape_has_many_more_keys_than_allowed(size, known):
    height, width = size if known else (tf.Variable(length) for length in size)

    @tf.function(autograph=False)
    def pooled(features, ones):
        batch = (1, height, width) if known else (1, height.value(), width.value())
        return _pooled_keys(features, ones, batch, 20)

    flat = tf.ones([1, size[0] * size[1], 3])
    keys, values = pooled(flat, flat[..., :1])
    assert 4 <= keys.shape[1] <= 25
    np.testing.assert_allclose(keys, 1)
    assert np.sum(values) == size[0] * size[1]


def test_pcm_is_bounded_in_inference_only(monkeypatch):
    bounds = []
    monkeypatch.setattr(
        "wsss_tf.layers.pcm.pixel_correlation",
        lambda cam, features, *given: bounds.append(given),
    )
    layer = Pcm(16, tile=8, max_keys=99)
    layer(maps(1, 2, 3), training=False)
    layer(maps(1, 2, 3), training=True)
    assert bounds == [(8, 99), (None, None)]


def test_pcm_by_hand():
    # Pixels 0 and 1 have equal features up to scale; pixel 2's are opposite, so unrelated.
    features = np.float32([[[[1, 0], [3, 0], [-2, 0]]]])
    cam = np.float32([[[[1.0], [0.5], [0.2]]]])
    close(pixel_correlation(cam, features), [[[[0.75], [0.75], [0.2]]]], atol=2e-5)


def test_pcm_leaves_a_uniform_map_as_it_is():
    _, features = maps(2, 5, 7)
    cam = np.broadcast_to(np.float32([0.1, 0.5, 0, 1]), (2, 5, 7, 4))
    close(pixel_correlation(cam, features), cam, atol=3e-5)  # twice the epsilon, and rounding


def test_pcm_keeps_scores_in_range_and_follows_batch_classes_and_mirroring():
    cam, features = maps(3, 5, 7)
    refined = np.asarray(pixel_correlation(cam, features))
    assert refined.min() >= cam.min()
    assert refined.max() <= cam.max()
    close(pixel_correlation(cam[::-1], features[::-1]), refined[::-1], atol=1e-6)
    close(pixel_correlation(cam[..., ::-1], features), refined[..., ::-1], atol=1e-6)
    flipped = pixel_correlation(cam[:, :, ::-1], features[:, :, ::-1])
    close(flipped, refined[:, :, ::-1], atol=1e-6)
    close(pixel_correlation(cam, 1000 * features), refined, atol=2e-5)


def test_pcm_has_finite_gradients_at_zero_features():
    cam, features = maps(2, 3, 4)
    features[0] = 0
    features[1, 0] = 0
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        refined = pixel_correlation(cam, features)
        loss = tf.reduce_sum(tf.square(refined))
    gradient = tape.gradient(loss, features)
    assert np.all(np.isfinite(refined))
    assert np.all(np.isfinite(gradient))
    close(refined[0], np.zeros((3, 4, 4)), atol=0)


def test_pcm_refuses_maps_of_different_sizes():
    with pytest.raises(ValueError, match=r"\(2, 5, 7, 4\).*\(2, 5, 6, 6\)"):
        Pcm(16)([maps(2, 5, 7)[0], maps(2, 5, 6)[1]])


LAYERS = {
    "Pcm": (lambda: Pcm(16, tile=8, name="pcm"), (4, 6)),
    "NormalizeCam": (lambda: NormalizeCam(name="norm_cam"), (4,)),
    "ResizeLike": (lambda: ResizeLike(align_corners=False, name="resized"), (4, 6)),
    "StopGradient": (lambda: StopGradient(name="constant"), (4,)),
}


def each_layer(test):
    return pytest.mark.parametrize(("make", "channels"), LAYERS.values(), ids=LAYERS)(test)


def inputs(channels, size=(5, 7)):
    """Return one array for one input, else a list; ResizeLike and Pcm take two."""
    arrays = list(maps(2, *size))[: len(channels)]
    return arrays if len(arrays) > 1 else arrays[0]


def functional(layer, channels):
    """Return a model of one layer that leaves height and width open."""
    symbolic = [keras.Input((None, None, count)) for count in channels]
    symbolic = symbolic if len(symbolic) > 1 else symbolic[0]
    return keras.Model(symbolic, layer(symbolic))


@each_layer
def test_config_holds_every_argument(make, channels):
    layer = make()
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert vars(copy).keys() == vars(layer).keys()
    for name in ("filters", "tile", "align_corners"):
        assert getattr(copy, name, None) == getattr(layer, name, None)


@each_layer
def test_runs_on_any_size_and_reloads_without_the_classes_at_hand(make, channels, tmp_path):
    layer = make()
    model = functional(layer, channels)
    assert model.output_shape == (None, None, None, 4)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    for size in [(5, 7), (1, 4)]:
        x = inputs(channels, size)
        output = np.asarray(layer(x))
        # A shape known in advance agrees with the real one, in shape and type.
        spec = layer.compute_output_spec(
            keras.tree.map_structure(lambda a: keras.KerasTensor(a.shape, "float32"), x)
        )
        assert (tuple(spec.shape), spec.dtype) == (output.shape, output.dtype.name)
        close(tf.function(model, autograph=False)(x), output, atol=1e-6)
        close(reloaded(x), output, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_pixel_correlation_computes_in_float32(dtype):
    cam, features = maps(2, 5, 7)
    features = tf.cast(1e-4 * features, dtype)  # its squares vanish in float16
    refined = pixel_correlation(cam, features)
    assert refined.dtype == tf.float32
    close(refined, pixel_correlation(cam, tf.cast(features, "float32")), atol=0)


@each_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(make, channels, policy):
    x = inputs(channels)
    full = make()
    expected = np.asarray(full(x))
    keras.config.set_dtype_policy(policy)
    layer = make()
    try:
        layer(x)
    except tf.errors.AbortedError:
        pytest.skip("oneDNN has no half-precision convolution for this CPU")
    layer.set_weights(full.get_weights())
    output = layer(x)
    assert np.all(np.isfinite(np.asarray(keras.ops.cast(output, "float32"))))
    if not isinstance(layer, StopGradient):  # the maps stay in float32
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
    # Only the features of the PCM may be rounded, to 3 and 2 digits.
    close(keras.ops.cast(output, "float32"), expected, atol=2e-2)
    if isinstance(layer, NormalizeCam | ResizeLike):
        close(output, expected, atol=1e-6)


def test_variable_counts():
    layer = Pcm(16)
    layer(inputs((4, 6)))
    assert [v.path for v in layer.trainable_variables] == [f"{layer.name}/f9/kernel"]
    assert layer.count_params() == 6 * 16


def test_pcm_initializer_is_xavier_uniform_with_gain_4():
    layer = Pcm(192)
    layer.build([(None, None, None, 21), (None, None, None, 195)])
    kernel = np.asarray(layer.f9.kernel)
    bound = 4 * np.sqrt(6 / (195 + 192))
    assert np.abs(kernel).max() == pytest.approx(bound, rel=1e-3)
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=2e-2)


def test_normalize_cam_is_the_function(golden):
    data = golden("cam_normalise_nms")
    close(NormalizeCam()(data["cam_low"]), data["cam_d_norm"])


@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_like_is_the_function(align_corners):
    x, like = maps(2, 3, 5)[0], maps(2, 8, 11)[1]
    expected = ops.resize_bilinear(x, (8, 11), align_corners)
    close(ResizeLike(align_corners)([x, like]), expected, atol=0)


def test_stop_gradient():
    x = tf.constant(inputs((4,)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = StopGradient()(x)
    np.testing.assert_array_equal(y, x)
    assert tape.gradient(y, x) is None
