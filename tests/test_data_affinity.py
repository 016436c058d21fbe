"""AffinityNet's data: the official labels, one cut for picture and maps, and files that are bad."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wsss_tf import ops
from wsss_tf.data import batches
from wsss_tf.data.affinity import (
    affinity_augmentation,
    confident_labels,
    decode_probabilities,
    with_crf_maps,
)
from wsss_tf.data.source import file_source, reduced_source
from wsss_tf.errors import UserError
from wsss_tf.files import images, png, run_folder

SIZES = [(30, 44), (21, 18), (40, 33)]
CLASS_IDS = [[0, 2], [0], [0, 1, 3]]


def test_labels_are_the_official_ones(golden):
    data = golden("psa_labels")
    np.testing.assert_array_equal(confident_labels(data["la"], data["ha"]), data["label"])


def test_labels_by_hand():
    def block(*values):
        return np.broadcast_to(np.float32(values), (8, 8, len(values)))

    cases = [  # low, high, label
        ((0.2, 0.8), (0.1, 0.9), 1),  # a class for both
        ((0.6, 0.4), (0.3, 0.7), 255),  # only the high power leaves a class
        ((0.8, 0.2), (0.6, 0.4), 0),
        ((0.4, 0.6), (0.6, 0.4), 0),  # the order of the rules
        ((0.0, 0.0), (0.0, 0.0), 255),  # outside of the picture
        ((0.0, 2e-5), (0.0, 0.0), 0),
    ]
    low = np.concatenate([block(*low) for low, _, _ in cases], axis=1)
    high = np.concatenate([block(*high) for _, high, _ in cases], axis=1)
    label = confident_labels(low, high)
    assert label.dtype == tf.uint8
    assert label.numpy().tolist() == [[expected for _, _, expected in cases]]


def probabilities(index, power):
    rng = np.random.default_rng(index)
    probs = rng.random((*SIZES[index], len(CLASS_IDS[index]))) ** (1 if power == "crf_low" else 2)
    return probs / probs.sum(-1, keepdims=True)


def picture(index):
    rng = np.random.default_rng(100 + index)
    return rng.integers(0, 256, (*SIZES[index], 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A run folder with CRF maps, and the pictures beside it."""
    for index, image_id in enumerate("abc"):
        Image.fromarray(picture(index)).save(tmp_path / f"{image_id}.png")
        for name in ("crf_low", "crf_high"):
            path = run_folder.RunFolder(tmp_path / "run").crf(name, image_id)
            png.save_probabilities(path, CLASS_IDS[index], probabilities(index, name))
    return tmp_path


def base_source(folder):
    labels = np.zeros((3, 3))
    paths = [folder / f"{i}.png" for i in "abc"]
    names = ("background", "cat", "cow", "dog")
    return file_source("own", "train", names, tuple("abc"), labels, paths)


def test_source_reads_the_maps_beside_the_picture(folder):
    source = with_crf_maps(base_source(folder), folder / "run")
    for index in range(3):
        example = source.load(tf.constant(index))
        np.testing.assert_array_equal(example["image"], picture(index))
        for name in ("crf_low", "crf_high"):
            np.testing.assert_allclose(example[name], probabilities(index, name), atol=1e-5)
    selected = source.select([2, 0])
    assert selected.load(tf.constant(0))["crf_low"].shape == (40, 33, 3)


def test_augmentation_cuts_and_turns_picture_and_maps_as_one(folder):
    """With labels that can be read off the picture, they fit it in each of its places."""
    low = np.zeros((32, 48, 3), np.float32)
    low[:, :, 0] = 0.6
    low[:, :, 1] = 0.4
    low[8:24, 16:40, 1] = 0.9  # a class
    low[8:16, 0:16, 2] = 0.8  # and another
    high = low.copy()
    high[24:, :, 0] = 0.2  # in doubt
    truth = np.where(low.argmax(-1) > 0, low.argmax(-1), np.where(high[..., 0] > 0.5, 0, 255))
    image = np.stack([truth, truth, 255 - truth], -1).astype(np.uint8)
    augment = tf.function(affinity_augmentation(40, jitter=0, hue=0), autograph=False)
    example = {"image": tf.constant(image), "crf_low": low, "crf_high": high}
    places, turned = set(), set()
    for number in range(40):
        out = augment(example, tf.constant([1, number]))
        assert "crf_low" not in out
        assert out["image"].shape == (40, 40, 3)
        assert out["affinity_labels"].shape == (5, 5)
        assert out["affinity_labels"].dtype == tf.uint8
        std, mean = np.float32(ops.IMAGENET_STD), np.float32(ops.IMAGENET_MEAN)
        pixels = np.rint((out["image"].numpy() * std + mean) * 255).astype(int)
        inside = pixels[..., 0] + pixels[..., 2] == 255
        assert not pixels[~inside].any()  # the canvas is black
        places.add((inside.any(1).argmax(), inside.any(0).argmax()))
        # Where a whole block shows one value, the label is that value.
        blocks = np.where(inside, pixels[..., 0], 254).reshape(5, 8, 5, 8).transpose(0, 2, 1, 3)
        blocks = blocks.reshape(5, 5, 64)
        whole = (blocks == blocks[..., :1]).all(-1)
        expected = np.where(blocks[..., 0] == 254, 255, blocks[..., 0])
        np.testing.assert_array_equal(out["affinity_labels"].numpy()[whole], expected[whole])
        columns = np.argwhere(pixels[..., 0] == 2)[:, 1]
        if len(columns) and 1 in pixels[..., 0]:
            turned.add(columns.mean() > np.argwhere(pixels[..., 0] == 1)[:, 1].mean())
    assert len(places) > 5
    assert turned == {True, False}


def test_batches_of_images_with_different_classes(folder):
    source = with_crf_maps(base_source(folder), folder / "run")
    augment = affinity_augmentation(32, jitter=0, hue=0)
    first, _, third = batches.training_batches(source, augment, 2, seed=3).take(3)
    assert first["image"].shape == (2, 32, 32, 3)
    assert first["affinity_labels"].shape == (2, 4, 4)
    [resumed] = batches.training_batches(source, augment, 2, seed=3, first_step=2).take(1)
    for key, value in third.items():
        np.testing.assert_array_equal(resumed[key], value)


def test_colours_change_and_labels_do_not(folder):
    source = with_crf_maps(base_source(folder), folder / "run")
    example = source.load(tf.constant(0))
    plain = affinity_augmentation(32, jitter=0, hue=0, flip=False)
    strong = affinity_augmentation(32, jitter=0.5, hue=0.2, flip=False)
    seed = tf.constant([0, 1])
    assert np.abs(strong(example, seed)["image"] - plain(example, seed)["image"]).max() > 0.3


def test_settings_that_cannot_be():
    with pytest.raises(
        ValueError, match="crop_size = 100; it must be a multiple of the labels' stride, 8"
    ):
        affinity_augmentation(100)


def test_maps_that_are_missing_or_do_not_fit(folder):
    source, run = base_source(folder), folder / "run"
    with pytest.raises(UserError, match="cam_run is not set"):
        with_crf_maps(source)
    png.save_probabilities(run / "crf_high/b.png", [0], probabilities(1, "crf_high")[:20])
    with pytest.raises(UserError, match=r"crf_low/b\.png and .* not of the same CAMs"):
        with_crf_maps(source, run)
    png.save_probabilities(run / "crf_low/b.png", [0], probabilities(1, "crf_low")[:20])
    with pytest.raises(UserError, match=r"b\.png: its maps are 20 x 18, the image 'b' is 21 x 18"):
        with_crf_maps(source, run)
    images.save_mask(run / "crf_low/b.png", np.zeros((21, 18), np.uint8))
    with pytest.raises(UserError, match="holds no probability maps"):
        with_crf_maps(source, run)
    (run / "crf_low/b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 6 .*wsss_tf\.refine --run_dir=.*run --split=train"):
        with_crf_maps(source, run)


def test_drawn_pictures_are_checked_by_the_first(folder):
    source = dataclasses.replace(base_source(folder), paths=None)
    with_crf_maps(source, folder / "run")
    Image.fromarray(picture(0)[:-1]).save(folder / "a.png")
    with pytest.raises(UserError, match=r"30 x 44, the image 'a' is 29 x 44"):
        with_crf_maps(source, folder / "run")


def test_turned_jpeg_has_the_size_that_it_is_shown_in(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0).transpose(1, 0, 2)).save(folder / "a.jpg", exif=exif)
    paths = [folder / "a.jpg", folder / "b.png", folder / "c.png"]
    source = base_source(folder)
    source = file_source("own", "train", source.class_names, source.ids, source.labels, paths)
    example = with_crf_maps(source, folder / "run").load(tf.constant(0))
    assert example["image"].shape[:2] == example["crf_low"].shape[:2] == (30, 44)
    # Maps are of the size that a picture is read at.
    large = picture(0).transpose(1, 0, 2).repeat(2, 0).repeat(2, 1)
    Image.fromarray(large).save(folder / "a.jpg", exif=exif)
    with pytest.raises(UserError, match="its maps are 30 x 44, the image 'a' is 60 x 88"):
        with_crf_maps(source.select([0]), folder / "run")
    source = reduced_source(source.select([0]), 44)
    example = with_crf_maps(source, folder / "run").load(tf.constant(0))
    assert example["image"].shape[:2] == example["crf_low"].shape[:2] == (30, 44)


def test_decoding_refuses_maps_of_another_size(folder):
    contents = (folder / "run/crf_low/a.png").read_bytes()
    assert decode_probabilities(contents, [30, 44]).shape == (30, 44, 2)
    for size in ([44, 30], [29, 44], [60, 22]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="map size"):
            decode_probabilities(contents, size)
