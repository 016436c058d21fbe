"""Augmentation for masks: scales, the two kinds of nearest, OpenCV's colours, both chains."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.data import segmentation_transforms as transforms
from wsss_tf.files import images


def example(height=31, width=44, seed=0):
    """Smooth colours, and a mask that can be read off the red channel."""
    rng = np.random.default_rng(seed)
    mask = (np.indices((height, width)).sum(0) // 9 % 5).astype(np.uint8)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image[..., 0] = mask * 50
    return {"image": image, "mask": mask}


def in_graph(transform, element):
    """Run as tf.data does: without static sizes."""
    element = {key: tf.convert_to_tensor(value) for key, value in element.items()}
    shapes = {"image": [None, None, 3], "mask": [None, None]}
    signature = {
        key: tf.TensorSpec(shapes.get(key, value.shape), value.dtype)
        for key, value in element.items()
    }
    run = tf.function(
        transform, autograph=False, input_signature=[signature, tf.TensorSpec([2], tf.int32)]
    )
    return lambda seed: {k: v.numpy() for k, v in run(element, tf.constant(seed)).items()}


# === Scale ===


def test_scales_are_continuous_or_of_a_list():
    element = example(20, 33)
    run = in_graph(transforms.random_scale(0.5, 1.5), element)
    heights = [run([0, i])["image"].shape[0] for i in range(60)]
    assert set(heights) <= set(range(10, 31))
    assert len(set(heights)) > 12
    assert min(heights) < 13 < 27 < max(heights)
    run = in_graph(transforms.random_scale(0.5, 2.0, scales=(0.5, 1.75)), element)
    sizes = {run([1, i])["image"].shape[:2] for i in range(20)}
    assert sizes == {(10, 16), (35, 58)}  # half to even
    run = in_graph(transforms.random_scale(1.0, 1.0, short_side=40), element)
    assert run([0, 0])["mask"].shape == (40, 66)


@pytest.mark.parametrize("opencv", [False, True])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_image_and_mask_are_resized_as_said(opencv, scale):
    element = example()
    run = in_graph(transforms.random_scale(scale, scale, opencv=opencv), element)
    result = run([0, 0])
    height, width = round(31 * scale), round(44 * scale)
    if opencv:
        image = images.resize_cubic(element["image"], (height, width)).numpy()
        rows, columns = (np.arange(n) * old // n for n, old in ((height, 31), (width, 44)))
    else:
        image = np.round(
            ops.resize_bilinear(element["image"][None], (height, width), align_corners=False)[0]
        )
        rows, columns = (
            np.floor((np.arange(n) + 0.5) * old / n).astype(int)
            for n, old in ((height, 31), (width, 44))
        )
    assert result["image"].dtype == result["mask"].dtype == np.uint8
    np.testing.assert_allclose(result["image"].astype(int), image, atol=1)
    np.testing.assert_array_equal(result["mask"], element["mask"][rows][:, columns])
    if scale == 1:
        np.testing.assert_array_equal(result["image"], element["image"])


# === Colour ===


def test_hsv_is_that_of_colorsys_on_opencvs_scale():
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    image[:5] = image[:5, :, :1]  # grey
    hsv = transforms.rgb_to_hsv(image).numpy()
    expected = np.array([[colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in row] for row in image])
    expected *= [180, 255, 255]
    difference = np.abs(hsv - expected)
    difference[..., 0] = np.minimum(difference[..., 0], 180 - difference[..., 0])
    # Rounded, and off by up to 5 * 255 / 2 / 4096 for the quotients' 12 bits.
    assert difference.max() <= 0.5 + 0.16
    assert hsv.min() >= 0
    assert hsv[..., 0].max() <= 179
    assert not hsv[:5, :, :2].any()


def test_hsv_to_rgb_is_that_of_colorsys():
    rng = np.random.default_rng(2)
    hsv = np.stack([rng.integers(0, n, (30, 40)) for n in (180, 256, 256)], -1)
    expected = [[colorsys.hsv_to_rgb(*(pixel / [180, 255, 255])) for pixel in row] for row in hsv]
    rgb = transforms.hsv_to_rgb(hsv).numpy()
    assert np.abs(rgb - 255 * np.array(expected)).max() <= 0.501


def test_hsv_shift_moves_within_its_range_and_wraps():
    grey = np.full((2, 3, 3), 100, np.uint8)
    run = in_graph(transforms.hsv_shift(10), {"image": grey})
    values = {int(run([3, i])["image"].max()) for i in range(150)}
    assert values == set(range(90, 111))
    bright = np.full((1, 1, 3), 250, np.uint8)
    run = in_graph(transforms.hsv_shift(10), {"image": bright})
    assert max(int(run([3, i])["image"].max()) for i in range(80)) == 255  # clipped
    red = np.zeros((1, 1, 3), np.uint8) + np.uint8([200, 60, 60])
    run = in_graph(transforms.hsv_shift(10), {"image": red})
    pixels = np.array([run([5, i])["image"][0, 0] for i in range(80)]).astype(int)
    assert (pixels[:, 1] > pixels[:, 2]).any()  # hue to orange
    assert (pixels[:, 1] < pixels[:, 2]).any()  # and, past zero, to purple
    assert (pixels.argmax(1) == 0).all()


# === The whole ===


@pytest.mark.parametrize("name", ["deeplab", "supervised"])
def test_mask_follows_the_image(name):
    if name == "deeplab":
        augment = transforms.deeplab_augmentation(48, 0.6, 1.5, shift=0)
    else:
        augment = transforms.supervised_augmentation(48, 0.6, 1.5)
    element = {**example(), "id": "a", "labels": np.float32([0, 1])}
    run = in_graph(augment, element)
    flips = 0
    for i in range(8):
        result = run([2, i])
        assert result["image"].shape == (48, 48, 3)
        assert result["mask"].shape == (48, 48)
        outside = result["mask"] == 255
        np.testing.assert_array_equal(outside, ~result["image"].any(-1))  # mean colour
        red = np.round((result["image"][..., 0] * 0.229 + 0.485) * 255) / 50
        agree = np.abs(red - result["mask"])[~outside] < 0.5
        assert agree.mean() > 0.8
        flips += np.polyfit(*np.nonzero(~outside & (result["mask"] == 2)), 1)[0] > 0
        assert result["id"] == b"a"
        np.testing.assert_array_equal(result["labels"], [0, 1])
    assert 0 < flips < 8
    first, again = run([4, 4]), run([4, 4])
    np.testing.assert_array_equal(first["image"], again["image"])


def test_jitter_and_shift_change_colours_only():
    element = example(40, 40)
    plain = transforms.deeplab_augmentation(40, 1.0, 1.0, shift=0, flip=False)
    shifted = transforms.deeplab_augmentation(40, 1.0, 1.0, shift=10, flip=False)
    jittered = transforms.supervised_augmentation(40, 1.0, 1.0, flip=False, jitter=0.5)
    results = [in_graph(t, element)([1, 1]) for t in (plain, shifted, jittered)]
    np.testing.assert_allclose(
        results[0]["image"], ops.normalize_image(element["image"]), atol=1e-6
    )
    for result in results:
        np.testing.assert_array_equal(result["mask"], element["mask"])
    for result in results[1:]:
        assert np.abs(result["image"] - results[0]["image"]).max() > 0.05


def test_images_without_masks_pass():
    result = in_graph(transforms.supervised_augmentation(16), {"image": example()["image"]})([0, 0])
    assert set(result) == {"image"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.deeplab_augmentation(min_scale=0), "scales from 0 to 1.5"),
        (lambda: transforms.deeplab_augmentation(shift=91), "shift = 91"),
        (lambda: transforms.deeplab_augmentation(0), "crop_size = 0"),
        (lambda: transforms.supervised_augmentation(8, scales=()), r"scales = \(\)"),
        (lambda: transforms.supervised_augmentation(8, scales=(1, -2)), "-2"),
        (lambda: transforms.supervised_augmentation(8, short_side=0), "short_side = 0"),
        (lambda: transforms.supervised_augmentation(8, jitter=2), "jitter = 2"),
    ],
    ids=["scale", "shift", "crop", "no_scales", "scales", "short_side", "jitter"],
)
def test_wrong_arguments_are_found_when_the_pipeline_is_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()
