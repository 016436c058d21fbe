"""Augmentation: factories of pure functions (example, rng_seed) -> example.

A factory checks its arguments once; what it returns is stateless, traceable, and takes one random
decision for image and mask together. Images stay uint8 until `normalize`, as in the papers' code,
which works on 8-bit pictures: each colour operation rounds.

Resizing and colours leave the graph for compiled code in `data.pillow_arithmetic`, although the
input is otherwise TensorFlow's operations only: of those the best take three quarters of Pillow's
time, and this less than half, with Pillow's very values. Python's lock is held only where a call
begins and ends, so that the threads of `Dataset.map` work side by side. What is exported or served
has stock operations only, see `files.images`.
"""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.masks import IGNORE


def compose(*transforms):
    """Return the transform that applies `transforms` in order, each with a seed of its own."""

    def apply(example, rng_seed):
        seeds = tf.unstack(tf.random.split(rng_seed, num=max(len(transforms), 1)))
        for transform, seed in zip(transforms, seeds):
            example = transform(example, seed)
        return example

    return apply


def seam_augmentation(
    min_long_side=448, max_long_side=768, crop_size=448, jitter=0.3, hue=0.1, flip=True
):
    """Return SEAM's training augmentation; other data sets use it with other numbers.

    Args:
      min_long_side, max_long_side: the long side is resized to a uniform integer in this closed
        range, pixels.
      crop_size: side of the square output, pixels; smaller images lie on a canvas of mean colour.
      jitter: brightness, contrast and saturation factors are uniform in [1 - jitter, 1 + jitter].
      hue: the hue shift is uniform in [-hue, hue], in turns of the colour circle; at most 0.5.
      flip: mirror half of the images.

    Returns:
      Function of (example, rng_seed int32 [2]) to the example with "image" float32
      [crop_size, crop_size, 3], normalised, and, where there was one, "mask" uint8
      [crop_size, crop_size], 255 outside the image.

    Raises:
      ValueError: an argument out of range.

    Source: SEAM (Wang et al., CVPR 2020), official `voc12/data.py` and `tool/imutils.py`.
    """
    transforms = [random_long_side(min_long_side, max_long_side)]
    if flip:
        transforms.append(random_flip)
    if jitter or hue:
        transforms.append(color_jitter(jitter, hue))
    return compose(*transforms, normalize, random_crop(crop_size))


# === Geometry ===


def random_long_side(smallest, largest):
    """Return the transform that resizes the long side to a uniform integer in a closed range.

    The image is resized as Pillow's bicubic does (a = -0.5, antialiased, 8-bit result), the mask to
    the nearest pixel. The short side is round(short * new / long), half to even.
    """
    if not 1 <= smallest <= largest:
        raise ValueError(f"long side from {smallest} to {largest}: need 1 <= smallest <= largest.")

    def transform(example, rng_seed):
        long_side = tf.random.stateless_uniform([], rng_seed, smallest, largest + 1, dtype=tf.int32)
        size = tf.shape(example["image"])[:2]
        scale = tf.cast(long_side, tf.float64) / tf.cast(tf.reduce_max(size), tf.float64)
        new_size = tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32)
        new_size = tf.maximum(new_size, 1)

        example = {**example, "image": resize_as_pillow(example["image"], new_size)}
        if "mask" in example:
            mask = tf.image.resize(example["mask"][:, :, None], new_size, "nearest")
            example["mask"] = mask[:, :, 0]
        return example

    return transform


def resize_as_pillow(image, size):
    """Resize uint8 [H, W, 3] to size, int32 [2], as `pillow_arithmetic.resized_bicubic` does."""
    from wsss_tf.data import pillow_arithmetic  # numba takes half a second to import

    return _uint8_image(pillow_arithmetic.resized_bicubic, image, size)


def _uint8_image(function, *inputs):
    # Without state, so that a picture nobody uses is not made.
    image = tf.numpy_function(function, inputs, tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, 3])


def random_flip(example, rng_seed):
    """Mirror image, mask and cues left to right, with probability one half."""
    is_flipped = tf.random.stateless_uniform([], rng_seed) < 0.5

    def mirrored(value):
        return tf.cond(is_flipped, lambda: tf.reverse(value, [1]), lambda: tf.identity(value))

    return {
        key: mirrored(value) if key in ("image", "mask", "cues") else value
        for key, value in example.items()
    }


def random_crop(crop_size):
    """Return the transform that cuts a random square, or places a smaller image in one at random.

    Per axis: an image longer than the square is cut at a uniform offset, a shorter one lies at a
    uniform offset between zeros (the mask between 255).
    """
    if crop_size < 1:
        raise ValueError(f"crop_size = {crop_size}; need at least 1 pixel.")

    def transform(example, rng_seed):
        size = tf.shape(example["image"])[:2]
        spare = size - crop_size
        uniform = tf.random.stateless_uniform([2], rng_seed)
        # Of |spare| + 1 equally likely offsets; the product may round up to |spare| + 1 itself.
        choices = tf.abs(spare) + 1
        offset = tf.cast(uniform * tf.cast(choices, tf.float32), tf.int32)
        offset = tf.minimum(offset, choices - 1)
        begin = tf.where(spare > 0, offset, 0)
        before = tf.where(spare < 0, offset, 0)
        after = tf.maximum(-spare, 0) - before

        def cut(value, padding):
            channels = value.shape[2:]
            value = value[begin[0] : begin[0] + crop_size, begin[1] : begin[1] + crop_size]
            paddings = tf.stack([before, after], axis=1)
            paddings = tf.pad(paddings, [[0, len(channels)], [0, 0]])
            value = tf.pad(value, paddings, constant_values=padding)
            return tf.ensure_shape(value, [crop_size, crop_size, *channels])

        example = {**example, "image": cut(example["image"], 0)}
        if "mask" in example:
            example["mask"] = cut(example["mask"], IGNORE)
        return example

    return transform


def normalize(example, rng_seed=None):
    """Turn the uint8 image into normalised float32; the seed is not used."""
    image = example["image"]
    # Rows of numbers: to broadcast three of them over pixels takes four times as long.
    height, width = tf.unstack(tf.shape(image)[:2])
    rows = tf.reshape(tf.cast(image, tf.float32), [height, 3 * width])
    mean, std = (
        tf.tile(tf.constant(of, tf.float32), [width])
        for of in (ops.IMAGENET_MEAN, ops.IMAGENET_STD)
    )
    rows = (rows / 255.0 - mean) / std
    return {**example, "image": tf.ensure_shape(tf.reshape(rows, tf.shape(image)), image.shape)}


# === Colour, on 8 bits as Pillow's ImageEnhance does it ===


def color_jitter(jitter, hue):
    """Return the transform that changes brightness, contrast, saturation and hue in random order.

    Args:
      jitter: factors are uniform in [1 - jitter, 1 + jitter]; in [0, 1].
      hue: shift uniform in [-hue, hue], in turns; in [0, 0.5].
    """
    if not (0 <= jitter <= 1 and 0 <= hue <= 0.5):
        raise ValueError(f"jitter = {jitter}, hue = {hue}: need 0 <= jitter <= 1, 0 <= hue <= 0.5.")

    def transform(example, rng_seed):
        from wsss_tf.data import pillow_arithmetic as pillow

        operations = [pillow.BRIGHTNESS, pillow.CONTRAST, pillow.SATURATION] if jitter else []
        low, spread = [1 - jitter] * len(operations), [2 * jitter] * len(operations)
        if hue:
            operations, low, spread = [*operations, pillow.HUE], [*low, -hue], [*spread, 2 * hue]
        if not operations:
            return example
        order_seed, amount_seed = tf.unstack(tf.random.split(rng_seed, num=2))
        count = len(operations)
        order = tf.argsort(tf.random.stateless_uniform([count], order_seed))
        amounts = low + tf.random.stateless_uniform([count], amount_seed) * spread
        image = _uint8_image(
            pillow.changed_colors,
            example["image"],
            tf.gather(operations, order),
            tf.gather(amounts, order),
        )
        return {**example, "image": image}

    return transform
