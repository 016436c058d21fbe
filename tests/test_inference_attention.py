"""What belongs to a chosen pixel: maps of CPNet and SANet, and which pixels are chosen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone

from wsss_tf import ops
from wsss_tf.inference.attention import (
    attention_drawer,
    attention_pictures,
    chosen_pixels,
    find_attention,
)
from wsss_tf.models.cpnet import cpnet_network
from wsss_tf.models.fcn import fcn_network
from wsss_tf.models.sanet import sanet_network


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)


def test_prior_of_a_pixel(image):
    net = cpnet_network(3, crop_size=(32, 48), backbone=tiny_backbone)
    attention = find_attention(net)
    crop, maps, pixel = attention(image, 30, 65)
    # The crop is shifted back inside: rows 8 to 39, columns 22 to 69.
    np.testing.assert_array_equal(crop, image[8:, 22:])
    assert pixel == (22, 43)
    logits = net(ops.normalize_image(crop[None]), training=False)["prior"]
    expected = tf.sigmoid(logits[0, 2 * 6 + 5]).numpy().reshape(1, 4, 6, 1)
    expected = ops.resize_bilinear(expected, (32, 48), align_corners=False)[0, :, :, 0]
    assert list(maps) == ["context_prior"]
    np.testing.assert_allclose(maps["context_prior"], expected, atol=1e-5)
    # A picture smaller than the crop lies on black.
    crop, maps, pixel = attention(image[:10, :20], 3, 19)
    assert crop.shape == (32, 48, 3)
    np.testing.assert_array_equal(crop[:10, :20], image[:10, :20])
    assert not crop[10:].any()
    assert pixel == (3, 19)
    assert maps["context_prior"].shape == (32, 48)


def test_attention_of_sanet(image):
    net = sanet_network(3, backbone=tiny_backbone)
    seen, maps, pixel = find_attention(net)(image, 30, 65)
    np.testing.assert_array_equal(seen, image)
    assert pixel == (30, 65)
    assert list(maps) == ["sa1", "sa2", "sa3", "sa4"]
    features = keras.Model(net.input, net.get_layer("sa1").input)(
        ops.normalize_image(image[None]), training=False
    )
    attn = np.asarray(net.get_layer("sa1").attn(features))[0]
    rows, columns = attn.shape[:2]
    at = attn[30 * rows // 40, 65 * columns // 70]
    distance = np.linalg.norm(attn - at, axis=-1)
    expected = (1 - distance / distance.max())[None, :, :, None]
    expected = ops.resize_bilinear(expected, (40, 70), align_corners=False)[0, :, :, 0]
    np.testing.assert_allclose(maps["sa1"], expected, atol=1e-4)
    for one in maps.values():
        assert one.shape == (40, 70)
        assert 0 <= one.min() <= one.max() <= 1
    # sa4 has its whole map in one window of its pooling: the attention is the same everywhere.
    assert maps["sa1"].min() < 0.2
    assert maps["sa4"].min() == 1


def test_maps_are_of_the_weights_of_the_moment(image):
    net = cpnet_network(3, crop_size=(32, 48), backbone=tiny_backbone)
    attention = find_attention(net)
    _, before, _ = attention(image, 5, 5)
    bias = net.get_layer("context_prior").prior_bn.beta
    bias.assign(bias + 1)
    _, after, _ = attention(image, 5, 5)
    assert (after["context_prior"] > before["context_prior"] + 0.01).all()


def test_networks_without_such_layers():
    assert find_attention(fcn_network(3, backbone=tiny_backbone)) is None


def test_chosen_pixels_are_in_the_midst_of_the_largest_classes():
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :2] = 255
    mask[3:8, 5:20] = 2
    mask[12:19, 21:28] = 1
    assert chosen_pixels(mask, 1, has_background=True)[0][0] == 2
    values, rows, columns = zip(*chosen_pixels(mask, 5, has_background=True))
    assert values == (2, 1)
    assert rows == (5, 15)
    assert columns[0] in range(7, 18)
    assert columns[1] == 24
    assert [value for value, _, _ in chosen_pixels(mask, 5, has_background=False)] == [0, 2, 1]
    assert chosen_pixels(np.zeros_like(mask), 2, has_background=True)[0][0] == 0
    nothing = np.full_like(mask, 255)
    assert chosen_pixels(nothing, 2, has_background=True) == [(None, 10, 15)]


def test_pictures_and_captions(image):
    net = sanet_network(3, backbone=tiny_backbone)
    attention = find_attention(net)
    pictures = attention_pictures(attention, image, 8, 60)
    assert list(pictures) == ["sa1", "sa2", "sa3", "sa4"]
    for picture in pictures.values():
        assert picture.shape == image.shape
        np.testing.assert_array_equal(picture[5:12, 60], [[0, 255, 0]] * 7)
        assert (picture[0] != [0, 255, 0]).any(-1).all()
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:20, :30] = 1
    drawn = attention_drawer(attention, ("ground", "cat", "dog"), has_background=False)(image, mask)
    captions = [f"{name}: {where}" for where in ("ground", "cat") for name in pictures]
    assert [caption for caption, _ in drawn] == captions
