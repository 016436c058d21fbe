"""Every byte is Pillow's."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from test_data_transforms import picture

from wsss_tf.data import pillow_arithmetic
from wsss_tf.files import images

SHARED = pathlib.Path(__file__).parents[2] / "shared"


def resized_by_pillow(image, height, width):
    """The width first: Pillow 13 would choose."""
    result = Image.fromarray(image).resize((width, len(image)), Image.Resampling.BICUBIC)
    return np.array(result.resize((width, height), Image.Resampling.BICUBIC))


_SIZES = [(61, 94), (40, 62), (26, 40), (85, 131), (61, 95), (62, 94), (250, 301), (1, 1), (7, 99)]


@pytest.mark.parametrize("size", _SIZES)
def test_resizing(size):
    noise = np.random.default_rng(0).integers(0, 256, (61, 94, 3)).astype(np.uint8)
    for image in (picture(), noise):
        resized = pillow_arithmetic.resized_bicubic(image, np.int32(size))
        assert resized.dtype == np.uint8
        np.testing.assert_array_equal(resized, resized_by_pillow(image, *size))


def test_resizing_a_photograph():
    path = SHARED / "data" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2011_000003.jpg"
    if not path.is_file():
        pytest.skip("skipped: no shared data")
    photograph = np.array(Image.open(io.BytesIO(path.read_bytes())))
    resized = pillow_arithmetic.resized_bicubic(photograph, np.int32([433, 640]))
    np.testing.assert_array_equal(resized, resized_by_pillow(photograph, 433, 640))
    # What inference and serving do with stock operations is the same but for rounding.
    stock = images.resize_bicubic(photograph, [433, 640]).numpy().astype(int)
    assert np.abs(stock - resized).max() <= 1
    assert (stock != resized).mean() < 0.01


def changed(image, operation, amount):
    return pillow_arithmetic.changed_colors(image, np.int32([operation]), np.float32([amount]))


@pytest.mark.parametrize("factor", [0.0, 0.7, 0.93, 1.0, 1.21, 1.3, 2.0])
@pytest.mark.parametrize(
    ("operation", "enhance"),
    [
        (pillow_arithmetic.BRIGHTNESS, ImageEnhance.Brightness),
        (pillow_arithmetic.CONTRAST, ImageEnhance.Contrast),
        (pillow_arithmetic.SATURATION, ImageEnhance.Color),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_enhancements(operation, enhance, factor):
    image = picture()
    expected = np.array(enhance(Image.fromarray(image)).enhance(factor))
    before = image.copy()
    np.testing.assert_array_equal(changed(image, operation, factor), expected)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shift", [-0.5, -0.1, -0.037, 0.0, 0.06, 0.1, 0.5])
def test_hue_is_that_of_torchvision_on_pillow_images(shift):
    # Of all colours one in 31, on 541201 pixels: chunks do not divide them.
    colors = np.arange(0, 1 << 24, 31)
    image = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1).astype(np.uint8)[None]
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = (np.array(hue).astype(int) + int(shift * 255)) % 256
    turned = Image.fromarray(turned.astype(np.uint8))
    expected = np.array(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))
    np.testing.assert_array_equal(changed(image, pillow_arithmetic.HUE, shift), expected)


def test_operations_follow_each_other():
    image = picture()
    operations, amounts = np.int32([2, 3, 1, 0]), np.float32([1.2, 0.05, 0.8, 1.1])
    expected = image
    for operation, amount in zip(operations, amounts):
        expected = changed(expected, operation, amount)
    result = pillow_arithmetic.changed_colors(image, operations, amounts)
    np.testing.assert_array_equal(result, expected)
