"""PNG files that Pillow writes: index masks, and stacks of probability maps in 16 bits.

No TensorFlow here, so that worker processes start in a moment; `wsss_tf.files.images` reads both
kinds of file inside a graph.
"""

import numpy as np
from PIL import Image, PngImagePlugin

from wsss_tf.errors import UserError
from wsss_tf.files.pictures import DAMAGED
from wsss_tf.files.pixel_limit import check_size
from wsss_tf.files.run_folder import atomic_path

PROBABILITY_ONE = 65535  # the value of a 16-bit pixel that stands for 1


def palette():
    """Return the PASCAL VOC colours, uint8 [256, 3].

    Bits 0, 1, 2 of the index go into red, green, blue from the top bit down, then the next three.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def save_mask(path, mask):
    """Write an index mask atomically as a palette PNG with the VOC colours.

    Args:
      path: file to write; missing folders are made.
      mask: integer [h, w], values 0..255.

    Raises:
      ValueError: `mask` is not such an array.
    """
    mask = np.asarray(mask)
    fits = mask.ndim == 2 and mask.size and np.issubdtype(mask.dtype, np.integer)
    if not fits or mask.min() < 0 or mask.max() > 255:
        raise ValueError(
            f"a mask must be [h, w] of integers 0..255, not {mask.dtype} {list(mask.shape)}."
        )
    height, width = mask.shape
    picture = Image.frombytes("P", (width, height), mask.astype(np.uint8).tobytes())
    picture.putpalette(palette().tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG")


def save_probabilities(path, class_ids, probs):
    """Write probability maps atomically as one grey PNG of 16 bits, the maps one below the other.

    Args:
      path: file to write; missing folders are made.
      class_ids: int [P], the mask values that the maps belong to; kept in a text chunk.
      probs: [h, w, P] in [0, 1], rounded to steps of 1/65535.

    Raises:
      ValueError: the two do not have the same length, or values out of range.
    """
    class_ids, probs = np.asarray(class_ids, np.int64), np.asarray(probs)
    if probs.ndim != 3 or class_ids.shape != probs.shape[2:]:
        raise ValueError(f"class_ids {class_ids.shape} and probs {probs.shape} do not go together.")
    if not (probs.min() >= 0 and probs.max() <= 1 + 1e-5):  # so written, NaN fails too
        raise ValueError(f"probabilities from {probs.min()} to {probs.max()}; need 0 to 1.")
    levels = np.minimum(np.rint(probs * PROBABILITY_ONE), PROBABILITY_ONE).astype("<u2")
    height, width, count = probs.shape
    stack = levels.transpose(2, 0, 1).reshape(count * height, width)
    note = PngImagePlugin.PngInfo()
    note.add_text("class_ids", " ".join(map(str, class_ids)))
    picture = Image.frombytes("I;16", (width, count * height), stack.tobytes())
    with atomic_path(path) as temporary:
        # Twice as fast as the default level, for files a few percent larger.
        picture.save(temporary, "PNG", pnginfo=note, compress_level=3)


def load_probabilities(path):
    """Read what `save_probabilities` wrote.

    Returns:
      class_ids int32 [P], and probs float32 [h, w, P] in [0, 1].

    Raises:
      UserError: the file is missing, broken, or another kind of PNG.
    """
    class_ids, (height, width) = probabilities_header(path)
    try:
        check_size(height, width)
        with Image.open(path) as picture:
            levels = np.frombuffer(picture.tobytes(), "<u2")
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    maps = levels.reshape(len(class_ids), height, width).transpose(1, 2, 0)
    return class_ids, np.ascontiguousarray(maps, np.float32) / PROBABILITY_ONE


def probabilities_header(path):
    """Return (class_ids int32 [P], (h, w)) of a file of probability maps, without decoding it.

    Raises:
      UserError: as `load_probabilities`.
    """
    try:
        with Image.open(path) as picture:
            width, stacked = picture.size
            text = getattr(picture, "text", {}).get("class_ids", "")
            class_ids = np.array(text.split(), np.int32)
            fits = picture.mode == "I;16" and len(class_ids) and not stacked % len(class_ids)
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not fits:
        raise UserError(f"{path}: holds no probability maps; write it anew with wsss_tf.refine.")
    return class_ids, (stacked // len(class_ids), width)
