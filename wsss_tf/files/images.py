"""Pictures and index masks: decoding inside a graph, and with Pillow.

The graph decoders use stock TensorFlow ops only, so that training, inference and the exported
SavedModel read a file in the same way, and the SavedModel needs no Python.
"""

import io
import pathlib
import struct
import zlib

import numpy as np
import tensorflow as tf
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.files.pictures import (
    DAMAGED,
    MOST_SCANS,
    MOST_SEGMENTS,
    ORIENTATION_TAG,
    SCAN,
    SCAN_SIZES,
)
from wsss_tf.files.pixel_limit import HINT, MAX_PIXELS, check_size
from wsss_tf.files.png import palette as palette
from wsss_tf.files.png import save_mask as save_mask

_NOT_A_MASK = "a mask must be a palette or 8-bit grey PNG"
_EXIF_BYTES = 64 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# So many chunks are looked through before the pixels of a mask; real ones have a few.
_MOST_CHUNKS = 200

# Of a file's bytes; traced once a process, since what they do with single bytes is many operations.
_of_contents = tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])


# === Pictures ===


def decode_image(contents):
    """Decode a picture as a viewer would show it: in colour, and upright.

    Args:
      contents: scalar string tensor, the bytes of a JPEG (grey, RGB or CMYK) or PNG file (grey,
        palette, RGB, with or without alpha, 8 or 16 bits). Alpha is dropped, of 16 bits the upper
        eight are kept. A JPEG is turned by the orientation in its Exif segment, if that begins in
        the first 64 KiB; the orientation of a PNG is not read.

    Returns:
      uint8 [h, w, 3] RGB, equal to Pillow's `ImageOps.exif_transpose(...).convert("RGB")` (CMYK
      within 1, and 16-bit grey, which Pillow clips).

    Raises:
      InvalidArgumentError: the bytes are empty, truncated, or no JPEG or PNG (WebP, say); or it has
        more pixels than `pixel_limit.MAX_PIXELS`, or for its size more scans than `MOST_SCANS`
        allows, before anything is decoded.
    """
    zero = _fault_as_error(_picture_fault(contents))
    contents = tf.strings.substr(contents, zero, tf.strings.length(contents))
    # This op tells the format by the bytes and reads PNG too. The accurate DCT is Pillow's.
    image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    # Of a WebP file it makes [1, h, w, 3], whatever its static shape says.
    image = tf.ensure_shape(image, [None, None, 3])
    orientation = _exif_orientation(contents)
    image = tf.cond(orientation == 1, lambda: image, lambda: _upright(image, orientation))
    image.set_shape([None, None, 3])
    return image


def _picture_fault(contents):
    """Return what is wrong with a picture by its header, a scalar string; "" if nothing is."""
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG
    # What is neither is left to the decoder, which says so, but for what it would decode.
    size = tf.case(
        [
            (is_png, lambda: png_size(contents)),
            (is_jpeg, lambda: tf.image.extract_jpeg_shape(contents, tf.int64)[:2]),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )
    scans = tf.cond(is_jpeg, lambda: _count_scans(contents), lambda: tf.zeros([], tf.int64))
    is_webp = tf.strings.substr(_head(contents), 8, 4) == b"WEBP"
    fault = tf.where(is_webp, "neither a JPEG nor a PNG", _size_fault(size))
    return tf.where(fault == "", _scan_fault(scans, size), fault)


def _count_scans(contents):
    """Return how many scans a JPEG has, int64, with those of smaller pictures inside it.

    No other bytes of compressed pixels look like the head of a scan. In what lies around them, five
    bytes rarely do so by chance.
    """
    parts = tf.strings.split(contents, SCAN)
    starts = tf.strings.substr(parts[1:], 0, len(SCAN_SIZES[0]))
    is_scan = tf.reduce_any(starts[:, None] == tf.constant(SCAN_SIZES), -1)
    return tf.reduce_sum(tf.cast(is_scan, tf.int64))


def _scan_fault(scans, size):
    too_slow = scans * tf.reduce_prod(size) > MOST_SCANS * MAX_PIXELS
    message = "it has {} scans of {} x {} pixels, which takes too long; save it anew as a JPEG"
    return tf.where(too_slow, tf.strings.format(message, [scans, size[0], size[1]]), "")


def png_size(contents):
    """Return (height, width), int64 [2], of the header of a PNG; zeros where it is cut off."""
    numbers = tf.strings.substr(_head(contents), 16, 8)
    numbers = tf.io.decode_raw(numbers, tf.int32, little_endian=False, fixed_length=8)
    return tf.cast(numbers[::-1], tf.int64)


def _head(contents):
    """Return the first 24 bytes and zeros behind them: to read beyond the end is an error."""
    return tf.strings.join([tf.strings.substr(contents, 0, 24), b"\0" * 24])


def _size_fault(size):
    too_large = tf.reduce_prod(size) > MAX_PIXELS
    message = tf.strings.format("it is {} x {} (height x width), " + HINT, [size[0], size[1]])
    return tf.where(too_large, message, "")


def _fault_as_error(fault):
    """Return the int32 0, or fail with a message where there is one.

    An assertion is stateful: it would have every mask decoded even where only the image is used.
    Reading a number fails with the text in its message, and is pruned with the rest. The result has
    to be used: a mere control dependency on such an operation is optimised away.
    """
    return tf.strings.to_number(tf.where(fault == "", "0", fault), tf.int32)


def _upright(image, orientation):
    """Undo an Exif orientation: 5..8 are transposed, then rows and columns may be reversed."""

    def one_of(*values):
        return tf.reduce_any(orientation == tf.constant(values))

    image = tf.cond(
        one_of(5, 6, 7, 8), lambda: tf.transpose(image, [1, 0, 2]), lambda: tf.identity(image)
    )
    image = tf.cond(one_of(3, 4, 7, 8), lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(one_of(2, 3, 6, 7), lambda: tf.reverse(image, [1]), lambda: image)


@_of_contents
def _exif_orientation(contents):
    """Return the orientation, int32 in 1..8, that a JPEG's Exif segment gives; 1 if there is none.

    Never fails: positions beyond the end read as the zero that is appended to the bytes.
    """
    head = tf.io.decode_raw(tf.strings.substr(contents, 0, _EXIF_BYTES), tf.uint8)
    size = tf.size(head)
    head = tf.pad(tf.cast(head, tf.int32), [[0, 1]])

    def read(position, count):
        position = tf.expand_dims(position, -1) + tf.range(count)
        return tf.gather(head, tf.clip_by_value(position, 0, size))

    def number(position, count, little_endian):
        weights = [1 << (8 * i) for i in range(count)]
        weights = tf.where(little_endian, weights, weights[::-1])
        return tf.reduce_sum(read(position, count) * weights, -1)

    def equal(position, expected):
        return tf.reduce_all(read(position, len(expected)) == tf.constant(list(expected)))

    # A JPEG is a chain of segments: 0xFF, a code, and a big-endian length that counts itself.
    def is_exif(position):
        return equal(position, b"\xff\xe1") & equal(position + 4, b"Exif\0\0")

    def is_other_segment(position):
        start_of_scan = equal(position, b"\xff\xda")
        return equal(position, b"\xff") & ~start_of_scan & ~is_exif(position)

    def next_segment(position):
        return [position + 2 + number(position + 2, 2, little_endian=False)]

    first = tf.where(equal(tf.constant(0), b"\xff\xd8"), 2, size)
    [segment] = tf.while_loop(
        is_other_segment, next_segment, [first], maximum_iterations=MOST_SEGMENTS
    )

    # Inside it a TIFF header with its own byte order, then a directory of 12-byte entries.
    tiff = segment + 10
    little_endian = equal(tiff, b"II")
    directory = tiff + number(tiff + 4, 4, little_endian)
    count = tf.where(is_exif(segment), number(directory, 2, little_endian), 0)
    # Real directories are short; a damaged count must not cost memory.
    entries = directory + 2 + 12 * tf.range(tf.minimum(count, 512))
    is_orientation = number(entries, 2, little_endian) == ORIENTATION_TAG
    values = number(entries + 8, 2, little_endian)
    orientation = tf.reduce_max(tf.concat([[1], tf.where(is_orientation, values, 1)], 0))
    return tf.where(orientation <= 8, orientation, 1)


def resize_bicubic(pictures, size):
    """Resize 8-bit pictures as Pillow's bicubic filter does (a = -0.5, antialiased).

    Args:
      pictures: uint8 [..., H, W, 3], with or without a batch dimension.
      size: (height, width), int32 [2].

    Returns:
      uint8 [..., height, width, 3]; the very values of `pictures` if the size is the same.
    """
    size = tf.convert_to_tensor(size)
    old = tf.shape(pictures)[-3:-1]

    def resized():
        # Pillow rounds and clips between the two passes, which shows at hard edges.
        result = pictures
        for pass_size in (tf.stack([old[0], size[1]]), size):
            result = tf.image.resize(result, pass_size, "bicubic", antialias=True)
            result = tf.cast(tf.clip_by_value(tf.round(result), 0, 255), tf.uint8)
        return result

    return tf.cond(tf.reduce_all(old == size), lambda: pictures, resized)


def reduced_size(size, max_side):
    """Return (height, width), int32 [2], with a long side of at most `max_side`, rounded."""
    size = tf.cast(size, tf.int64)
    longest = tf.reduce_max(size)
    bound = tf.minimum(longest, max_side)
    return tf.cast(tf.maximum((2 * size * bound + longest) // (2 * longest), 1), tf.int32)


def limit_side(pictures, max_side):
    """Reduce 8-bit pictures whose longer side is above a limit to that limit, by `resize_bicubic`.

    Args:
      pictures: uint8 [..., H, W, 3], with or without a batch dimension.
      max_side: pixels; None for no limit.

    Returns:
      uint8 [..., h, w, 3], of `reduced_size`; the very values of `pictures` if they are not longer.
    """
    if max_side is None:
        return pictures
    return resize_bicubic(pictures, reduced_size(tf.shape(pictures)[-3:-1], max_side))


def reduce_area(picture, max_side):
    """Return an 8-bit picture at `reduced_size`: each new pixel is the mean colour of its area.

    Args:
      picture: uint8 [H, W, 3].
      max_side: pixels.

    Returns:
      uint8 [h, w, 3].
    """
    size = reduced_size(tf.shape(picture)[:2], max_side)
    picture = tf.cast(tf.round(tf.image.resize(picture, size, "area")), tf.uint8)
    return tf.ensure_shape(picture, [None, None, 3])


def resize_cubic(x, size):
    """Resize as OpenCV's INTER_CUBIC: a = -0.75, half-pixel centres, no antialiasing.

    Args:
      x: [..., H, W, D], float, or uint8 (rounded and clipped at the end).
      size: (height, width), ints or int32 [2].

    Returns:
      [..., height, width, D], same dtype; the very values of `x` if the size is the same. OpenCV
      computes 8-bit images with rounded weights: values may differ by one.
    """
    result = tf.cast(x, tf.float32)
    for axis, length in ((-3, size[0]), (-2, size[1])):
        axis += len(x.shape)
        old = tf.shape(x)[axis]
        ratio = tf.cast(old, tf.float64) / tf.cast(length, tf.float64)
        position = (tf.cast(tf.range(length), tf.float64) + 0.5) * ratio - 0.5
        first = tf.floor(position)
        part = tf.cast(position - first, tf.float32)
        # The border pixel is repeated outside.
        taps = [
            tf.gather(result, tf.clip_by_value(tf.cast(first, tf.int32) + i, 0, old - 1), axis=axis)
            for i in (-1, 0, 1, 2)
        ]
        shape = [-1] + [1] * (len(x.shape) - 1 - axis)
        weights = [tf.reshape(weight, shape) for weight in _cubic_weights(part)]
        result = tf.add_n([tap * weight for tap, weight in zip(taps, weights)])
    if x.dtype == tf.uint8:
        result = tf.cast(tf.clip_by_value(tf.round(result), 0, 255), tf.uint8)
    return result


def _cubic_weights(x, a=-0.75):
    """Return the weights of the taps at -1, 0, 1 and 2 for positions x in [0, 1)."""

    def near(t):
        return ((a + 2) * t - (a + 3)) * t * t + 1

    left = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    return left, near(x), near(1 - x), 1 - left - near(x) - near(1 - x)


# === Masks ===


@_of_contents
def decode_mask(contents):
    """Decode an index mask, without turning its palette into colours.

    `tf.io.decode_png` has no way to return palette indices, so the file is first rewritten as a
    grey one: the pixel data of both kinds are the same.

    Args:
      contents: scalar string tensor, the bytes of a palette PNG or a grey PNG of at most 8 bits.

    Returns:
      uint8 [h, w], the class indices.

    Raises:
      InvalidArgumentError: another kind of file (the message says what a mask must be), or broken.
    """
    size = tf.strings.length(contents)
    header = tf.io.decode_raw(tf.strings.substr(contents, 0, 33), tf.uint8)
    header = tf.pad(header, [[0, 33 - tf.size(header)]])
    header.set_shape([33])
    is_png = tf.reduce_all(header[:8] == tf.constant(list(b"\x89PNG\r\n\x1a\n"), tf.uint8))
    bit_depth, colour_type = tf.cast(header[24], tf.int32), tf.cast(header[25], tf.int32)
    is_index = (colour_type == 3) | (colour_type == 0)
    is_mask = is_png & is_index & (bit_depth >= 1) & (bit_depth <= 8) & (size >= 33)
    kind = tf.strings.format(", not one of depth {} and type {}", [bit_depth, colour_type])
    complaint = _NOT_A_MASK + tf.where(is_png, kind, ", this is no PNG")
    fault = tf.where(is_mask, _size_fault(png_size(contents)), complaint)
    zero = _fault_as_error(fault)
    contents = tf.strings.substr(contents, zero, size)
    bit_depth += zero

    grey = tf.io.decode_png(_as_grey_png(contents, header), channels=1)[:, :, 0]
    # libpng spreads the grey levels of 1, 2 and 4 bits over 0..255.
    spread = 255 // (tf.bitwise.left_shift(1, bit_depth) - 1)
    mask = grey // tf.cast(spread, tf.uint8)
    mask.set_shape([None, None])
    return mask


def _as_grey_png(contents, header):
    """Return the PNG with colour type 0 and nothing between the header and the pixel data."""

    def chunk_type(position):
        return tf.strings.substr(contents, position + 4, 4)

    size = tf.strings.length(contents)

    def is_before_data(position):
        # Slices are taken only inside the file; cond, because "and" would evaluate both.
        return tf.cond(
            position + 8 <= size,
            lambda: chunk_type(position) != b"IDAT",
            lambda: tf.constant(False),
        )

    def next_chunk(position):
        length = tf.io.decode_raw(
            tf.strings.substr(contents, position, 4), tf.int32, little_endian=False
        )[0]
        # A damaged length (negative, or past the end) leads to the end, where decoding fails.
        inside = (length >= 0) & (length <= size - position)
        return [tf.where(inside, position + length + 12, size)]

    [data] = tf.while_loop(
        is_before_data, next_chunk, [tf.constant(33)], maximum_iterations=_MOST_CHUNKS
    )
    # Behind too many chunks there are no pixel data, of which decoding complains.
    data = tf.cond(is_before_data(data), lambda: size, lambda: tf.minimum(data, size))

    crc = tf.where(header[25] == 3, _other_colour_type(header[29:33]), header[29:33])
    parts = [
        tf.strings.substr(contents, 0, 25),
        tf.constant(b"\0"),
        tf.strings.substr(contents, 26, 3),
        _join_bytes(crc),
        tf.strings.substr(contents, data, size - data),
    ]
    return tf.strings.join(parts)


def _other_colour_type(crc):
    """Return the check sum of a PNG header, uint8 [4], after colour type 3 became 0, or 0 became 3.

    CRC-32 is affine: the change is this constant, whatever else is in the header. (So a damaged
    header is still found out.)
    """
    return tf.bitwise.bitwise_xor(crc, tf.constant([0x12, 0xB5, 0xAF, 0xEE], tf.uint8))


def _join_bytes(values):
    """Return uint8 [n] as a scalar string."""
    single_bytes = tf.constant([bytes([value]) for value in range(256)])
    return tf.strings.reduce_join(tf.gather(single_bytes, tf.cast(values, tf.int32)))


def encode_mask(mask, num_classes):
    """Encode an index mask as a palette PNG with the VOC colours, inside a graph.

    `tf.io.encode_png` writes grey ones only, so the header of such a file is rewritten and the
    palette put behind it: the pixel data of both kinds are the same.

    Args:
      mask: integer [h, w], values 0..K-1.
      num_classes: K, at most 256; the palette has so many colours.

    Returns:
      scalar string; `decode_mask` gives `mask` again.
    """
    grey = tf.io.encode_png(tf.cast(mask, tf.uint8)[:, :, None])
    crc = _other_colour_type(tf.io.decode_raw(tf.strings.substr(grey, 29, 4), tf.uint8))
    colours = b"PLTE" + palette()[:num_classes].tobytes()
    chunk = struct.pack(">I", len(colours) - 4) + colours + struct.pack(">I", zlib.crc32(colours))
    parts = [
        tf.strings.substr(grey, 0, 25),
        tf.constant(b"\3"),
        tf.strings.substr(grey, 26, 3),
        _join_bytes(crc),
        tf.constant(chunk),
        tf.strings.substr(grey, 33, tf.strings.length(grey) - 33),
    ]
    return tf.strings.join(parts)


def load_mask(path):
    """Read an index mask with Pillow, as `decode_mask` does in a graph.

    Returns:
      uint8 [h, w].

    Raises:
      UserError: the file is missing, broken, or not a palette or 8-bit grey PNG.
    """
    try:
        contents = pathlib.Path(path).read_bytes()
        with Image.open(io.BytesIO(contents)) as picture:
            check_size(picture.height, picture.width)
            if picture.format != "PNG" or picture.mode not in ("P", "L", "1"):
                raise UserError(f"{path}: {_NOT_A_MASK}, not {picture.format} {picture.mode}.")
            mask = np.array(picture, np.uint8)
            is_spread = picture.mode == "L"
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as a mask: {error}") from error
    bit_depth = contents[24]
    return mask // (255 // (2**bit_depth - 1)) if is_spread else mask
