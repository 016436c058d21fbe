"""Validation during training, of networks that predict masks."""

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.data.source import Source
from wsss_tf.files import images
from wsss_tf.runs.validation import make_mask_validation

MASKS = [np.uint8([[0, 1, 2], [0, 1, 255]]), np.uint8([[2, 2], [1, 0]]), np.uint8([[0, 0, 0, 0]])]


def source(has_masks=True, masks=MASKS):
    """Pictures whose red channel is the mask."""

    def read(index):
        mask = tf.switch_case(tf.cast(index, tf.int32), [lambda m=m: tf.constant(m) for m in masks])
        mask.set_shape([None, None])
        example = {"image": tf.stack([mask] * 3, -1)}
        return {**example, "mask": mask} if has_masks else example

    labels = np.zeros((3, 3), np.float32)
    return Source("test", "val", ("road", "sky", "tree"), tuple("abc"), labels, read, has_masks)


def predict_red(batch):
    """One mistake: class 2 is taken for 1 in pictures two pixels wide; ignored pixels are 0."""
    prediction = np.where(batch[..., 0] == 255, 0, batch[..., 0])
    if batch.shape[2] == 2:
        prediction = np.minimum(prediction, 1)
    return tf.one_hot(prediction, 3)


def test_scores_are_of_all_pixels_together():
    scores, pictures = make_mask_validation(source(), predict_red, 10)()
    # road: 7 of 7. sky: 3 right, 2 wrong. tree: 1 right, 2 missed.
    assert scores["miou"] == pytest.approx((1 + 3 / 5 + 1 / 3) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(11 / 13)
    [(name, picture)] = pictures.items()
    assert name == "masks"
    # Image, prediction, mask of the first, and 4 pixels to the next; heights are 2, 2, 1 times 3.
    assert picture.shape == (6, 3 + 2 + 4 + 3 * 4, 3)
    np.testing.assert_array_equal(picture[:2, :3, 0], MASKS[0])
    np.testing.assert_array_equal(picture[4:, :3], images.palette()[MASKS[0]])
    np.testing.assert_array_equal(picture[2, :3], images.palette()[[0, 1, 2]])


def test_some_images_spread_over_the_split():
    scores, _ = make_mask_validation(source(), predict_red, 2)()
    assert scores["miou"] == 1  # the first and the last; the mistake is in the second


@pytest.mark.parametrize(
    "case",
    [source(has_masks=False), source(masks=[np.full_like(mask, 255) for mask in MASKS])],
    ids=["no masks", "all ignored"],
)
def test_without_truth_there_are_pictures_only(case):
    scores, pictures = make_mask_validation(case, predict_red, 3)()
    assert scores == {}
    assert pictures["masks"].ndim == 3


def test_attention_of_the_largest_class_of_each_picture():
    def attention(image, row, column):
        assert image[row, column, 0] == {3: 1, 2: 2, 4: 0}[image.shape[1]]
        maps = {"first": np.zeros(image.shape[:2]), "second": np.ones(image.shape[:2])}
        return image, maps, (row, column)

    masks = [np.uint8([[1, 1, 2], [0, 1, 255]]), *MASKS[1:]]
    _, pictures = make_mask_validation(source(masks=masks), predict_red, 3, attention)()
    assert list(pictures) == ["masks", "attention"]
    # Two maps below each other; heights are 2, 2, 1.
    assert pictures["attention"].shape == (4, 3 + 2 + 4 + 3 * 4, 3)
    _, pictures = make_mask_validation(source(False, masks), predict_red, 1, attention)()
    assert "attention" in pictures
