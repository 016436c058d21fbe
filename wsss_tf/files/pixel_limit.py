"""The most pixels that a picture or mask may have, whichever command reads it.

A file of a few kilobytes may hold a picture that takes gigabytes. So the size in its header is
looked at before anything is decoded. A served model has a limit of its own besides,
`wsss_tf.export --max_pixels`.
"""

import os

from PIL import Image

from wsss_tf.errors import warn

VARIABLE = "WSSS_TF_MAX_PIXELS"
_DEFAULT = 2**26


def _limit():
    text = os.environ.get(VARIABLE) or str(_DEFAULT)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**62:
        warn(f"{VARIABLE}={text!r}: is no number of pixels; {_DEFAULT} is taken.")
        return _DEFAULT
    return int(text)


MAX_PIXELS = _limit()
# Pillow has a limit of its own, of which it warns, and refuses what is twice as large.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# What a message says behind the size of a picture.
HINT = f"more than {MAX_PIXELS} pixels; make it smaller, or the limit {VARIABLE} larger"


def check_size(height, width):
    """Check the size of a picture before it is decoded.

    Raises:
      ValueError: it has more pixels than are read.
    """
    if height * width > MAX_PIXELS:
        raise ValueError(f"it is {height} x {width} (height x width), {HINT}")
