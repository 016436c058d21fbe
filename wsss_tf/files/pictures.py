"""Pictures read with Pillow: the very pixels of `files.images`, without TensorFlow.

What Pillow decodes in another way, or not at all, is left to TensorFlow, which is imported then.
"""

import io
import pathlib
import re
import struct
import zlib

import numpy as np
from PIL import Image

from wsss_tf.errors import UserError, without_nodes
from wsss_tf.files.pixel_limit import MAX_PIXELS, check_size

# Kinds of pixels of which both libraries make the same colours; not CMYK, nor grey of 16 bits.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
# By the first bytes of a file.
_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
}
_PHONE_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
EXIF_BYTES = 64 * 1024
# So many segments of a JPEG are looked through for its orientation; real ones have it in the first.
MOST_SEGMENTS = 200
# Each scan of a JPEG is a pass over the whole picture, and may be a few bytes. A picture of as many
# pixels as are read may have so many, a smaller one more; progressive photographs have ten or so.
MOST_SCANS = 24
# What a scan begins with: a marker, the length of its head, and how many colours it is of.
SCAN = b"\xff\xda\0"
SCAN_SIZES = (b"\x08\x01", b"\x0a\x02", b"\x0c\x03", b"\x0e\x04")
_SCAN = re.compile(re.escape(SCAN) + b"(?:" + b"|".join(map(re.escape, SCAN_SIZES)) + b")")
# What Pillow raises on broken files, and on those that would take a lot of memory.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
ORIENTATION_TAG = 0x0112
# What undoes each Exif orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_picture(path, max_side=None):
    """Read a picture as `images.decode_image` does, and as a source of limited size then has it.

    Args:
      path: of a JPEG or PNG file.
      max_side: longer side, pixels, to which larger pictures are reduced by `images.reduce_area`;
        None for no limit.

    Returns:
      uint8 [h, w, 3] RGB.

    Raises:
      UserError: the file is missing, or no picture.
    """
    try:
        contents = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    image = _by_pillow(contents)
    if image is None:
        image = _by_tensorflow(path, contents)
    if max_side is not None and max(image.shape[:2]) > max_side:
        from wsss_tf.files import images

        image = images.reduce_area(image, max_side).numpy()
    return image


def limit_side(image, max_side):
    """Reduce a picture as `images.limit_side` does; smaller ones need no TensorFlow.

    Args:
      image: uint8 [h, w, 3].
      max_side: pixels; None for no limit.
    """
    if max_side is None or max(image.shape[:2]) <= max_side:
        return image
    from wsss_tf.files import images

    return images.limit_side(image, max_side).numpy()


def _by_pillow(contents):
    """Return the picture; None where TensorFlow's may differ, or where it cannot be read."""
    try:
        with Image.open(io.BytesIO(contents), formats=("JPEG", "PNG")) as picture:
            check_size(picture.height, picture.width)
            if picture.mode not in _MODES or _has_too_many_scans(picture, contents):
                return None
            turn = _UPRIGHT.get(exif_orientation(contents))
            picture = picture.convert("RGB")
            return np.array(picture if turn is None else picture.transpose(turn))
    except DAMAGED:
        return None


def _has_too_many_scans(picture, contents):
    """Return whether `images.decode_image` refuses a picture for its scans, and says so."""
    if picture.format != "JPEG":
        return False
    scans = len(_SCAN.findall(contents))
    return scans * picture.height * picture.width > MOST_SCANS * MAX_PIXELS


def _by_tensorflow(path, contents):
    import tensorflow as tf

    from wsss_tf.files import images

    try:
        return images.decode_image(tf.constant(contents)).numpy()
    except tf.errors.OpError as error:
        reason = without_nodes(error.message.split("[Op:")[0]).split("convert string: ")[-1]
        if (inside := other_format(contents)) is not None:
            reason = f"{inside}; convert it to JPEG or PNG."
        raise UserError(f"{path}: cannot be read as a picture: {reason}") from error


def other_format(contents):
    """Return what a file is inside, such as "it is WebP inside"; None for JPEG, PNG and unknown.

    Args:
      contents: its bytes, at least the first 16.
    """
    name = next((name for start, name in _FORMATS.items() if contents.startswith(start)), None)
    if contents[:4] == b"RIFF" and contents[8:12] == b"WEBP":
        name = "WebP"
    elif contents[4:8] == b"ftyp" and contents[8:12] in _PHONE_BRANDS:
        name = "HEIC or AVIF"
    return None if name is None else f"it is {name} inside, whatever its name says"


def exif_orientation(contents):
    """Return the orientation, 1..8, that the Exif segment of a JPEG gives; 1 if there is none.

    As `images.decode_image` reads it: of Exif segments only the first counts, if it begins in the
    first 64 KiB behind `MOST_SEGMENTS` others at most, and of a PNG none.

    Args:
      contents: bytes of the file.
    """
    head = contents[:EXIF_BYTES]
    if head[:2] != b"\xff\xd8":
        return 1
    # A JPEG is a chain of segments: 0xFF, a code, and a big-endian length that counts itself.
    position = 2
    for _ in range(MOST_SEGMENTS + 1):
        if position + 4 > len(head) or head[position] != 0xFF or head[position + 1] == 0xDA:
            break
        if head[position + 1] == 0xE1 and head[position + 4 : position + 10] == b"Exif\0\0":
            return _orientation_in(head[position + 10 :])
        position += 2 + struct.unpack_from(">H", head, position + 2)[0]
    return 1


def _orientation_in(tiff):
    """Return the orientation in a TIFF header's first directory; what is cut off has none."""
    order = "<" if tiff[:2] == b"II" else ">"

    def number(position, kind):
        size = struct.calcsize(kind)
        # Positions beyond the end read as zero.
        return struct.unpack(order + kind, tiff[position : position + size].ljust(size, b"\0"))[0]

    directory = number(4, "I")
    count = min(number(directory, "H"), 512)
    entries = (directory + 2 + 12 * i for i in range(count))
    values = [number(entry + 8, "H") for entry in entries if number(entry, "H") == ORIENTATION_TAG]
    orientation = max(values, default=1)
    return orientation if 1 <= orientation <= 8 else 1
