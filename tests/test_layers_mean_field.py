import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.inference.dense_crf import CAM_CRF, dense_crf_from_energy
from wsss_tf.layers.mean_field import MeanField, _gaussian, _normalized, mean_field
from wsss_tf.losses.sec import clipped_softmax, constrain


def close(actual, expected, atol=0.0, rtol=0.0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


def example(batch=2, height=5, width=7, classes=4, seed=0):
    """Return logits and an integer-valued image of smooth regions with noise."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, height, width, classes)).astype(np.float32)
    image = 80 * (np.indices((height, width)).sum(0)[..., None] > height) + rng.integers(
        0, 60, (batch, height, width, 3)
    )
    return logits, image.astype(np.float32)


# === Agreement with the reference ===


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-9), ("float32", 1e-3)])
def test_small_crf_agrees_with_the_reference(golden, dtype, atol):
    data = golden("sec/crf_small")
    logits, image = data["logits"][None].astype(dtype), data["image"][None]
    for iterations, name in enumerate(("q_iter0", "q_iter1", "q_iter2")):
        close(mean_field(logits, image, iterations=iterations)[0], data[name], atol)
    q = mean_field(logits, image)
    assert q.dtype == dtype
    close(q[0], data["q_exact"], atol)
    clipped = np.maximum(q[0], 1e-4)
    clipped /= clipped.sum(axis=-1, keepdims=True)
    close(np.log(clipped), data["crf_log"], 10 * atol)
    other = mean_field(
        logits,
        image,
        bilateral_weight=5,
        bilateral_xy=4,
        bilateral_rgb=20,
        gaussian_weight=2,
        gaussian_xy=1.5,
        iterations=5,
    )
    close(other[0], data["q_exact_params2"], atol)


def test_gaussian_kernel_is_the_product_of_its_axes(golden):
    data = golden("sec/crf_small")
    rows, columns = np.arange(9.0), np.arange(11.0)
    kernels = [_gaussian(axis, axis, 0.25) for axis in (rows, columns)]
    sums = [np.asarray(kernel).sum(axis=1) for kernel in kernels]
    close(np.outer(*sums).ravel(), data["rowsum_gaussian"], rtol=1e-12)
    normalized = np.kron(*(np.asarray(_normalized(kernel)) for kernel in kernels))
    close(normalized, data["kernel_gaussian_norm"], atol=1e-12)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_training_size_agrees_with_the_reference(golden, case):
    data = golden(f"sec/crf41_{case}")
    logits, image = data["logits"][None], data["image"][None]
    first = np.abs(mean_field(logits, image, iterations=1)[0] - data["q_exact_iter1"])
    q = np.asarray(mean_field(logits, image))
    difference = np.abs(q[0] - data["q_exact"])
    for part in (first, difference):
        assert np.mean(part <= 1e-4) >= 0.999
        assert part.max() <= 5e-3
    assert np.mean(q[0].argmax(-1) == data["label_exact"]) >= 0.999
    # The approximate filter of the usual library labels 98 to 99 % of the pixels so.
    assert np.mean(q[0].argmax(-1) == data["label_lattice"]) >= 0.98


def test_constrain_loss_behind_the_crf_agrees_with_the_reference(golden):
    data = golden("sec/losses_full")
    q = mean_field(data["logits"], data["images"])
    difference = np.abs(q - data["crf_q_raw"])
    assert np.mean(difference <= 1e-4) >= 0.999
    terms = constrain(clipped_softmax(data["logits"]), q)
    close(terms, data["constrain_loss_per_image"], rtol=2e-4)


def test_marginals_are_close_to_those_of_the_lattice():
    # Smooth scores on a picture of two regions, as a network's are.
    height, width = 24, 30
    rng = np.random.default_rng(0)
    y, x = np.indices((height, width))
    region = x + 2 * y > 45
    image = np.where(region[..., None], [170, 120, 60], [60, 100, 150])
    image = (image + rng.integers(-8, 9, (height, width, 3))).astype(np.uint8)
    logits = np.stack([1.5 * ~region, 1.5 * region, 0.2 + 0 * x], axis=-1)
    logits = (logits + rng.normal(size=logits.shape)).astype(np.float32)

    lattice = dense_crf_from_energy(-logits, image, CAM_CRF.scaled(12))

    exact = np.asarray(mean_field(logits[None], image[None]))[0]
    assert np.mean(exact.argmax(-1) == lattice.argmax(-1)) >= 0.98
    assert np.abs(exact - lattice).mean() <= 2e-3
    before = np.asarray(keras.ops.softmax(logits))
    assert np.abs(exact - before).mean() > 0.2  # there was something to do


# === Properties ===


@pytest.mark.parametrize("tile", [1, 8, 35, 64], ids="tile{}".format)  # of 35 pixels
def test_tiles_change_nothing(tile):
    logits, image = example()
    tiled = mean_field(logits, image, iterations=3, tile=tile)
    close(tiled, mean_field(logits, image, iterations=3), atol=2e-6)


def test_without_kernels_the_marginals_are_the_softmax():
    logits, image = example()
    q = mean_field(logits, image, bilateral_weight=0, gaussian_weight=0)
    close(q, keras.ops.softmax(logits), atol=1e-6)


def test_one_iteration_by_hand():
    # Two pixels in a row of equal colour; each kernel is 1 and k, its row sums 1 + k.
    logits = np.float64([[1.0, 0.0], [0.0, 0.5]]).reshape(1, 1, 2, 2)
    image = np.full((1, 1, 2, 3), 7, np.uint8)
    q = mean_field(logits, image, gaussian_xy=2.0, bilateral_xy=1.0, iterations=1)
    start = np.exp(logits[0, 0]) / np.exp(logits[0, 0]).sum(axis=1, keepdims=True)
    new = logits[0, 0].copy()
    for weight, k in ((3, np.exp(-1 / 8)), (10, np.exp(-1 / 2))):
        new += weight * np.float64([[1, k], [k, 1]]) / (1 + k) @ start
    expected = np.exp(new) / np.exp(new).sum(axis=1, keepdims=True)
    close(q[0, 0], expected, atol=1e-12)


def test_follows_batch_classes_mirroring_and_ignores_a_constant():
    logits, image = example(batch=3)
    q = np.asarray(mean_field(logits, image))
    close(q.sum(axis=-1), np.ones(q.shape[:3]), atol=1e-6)
    close(mean_field(logits[::-1], image[::-1]), q[::-1], atol=1e-5)
    close(mean_field(logits[..., ::-1], image), q[..., ::-1], atol=1e-5)
    close(mean_field(logits[:, :, ::-1], image[:, :, ::-1]), q[:, :, ::-1], atol=1e-5)
    swapped = [np.swapaxes(x, 1, 2) for x in (logits, image)]
    close(mean_field(*swapped), np.swapaxes(q, 1, 2), atol=1e-5)
    close(mean_field(logits, image[..., ::-1]), q, atol=1e-5)  # order of the colours
    constant = np.random.default_rng(1).normal(size=(3, 5, 7, 1)).astype(np.float32)
    close(mean_field(logits + constant, image), q, atol=1e-5)


def test_gradient_agrees_with_finite_differences():
    logits, image = example(batch=1, height=3, width=4, classes=3)
    logits, image = tf.constant(logits, tf.float64), tf.constant(image, tf.float64)
    upstream = np.random.default_rng(2).normal(size=logits.shape)

    def value(x, y, tile=None):
        return tf.reduce_sum(mean_field(x, y, iterations=3, tile=tile) * upstream)

    for tile in (None, 5):
        with tf.GradientTape() as tape:
            tape.watch([logits, image])
            total = value(logits, image, tile)
        gradients = tape.gradient(total, [logits, image])
        for i, (x, gradient) in enumerate(zip((logits, image), gradients)):
            direction = np.random.default_rng(3).normal(size=x.shape)
            step = 1e-5 * direction
            moved = [[logits, image], [logits, image]]
            moved[0][i], moved[1][i] = x + step, x - step
            slope = (value(*moved[0]) - value(*moved[1])) / 2e-5
            close(np.sum(gradient * direction), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.large
def test_compiles_and_takes_sizes_known_only_in_the_graph():
    logits, image = example()
    expected = mean_field(logits, image, iterations=2)
    specs = [tf.TensorSpec([None, None, None, n]) for n in (4, 3)]
    for tile in (None, 8):
        infer = functools.partial(mean_field, iterations=2, tile=tile)
        close(
            tf.function(infer, autograph=False, jit_compile=True)(logits, image),
            expected,
            atol=1e-5,
        )
        close(
            tf.function(infer, autograph=False, input_signature=specs)(logits, image),
            expected,
            atol=1e-5,
        )


def test_refuses_maps_of_different_sizes():
    logits, image = example()
    with pytest.raises(ValueError, match=r"\(2, 5, 7, 4\).*\(2, 5, 6, 3\)"):
        mean_field(logits, image[:, :, :6])


# === The layer ===


def layer():
    return MeanField(
        bilateral_weight=5,
        bilateral_xy=4,
        bilateral_rgb=20,
        gaussian_weight=2,
        gaussian_xy=1.5,
        iterations=3,
        tile=16,
        name="crf",
    )


def test_layer_keeps_its_settings_and_reloads(tmp_path):
    copy = MeanField.from_config(layer().get_config())
    assert copy.get_config() == layer().get_config()
    assert vars(copy).keys() == vars(layer()).keys()
    inputs = [keras.Input((None, None, n)) for n in (4, 3)]
    model = keras.Model(inputs, layer()(inputs))
    assert model.output.shape == (None, None, None, 4)
    model.save(tmp_path / "crf.keras")
    x = example()
    expected = mean_field(*x, 5, 4, 20, 2, 1.5, 3)
    close(keras.models.load_model(tmp_path / "crf.keras")(list(x)), expected, atol=1e-5)
    assert not model.variables


def test_layer_computes_in_float32_under_mixed_precision():
    logits, image = example()
    expected = layer()([logits, image])
    keras.config.set_dtype_policy("mixed_float16")
    output = layer()([tf.cast(logits, tf.float16), image])
    assert output.dtype == tf.float32
    close(output, expected, atol=2e-2)  # the logits had three digits
    close(layer()([logits, image]), expected, atol=1e-6)
