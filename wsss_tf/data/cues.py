"""SEC's training examples: images warped to a square, with localisation cues beside them."""

import pathlib

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.data.transforms import compose, random_flip
from wsss_tf.errors import UserError
from wsss_tf.files import images


def sec_augmentation(image_size=321, cues=None, flip=False, align_corners=False):
    """Return SEC's preparation of training images: a warp to a square, and no augmentation.

    Args:
      image_size: side of the square, pixels; an image's proportions are not kept.
      cues: folder of `<id>.png`, localisation cues on the network's grid, all of one size: index
        PNGs, 0 for background, class numbers from 1, 255 for no cue; None where the step needs
        none. Whether the grid is the network's is for the step to say.
      flip: mirror half of the images; not in SEC.
      align_corners: False resizes as OpenCV does 8-bit images (half-pixel centres, rounded), for
        SEC's network. True is what its localisation networks see (aligned corners, not rounded).

    Returns:
      Function of (example, rng_seed int32 [2]) to the example with "image" float32
      [image_size, image_size, 3], normalised, and, with `cues`, "cues" uint8 [h, w].

    Raises:
      UserError: the folder of cues is missing or empty.

    Source: SEC, official training data layer. OpenCV's weights have 11 bits, so some of its
    values differ by one.
    """
    grid = None if cues is None else _grid_of(pathlib.Path(cues))

    def warp(example, rng_seed):
        size = (image_size, image_size)
        image = ops.resize_bilinear(example["image"][None], size, align_corners)[0]
        image = image if align_corners else tf.round(image)
        result = {"image": ops.normalize_image(image)}
        for key in ("id", "labels"):
            result[key] = example[key]
        if cues is not None:
            path = tf.strings.join([str(cues), "/", example["id"], ".png"])
            result["cues"] = tf.ensure_shape(images.decode_mask(tf.io.read_file(path)), grid)
        return result

    return compose(warp, *([random_flip] if flip else []))


def _grid_of(folder):
    """Return the size (h, w) of one file: a whole folder is made in one go."""
    first = next(folder.rglob("[!.]*.png"), None)
    if first is None:
        raise UserError(
            f"sec_augmentation.cues = {str(folder)!r}: no such folder, or no <id>.png in it; "
            "python -m wsss_tf.cues writes them."
        )
    return images.load_mask(first).shape
