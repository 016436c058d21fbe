"""Pictures of 16 bits that use only the lower ones: read as they are, they are nearly black."""

import tensorflow as tf

from wsss_tf.data.lists import evenly_spread
from wsss_tf.files import images
from wsss_tf.files.pixel_limit import check_size

_HEADERS, _PICTURES = 500, 24
# A camera's 10 to 14 bits.
_MOST_BITS = 14


def unused_bits(paths):
    """Return a line on 16-bit PNGs whose values stay far below 65535, "" if there are none.

    The kind of 500 files is looked at, and up to 24 pictures of 16 bits are read, evenly spread.

    Args:
      paths: files of pictures, of any kind.
    """
    deep = [path for path in evenly_spread(paths, _HEADERS) if _is_deep(path)]
    if not deep:
        return ""
    largest = [_largest(path) for path in evenly_spread(deep, _PICTURES)]
    bits = int(max(largest)).bit_length()
    if not 0 < bits <= _MOST_BITS:
        return ""
    return (
        f"{len(largest)} PNGs of 16 bits, such as {deep[0]}, have no value above {max(largest)} of "
        f"65535 ({bits} bits), so they are read as nearly black pictures (the upper 8 bits are "
        f"kept); multiply their values by {2 ** (16 - bits)}."
    )


def _is_deep(path):
    try:
        with open(path, "rb") as file:
            head = file.read(25)
    except OSError:
        return False
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:] == b"\x10"


def _largest(path):
    """Return the largest value of the colours; 0 if it cannot be read (others say so)."""
    try:
        contents = tf.io.read_file(path)
        check_size(*images.png_size(contents).numpy().tolist())
        picture = tf.io.decode_png(contents, channels=3, dtype=tf.uint16).numpy()
    except (tf.errors.OpError, ValueError):
        return 0
    return int(picture.max())
