"""Pictures read with Pillow have the very pixels that a graph decodes."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_images import PICTURES, SHARED, decode_image, encode, exif, picture, png

from wsss_tf.data.source import file_source, reduced_source
from wsss_tf.errors import UserError
from wsss_tf.files import images, pictures
from wsss_tf.files.pictures import exif_orientation, limit_side, load_picture

CMYK = encode(Image.fromarray(picture(4)).convert("CMYK"), "JPEG", quality=95)
GIF = encode(Image.fromarray(picture()).quantize(17), "GIF")


def by_pillow(monkeypatch):
    """Have it fail where Pillow alone does not do."""
    monkeypatch.setattr(pictures, "_by_tensorflow", None)


def check(folder, contents):
    (folder / "picture").write_bytes(contents)
    found = load_picture(folder / "picture")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, decode_image(contents))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_kind(name, tmp_path, monkeypatch):
    by_pillow(monkeypatch)
    check(tmp_path, PICTURES[name])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_in_colour(channels, tmp_path, monkeypatch):
    by_pillow(monkeypatch)
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, channels))
    check(tmp_path, png(values, 16, {2: 4, 3: 2, 4: 6}[channels]))


@pytest.mark.parametrize("bit_depth", [1, 2, 4])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_few_bits(bit_depth, colour_type, tmp_path, monkeypatch):
    by_pillow(monkeypatch)
    values = np.random.default_rng(0).integers(0, 2**bit_depth, (5, 11))
    colours = [(b"PLTE", images.palette()[: 2**bit_depth].tobytes())] if colour_type else []
    check(tmp_path, png(values, bit_depth, colour_type, colours))


def test_what_pillow_decodes_in_another_way(tmp_path):
    grey = png(np.random.default_rng(0).integers(0, 65536, (5, 7)), 16, 0)
    for contents in (CMYK, GIF, grey):
        check(tmp_path, contents)


@pytest.mark.parametrize("big_endian", [False, True], ids=["little_endian", "big_endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright(orientation, big_endian, tmp_path, monkeypatch):
    by_pillow(monkeypatch)
    data = exif(orientation, big_endian, before=2)
    contents = encode(Image.fromarray(picture()), "JPEG", exif=data)
    assert exif_orientation(contents) == orientation
    check(tmp_path, contents)


@pytest.mark.parametrize(
    ("data", "before", "orientation"),
    [
        (exif(6, True), 40_000, 6),
        (exif(6, True), 60_000, 6),  # begins in the first 64 KiB
        (exif(6, True, before=500)[:6000], 60_000, 1),  # and its entry does not
        (exif(6, True)[:16], 0, 1),
        (exif(9, True), 0, 1),
        (exif(0, False), 0, 1),
        (exif(6, False)[:10] + b"\xff" * 40, 0, 1),
        (b"Exif\0\0", 0, 1),
    ],
    ids=["behind", "far", "too_far", "cut", "nine", "zero", "offset_outside", "empty"],
)
def test_exif_elsewhere_and_damaged(data, before, orientation, tmp_path):
    plain = encode(Image.fromarray(picture()), "JPEG")
    segments = b"\xff\xe2" + struct.pack(">H", before + 2) + b"x" * before if before else b""
    segments += b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    contents = plain[:2] + segments + plain[2:]
    assert exif_orientation(contents) == orientation
    check(tmp_path, contents)


def test_orientation_of_a_png_is_not_read(tmp_path, monkeypatch):
    by_pillow(monkeypatch)
    with_exif = Image.Exif()
    with_exif[pictures.ORIENTATION_TAG] = 6
    contents = encode(Image.fromarray(picture()), "PNG", exif=with_exif)
    assert exif_orientation(contents) == 1
    check(tmp_path, contents)


@pytest.mark.parametrize("contents", [b"", b"<html>404</html>" * 10, PICTURES["rgb_jpeg"][:300]])
def test_what_is_no_picture_is_named(contents, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(contents)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read as a picture: "):
        load_picture(tmp_path / "broken.jpg")
    with pytest.raises(UserError, match=r"absent\.jpg: cannot be read: No such file"):
        load_picture(tmp_path / "absent.jpg")


@pytest.mark.parametrize(
    ("form", "name"), [("WEBP", "WebP"), ("TIFF", "TIFF"), ("BMP", "BMP"), ("AVIF", "HEIC or AVIF")]
)
def test_another_format_inside_is_named(form, name, tmp_path):
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"skipped: Pillow does not write {form}")
    (tmp_path / "named.jpg").write_bytes(encode(Image.fromarray(picture()), form))
    with pytest.raises(UserError, match=rf"named\.jpg: .*: it is {name} inside, .*; convert it"):
        load_picture(tmp_path / "named.jpg")
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image((tmp_path / "named.jpg").read_bytes())


def test_photographs(tmp_path, monkeypatch):
    root = SHARED / "data" / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip("skipped: no shared data")
    by_pillow(monkeypatch)
    for path in sorted(root.glob("JPEGImages/*.jpg")):
        np.testing.assert_array_equal(load_picture(path), decode_image(path.read_bytes()))


def test_reduced_pictures_are_those_of_a_graph(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    path.write_bytes(encode(Image.fromarray(noise), "PNG"))
    source = file_source("test", "all", ("background", "x"), ("a",), np.ones((1, 1)), [path])
    source = reduced_source(source, 40)

    @tf.function(autograph=False)
    def reduced(max_side):
        return images.limit_side(source.read(tf.constant(0))["image"], max_side)

    found = load_picture(path, max_side=40)
    assert found.shape == (40, 31, 3)
    np.testing.assert_array_equal(found, source.read(tf.constant(0))["image"])
    assert limit_side(found, None) is found
    assert limit_side(found, 40) is found
    np.testing.assert_array_equal(limit_side(found, 23), reduced(23))
    np.testing.assert_array_equal(load_picture(path, max_side=61), noise)


def test_large_pictures_are_left_to_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    check(tmp_path, PICTURES["rgb_png"])
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(PICTURES["rgb_png"]))
