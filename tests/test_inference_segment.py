"""Predictions of pictures of any size: scales, flips, windows, fixed inputs, and the files."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from wsss_tf import ops
from wsss_tf.data.source import Source
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.inference.segment import RESIZE_METHODS, multi_scale_predictor
from wsss_tf.inference.write_masks import predict_source

K = 4


def pointwise_network():
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 1, activation="tanh", name="a")(image)
    return keras.Model(image, {"logits": layers.Conv2D(K, 1, name="b")(x)})


def convolutional_network(size=None):
    """Sees its neighbours and its borders; with a size, accepts no other."""
    keras.utils.set_random_seed(2)
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(16, 5, padding="same", activation="tanh", name="a")(image)
    return keras.Model(image, {"logits": layers.Conv2D(K, 3, padding="same", name="b")(x)})


def pictures(height, width, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def plain(net, batch):
    return tf.nn.softmax(net(ops.normalize_image(batch), training=False)["logits"]).numpy()


@pytest.mark.parametrize("size", [(7, 5), (21, 34)])
def test_one_scale_is_the_network_itself(size):
    net, batch = convolutional_network(), pictures(*size)
    for method in RESIZE_METHODS:
        predict = multi_scale_predictor(net, image_resize=method)
        np.testing.assert_allclose(predict(batch), plain(net, batch), atol=1e-6)
    warped = multi_scale_predictor(net, input_size=size)
    np.testing.assert_allclose(warped(batch), plain(net, batch), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((21, 34), {"scales": (0.5, 1.75), "image_resize": "opencv_cubic", "align_corners": True}),
        ((19, 9), {"scales": (0.5, 1.75), "image_resize": "pillow_bicubic"}),
        # Three windows either way, none of them shifted.
        ((20, 29), {"window_size": (8, 11), "window_stride": (6, 9)}),
        ((19, 9), {"scales": (1.5,), "input_size": (16, 24)}),
    ],
    ids=["opencv", "pillow", "windows", "input_size"],
)
def test_mirrored_picture_gives_the_mirrored_prediction(size, options):
    net, batch = convolutional_network(), pictures(*size)
    flipped = multi_scale_predictor(net, flip=True, **options)
    result = flipped(batch).numpy()
    assert result.shape == (2, *size, K)
    np.testing.assert_allclose(result.sum(-1), 1, atol=1e-5)
    # Rounding to 8 bits may fall to the other side.
    atol = 2e-2 if options.get("image_resize") == "pillow_bicubic" else 1e-5
    np.testing.assert_allclose(flipped(batch[:, :, ::-1])[:, :, ::-1], result, atol=atol)
    alone = multi_scale_predictor(net, **options)
    assert np.abs(alone(batch[:, :, ::-1])[:, :, ::-1] - result).max() > 1e-2


def test_scales_and_flips_are_averaged_before_the_softmax():
    net, batch = convolutional_network(), pictures(18, 26)
    predict = multi_scale_predictor(
        net, (0.5, 1.5), True, image_resize="opencv_cubic", align_corners=True
    )
    total = 0
    for size in ((9, 13), (27, 39)):
        for step in (1, -1):
            scaled = images.resize_cubic(ops.normalize_image(batch), size)
            logits = net(scaled[:, :, ::step], training=False)["logits"][:, :, ::step]
            total += ops.resize_bilinear(logits, (18, 26), align_corners=True)
    np.testing.assert_allclose(predict(batch), tf.nn.softmax(total / 4), atol=1e-5)
    other = multi_scale_predictor(net, (0.5, 1.5), True, image_resize="opencv_cubic")
    assert np.abs(other(batch) - predict(batch)).max() > 1e-3


@pytest.mark.parametrize(
    ("window", "stride"),
    [(5, None), ((8, 6), 3), ((30, 40), None)],
    ids=["square", "oblong", "larger"],
)
def test_windows_of_a_pointwise_network_are_the_whole(window, stride):
    net, batch = pointwise_network(), pictures(23, 17)
    whole = multi_scale_predictor(net, scales=(1.0, 1.25), flip=True)
    tiled = multi_scale_predictor(
        net, scales=(1.0, 1.25), flip=True, window_size=window, window_stride=stride
    )
    np.testing.assert_allclose(tiled(batch), whole(batch), atol=1e-5)


def test_windows_are_where_they_should_be():
    net, batch = convolutional_network(size=6), pictures(10, 9)
    image = ops.normalize_image(batch).numpy()
    total, visits = np.zeros((2, 10, 9, K)), np.zeros((10, 9, 1))
    for top in (0, 4):  # stride 4; the last is where the image ends
        for left in (0, 3):
            part = image[:, top : top + 6, left : left + 6]
            total[:, top : top + 6, left : left + 6] += net(part, training=False)["logits"]
            visits[top : top + 6, left : left + 6] += 1
    predict = multi_scale_predictor(net, window_size=6)
    np.testing.assert_allclose(predict(batch), tf.nn.softmax(total / visits), atol=1e-5)


def test_small_pictures_lie_on_mean_colour():
    net, batch = convolutional_network(size=12), pictures(7, 5)
    canvas = np.pad(ops.normalize_image(batch), [[0, 0], [0, 5], [0, 7], [0, 0]])
    expected = tf.nn.softmax(net(canvas, training=False)["logits"])[:, :7, :5]
    predict = multi_scale_predictor(net, window_size=12)
    np.testing.assert_allclose(predict(batch), expected, atol=1e-6)


def test_fixed_input_size_warps():
    net, batch = convolutional_network(size=15), pictures(8, 22)
    options = {"image_resize": "bilinear_align_corners", "align_corners": True}
    predict = multi_scale_predictor(net, input_size=15, **options)
    warped = ops.resize_bilinear(batch, (15, 15), align_corners=True)
    logits = net(ops.normalize_image(warped), training=False)["logits"]
    expected = tf.nn.softmax(ops.resize_bilinear(logits, (8, 22), align_corners=True))
    np.testing.assert_allclose(predict(batch), expected, atol=1e-5)


def test_own_preprocessing():
    net, batch = pointwise_network(), pictures(4, 6)
    predict = multi_scale_predictor(net, preprocess=lambda x: tf.cast(x, tf.float32) / 1000)
    np.testing.assert_allclose(
        predict(batch), tf.nn.softmax(net(np.float32(batch) / 1000)["logits"]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": ()}, r"scales = \(\)"),
        ({"scales": (1.0, -0.5)}, r"-0\.5"),
        ({"image_resize": "cubic"}, "'cubic'.*opencv_cubic"),
        ({"window_size": 0}, "window_size = 0"),
        ({"window_size": (5, 5, 5)}, "window_size"),
        ({"window_size": 4, "window_stride": 5}, "gaps"),
        ({"input_size": 2.5}, r"input_size = 2\.5"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        multi_scale_predictor(pointwise_network(), **options)


def test_network_without_logits_is_refused():
    image = keras.Input((None, None, 3))
    with pytest.raises(UserError, match=r"'logits', only \['cam'\]"):
        multi_scale_predictor(keras.Model(image, {"cam": image + 0}))


# === Files ===


def source_of(shapes):
    drawn = [pictures(*shape, count=1, seed=i)[0] for i, shape in enumerate(shapes)]

    def read(index):
        image = tf.switch_case(
            tf.cast(index, tf.int32), [lambda p=p: tf.constant(p) for p in drawn]
        )
        image.set_shape([None, None, 3])
        return {"image": image}

    ids = tuple(f"sub/{i}" for i in range(len(shapes)))
    labels = np.zeros((len(shapes), K), np.float32)
    return Source("test", "all", tuple("abcd"), ids, labels, read, has_masks=False), drawn


def test_predict_source_writes_masks_once(tmp_path):
    net = pointwise_network()
    source, drawn = source_of([(9, 12), (9, 12), (11, 7)])
    predict = multi_scale_predictor(net)
    assert predict_source(predict, source, tmp_path) == (3, 0)
    for image_id, image in zip(source.ids, drawn):
        mask = images.load_mask(tmp_path / f"predictions/{image_id}.png")
        np.testing.assert_array_equal(mask, plain(net, image[None])[0].argmax(-1))
        assert len(np.unique(mask)) > 1
    (tmp_path / "predictions/sub/1.png").unlink()
    assert predict_source(predict, source, tmp_path) == (1, 2)
    assert predict_source(predict, source, tmp_path, overwrite=True) == (3, 0)


def test_postprocess_sees_picture_and_probabilities(tmp_path):
    source, drawn = source_of([(9, 12), (11, 7)])
    seen = []

    def postprocess(probabilities, image):
        seen.append(image)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
        return np.roll(probabilities, 1, axis=-1)

    predict = multi_scale_predictor(pointwise_network())
    predict_source(predict, source, tmp_path / "with", postprocess)
    predict_source(predict, source, tmp_path / "without")
    for image_id, image, passed in zip(source.ids, drawn, seen):
        np.testing.assert_array_equal(passed, image)
        masks = [images.load_mask(tmp_path / f"{x}/predictions/{image_id}.png")
                 for x in ("with", "without")]  # fmt: skip
        np.testing.assert_array_equal(masks[0], (masks[1] + 1) % K)


@dataclasses.dataclass
class _Record:
    """Stands for a predictor; remembers the batches."""

    shapes: list

    def __call__(self, batch):
        self.shapes.append(batch.shape[:3])
        return tf.one_hot(batch[..., 0] % K, K)


def test_batches_are_bounded_in_number_and_pixels(tmp_path, monkeypatch):
    source, _ = source_of([(9, 12)] * 5 + [(30, 30)] * 2)
    predict = _Record([])
    predict_source(predict, source, tmp_path, batch_size=4)
    assert predict.shapes == [(4, 9, 12), (1, 9, 12), (2, 30, 30)]
    monkeypatch.setattr("wsss_tf.inference.picture_batches._MAX_PIXELS", 300)
    predict = _Record([])
    predict_source(predict, source, tmp_path, batch_size=4, overwrite=True)
    assert predict.shapes == [(2, 9, 12), (2, 9, 12), (1, 9, 12), (1, 30, 30), (1, 30, 30)]
