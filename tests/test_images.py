import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.pictures import load_picture

SHARED = pathlib.Path(__file__).parents[2] / "shared"

# Traced once, as tf.data and the SavedModel do it.
decode_image = tf.function(
    images.decode_image, autograph=False, input_signature=[tf.TensorSpec([], tf.string)]
)
decode_mask = tf.function(
    images.decode_mask, autograph=False, input_signature=[tf.TensorSpec([], tf.string)]
)


def picture(channels=3, height=20, width=34, seed=0):
    """A picture without any symmetry: two ramps, a blob in one corner, a little noise."""
    y, x = np.mgrid[:height, :width]
    planes = [4 * y + 40, 5 * x + 20, 255 - 3 * x - 4 * y, 6 * y][:channels]
    values = np.stack(planes, -1) + np.random.default_rng(seed).integers(0, 9, (height, width, 1))
    values[2:7, 3:9] += 60
    return np.clip(values, 0, 255).astype(np.uint8)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values, bit_depth, colour_type, chunks=()):
    """Write a PNG by hand: Pillow cannot write every bit depth."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    rows = b""
    for row in values.reshape(height, -1):
        bits = "".join(format(int(value), f"0{bit_depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
        + [chunk(name, data) for name, data in chunks]
        + [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def by_pillow(contents):
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB"))


# === Pictures ===

GREY = Image.fromarray(picture(1)[..., 0])
PICTURES = {
    "rgb_jpeg": encode(Image.fromarray(picture()), "JPEG", quality=90),
    "progressive_jpeg": encode(Image.fromarray(picture()), "JPEG", progressive=True),
    "full_chroma_jpeg": encode(Image.fromarray(picture()), "JPEG", subsampling=0),
    "grey_jpeg": encode(GREY, "JPEG"),
    "rgb_png": encode(Image.fromarray(picture()), "PNG"),
    "rgba_png": encode(Image.fromarray(picture(4)), "PNG"),
    "grey_png": encode(GREY, "PNG"),
    "grey_alpha_png": encode(GREY.convert("LA"), "PNG"),
    "one_bit_png": encode(GREY.convert("1"), "PNG"),
    "palette_png": encode(Image.fromarray(picture()).quantize(17), "PNG"),
    "transparent_palette_png": encode(
        Image.fromarray(picture()).quantize(17), "PNG", transparency=3
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_decodes_as_pillow(name):
    image = decode_image(PICTURES[name])
    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image, by_pillow(PICTURES[name]))


def test_cmyk_jpeg_is_within_one_of_pillow():
    smooth = Image.fromarray(picture(4)).convert("RGB").convert("CMYK")
    contents = encode(smooth, "JPEG", quality=95)
    image = decode_image(contents).numpy().astype(int)
    assert np.abs(image - by_pillow(contents)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_keeps_the_upper_byte(channels):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, channels))
    image = decode_image(png(values, 16, 0 if channels == 1 else 2))
    np.testing.assert_array_equal(image, np.broadcast_to(values >> 8, (5, 7, 3)))


def exif(orientation, big_endian, before=0):
    """Return an Exif segment's data with `before` other entries ahead of the orientation."""
    order = ">" if big_endian else "<"
    entries = [struct.pack(order + "HHII", 0x100 + i, 4, 1, 1) for i in range(before)]
    entries.append(struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.append(struct.pack(order + "HHII", 0x0131, 4, 1, 6))
    head = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 8)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0" * 4
    return b"Exif\0\0" + head + directory


@pytest.mark.parametrize("big_endian", [False, True], ids=["little_endian", "big_endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright(orientation, big_endian):
    upright = Image.fromarray(picture())
    contents = encode(upright, "JPEG", exif=exif(orientation, big_endian, before=2))
    expected = by_pillow(contents)
    if orientation > 1:
        assert not np.array_equal(expected, by_pillow(encode(upright, "JPEG")))
    assert expected.shape[:2] == ((20, 34) if orientation <= 4 else (34, 20))
    np.testing.assert_array_equal(decode_image(contents), expected)
    np.testing.assert_array_equal(images.decode_image(contents), expected)  # eager


def test_exif_behind_another_segment():
    plain = encode(Image.fromarray(picture()), "JPEG")
    data = exif(6, big_endian=True)
    app1 = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    app0 = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
    app2 = b"\xff\xe2" + struct.pack(">H", 40002) + b"x" * 40000
    position = plain.index(app0[:4]) + 18
    contents = plain[:position] + app2 + app1 + plain[position:]
    np.testing.assert_array_equal(decode_image(contents), by_pillow(contents))
    assert decode_image(contents).shape == (34, 20, 3)


@pytest.mark.parametrize(
    "damaged",
    [
        exif(6, True)[:16],
        exif(9, True),
        exif(0, False),
        exif(6, False)[:10] + b"\xff" * 40,
        b"Exif\0\0",
    ],
    ids=["cut", "nine", "zero", "offset_outside", "empty"],
)
def test_damaged_exif_is_ignored(damaged):
    plain = encode(Image.fromarray(picture()), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(damaged) + 2) + damaged
    contents = plain[:2] + segment + plain[2:]
    np.testing.assert_array_equal(decode_image(contents), decode_image(plain))


@pytest.mark.parametrize("kind", ["rgb_jpeg", "rgb_png"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9], ids=["nothing", "1%", "half", "90%"])
def test_truncated_picture_is_an_error(kind, keep):
    contents = PICTURES[kind][: int(keep * len(PICTURES[kind]))]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(contents)


def test_text_is_no_picture():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(b"<html>404</html>" * 10)


# === Masks ===


@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("bit_depth", [1, 2, 4, 8])
def test_mask_of_every_bit_depth(tmp_path, bit_depth, colour_type):
    mask = np.random.default_rng(bit_depth).integers(0, 2**bit_depth, (9, 13))
    colours = images.palette()[: 2**bit_depth].tobytes()
    chunks = [(b"gAMA", struct.pack(">I", 45455))]
    if colour_type == 3:
        chunks += [(b"PLTE", colours), (b"tRNS", b"\0")]
    contents = png(mask, bit_depth, colour_type, chunks + [(b"tEXt", b"Comment\0IDAT")])
    np.testing.assert_array_equal(decode_mask(contents), mask)
    np.testing.assert_array_equal(images.decode_mask(contents), mask)  # eager
    (tmp_path / "mask.png").write_bytes(contents)
    np.testing.assert_array_equal(images.load_mask(tmp_path / "mask.png"), mask)


NO_MASKS = {
    "rgb": PICTURES["rgb_png"],
    "rgba": PICTURES["rgba_png"],
    "grey_alpha": PICTURES["grey_alpha_png"],
    "sixteen_bit": png(np.full((3, 4), 700), 16, 0),
    "jpeg": PICTURES["grey_jpeg"],
    "short": PICTURES["grey_png"][:20],
    "empty": b"",
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_other_files_are_no_masks(name, tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError, match="palette or 8-bit grey PNG"):
        decode_mask(NO_MASKS[name])
    decode = tf.autograph.experimental.do_not_convert(images.decode_mask)
    dataset = tf.data.Dataset.from_tensors(NO_MASKS[name]).map(decode)
    with pytest.raises(tf.errors.InvalidArgumentError, match="palette or 8-bit grey PNG"):
        next(iter(dataset))
    path = tmp_path / "mask.png"
    path.write_bytes(NO_MASKS[name])
    with pytest.raises(UserError, match="mask"):
        images.load_mask(path)


@pytest.mark.parametrize("damage", ["cut", "check_sum", "chunk_length"])
def test_broken_mask_is_an_error(damage, tmp_path):
    contents = bytearray(png(np.arange(20).reshape(4, 5), 8, 3, [(b"PLTE", bytes(768))]))
    if damage == "cut":
        contents = contents[: contents.index(b"IDAT") + 8]
    else:
        contents[30 if damage == "check_sum" else 33] ^= 0xC0
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_mask(bytes(contents))
    path = tmp_path / "broken.png"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"broken\.png"):
        images.load_mask(path)


def test_saved_mask_is_a_palette_png_of_the_very_indices(tmp_path):
    mask = np.random.default_rng(0).integers(0, 256, (7, 11))
    path = tmp_path / "folder" / "mask.png"
    images.save_mask(path, mask)
    with Image.open(path) as saved:
        assert (saved.mode, saved.size, saved.format) == ("P", (11, 7), "PNG")
        np.testing.assert_array_equal(np.array(saved), mask)
        np.testing.assert_array_equal(np.array(saved.convert("RGB")), images.palette()[mask])
    np.testing.assert_array_equal(images.load_mask(path), mask)
    np.testing.assert_array_equal(decode_mask(path.read_bytes()), mask)
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 3, 1), int), np.zeros((2, 3)), np.full((2, 3), 256), np.full((2, 3), -1)]
)
def test_save_mask_refuses(mask, tmp_path):
    with pytest.raises(ValueError, match="a mask must be"):
        images.save_mask(tmp_path / "mask.png", mask)


def test_missing_mask_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.png"):
        images.load_mask(tmp_path / "absent.png")


def test_palette_is_that_of_voc():
    colours = images.palette()
    assert colours[15].tolist() == [192, 128, 128]
    assert colours[255].tolist() == [224, 224, 192]


def test_voc_files_decode_as_pillow():
    root = SHARED / "data" / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip("skipped: no shared data")
    for path in sorted(root.glob("JPEGImages/*.jpg")):
        np.testing.assert_array_equal(decode_image(path.read_bytes()), by_pillow(path.read_bytes()))
    for path in sorted(root.glob("SegmentationClass*/*.png")):
        np.testing.assert_array_equal(decode_mask(path.read_bytes()), np.array(Image.open(path)))


# === OpenCV's cubic ===


def _cubic(row, length):
    """One axis as OpenCV's documentation and source give it, in float64, pixel by pixel."""
    a, out = -0.75, np.zeros(length)
    for i in range(length):
        centre = (i + 0.5) * len(row) / length - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            t = abs(centre - tap)
            if t <= 1:
                weight = (a + 2) * t**3 - (a + 3) * t**2 + 1
            else:
                weight = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            out[i] += weight * row[min(max(tap, 0), len(row) - 1)]
    return out


@pytest.mark.parametrize("size", [(5, 20), (13, 6), (7, 11)], ids=["mixed", "mixed2", "same"])
def test_resize_cubic(size):
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 11, 3)).astype(np.uint8)
    expected = np.apply_along_axis(_cubic, 1, x.astype(float), size[0])
    expected = np.apply_along_axis(_cubic, 2, expected, size[1])
    resized = images.resize_cubic(tf.cast(x, tf.float32), size)
    np.testing.assert_allclose(resized, expected, atol=1e-3)
    rounded = tf.function(images.resize_cubic, autograph=False)(x[0], tf.constant(size))
    assert rounded.dtype == tf.uint8
    assert np.abs(rounded.numpy() - np.clip(expected[0], 0, 255)).max() <= 0.502
    if size == (7, 11):
        np.testing.assert_array_equal(resized, x)


def large_png(height, width):
    """A grey PNG whose header says this size, of a few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def large_jpeg(height, width):
    contents = bytearray(encode(Image.fromarray(picture()), "JPEG"))
    start = contents.index(b"\xff\xc0")
    contents[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(contents)


@pytest.mark.parametrize("make", [large_png, large_jpeg])
def test_a_picture_with_too_many_pixels_is_refused_by_its_header(make):
    words = "it is 13000 x 13001 .height x width., more than 67108864 pixels; .* WSSS_TF_MAX_PIXELS"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        decode_image(make(13000, 13001))


def test_a_mask_with_too_many_pixels_is_refused_by_its_header(tmp_path):
    path = tmp_path / "large.png"
    for size in ((13000, 13000), (65535, 65535)):  # the second is above Pillow's own limit
        path.write_bytes(large_png(*size))
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than 67108864 pixels"):
            decode_mask(path.read_bytes())
        with pytest.raises(UserError, match=r"large\.png: .*(more than 67108864 pixels|exceeds)"):
            images.load_mask(path)


def test_segments_before_the_orientation_are_looked_through_for_a_while_only():
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 32) + b"Exif\0\0" + (
        b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    ).ljust(26, b"\0")  # fmt: skip
    contents = encode(Image.fromarray(picture()), "JPEG")
    for empty, is_turned in ((100, True), (16000, False)):
        segments = b"\xff\xe5\0\2" * empty
        height, width, _ = decode_image(contents[:2] + segments + exif + contents[2:]).shape
        assert (height < width) != is_turned


def test_chunks_before_the_pixels_of_a_mask_are_looked_through_for_a_while_only():
    values = picture()[:, :, 0] % 7
    for count in (100, 20000):
        contents = png(values, 8, 0, [(b"tEXt", b"a\0b")] * count)
        if count == 100:
            np.testing.assert_array_equal(decode_mask(contents), values)
        else:
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode_mask(contents)


def many_scans(height, width, count):
    """A grey progressive JPEG, of which a few bytes are a scan, a pass over all its blocks."""

    def segment(code, data):
        return b"\xff" + bytes([code]) + struct.pack(">H", len(data) + 2) + data

    # The one code of each table is the bit 0: no difference for DC, a run of blocks for AC.
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    for head, symbol in ((b"\0", b"\0"), (b"\x10", b"\xe0")):
        tables += segment(0xC4, head + b"\1" + bytes(15) + symbol)
    blocks = -(-height // 8) * -(-width // 8)
    runs = [2**15 - 1] * (blocks // (2**15 - 1)) + [2**14] * (blocks % (2**15 - 1) > 0)
    bits = "".join(f"0{run - 2**14:014b}" for run in runs)
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(
        [b"\xff\xd8", tables]
        + [segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")]
        + [segment(0xDA, b"\1\1\0\0\0\0")]
        + [segment(0xDA, b"\1\1\0\1\x3f\x10") + body] * (count - 1)
        + [b"\xff\xd9"]
    )


def test_a_jpeg_whose_scans_take_long_is_refused_by_their_number(tmp_path):
    path = tmp_path / "slow.jpg"
    path.write_bytes(many_scans(8192, 8192, 990))
    assert path.stat().st_size < 100_000
    words = "it has 990 scans of 8192 x 8192 pixels, which takes too long"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        decode_image(path.read_bytes())
    with pytest.raises(UserError, match=rf"slow\.jpg: .*{words}"):
        load_picture(path)


@pytest.mark.parametrize(("count", "is_refused"), [(24, False), (25, True)])
def test_so_many_scans_are_read_at_the_largest_size(count, is_refused):
    contents = many_scans(8192, 8192, count)
    # The header alone: to decode it takes a second.
    fault = images._picture_fault(tf.constant(contents)).numpy()
    assert (b"scans" in fault) == is_refused
    assert (fault != b"") == is_refused


def test_small_pictures_may_have_many_scans(tmp_path):
    path = tmp_path / "small.jpg"
    path.write_bytes(many_scans(40, 56, 200))
    assert decode_image(path.read_bytes()).shape == (40, 56, 3)
    np.testing.assert_array_equal(load_picture(path), decode_image(path.read_bytes()))


def test_what_is_no_scan_is_not_counted():
    """Previews, and what cameras put behind a picture, a film say, have such bytes by chance."""
    photograph = encode(Image.fromarray(picture()), "JPEG", progressive=True)
    preview = b"\xff\xe5" + struct.pack(">H", len(photograph) + 2) + photograph
    film = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    contents = photograph[:2] + preview + photograph[2:] + film + b"\xff\xda\0\0\1" * 100
    assert film.count(b"\xff\xda") > 5
    count = images._count_scans(tf.constant(photograph)).numpy()
    assert 5 < count < 13
    assert images._count_scans(tf.constant(contents)).numpy() == 2 * count
    np.testing.assert_array_equal(decode_image(contents), by_pillow(photograph))
