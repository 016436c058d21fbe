"""Augmentation: factories of pure functions (example, rng_seed) -> example.

A factory checks its arguments once; what it returns is stateless, traceable, and takes one random
decision for image and mask together. Images stay uint8 until `normalize`, as in the papers' code,
which works on 8-bit pictures: each colour operation rounds.
"""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.files import images
from wsss_tf.masks import IGNORE

# Pillow's luma: 16 fractional bits, rounded.
_LUMA = (19595, 38470, 7471)


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

        image = images.resize_bicubic(example["image"], new_size)
        image.set_shape([None, None, 3])
        example = {**example, "image": image}
        if "mask" in example:
            mask = tf.image.resize(example["mask"][:, :, None], new_size, "nearest")
            example["mask"] = mask[:, :, 0]
        return example

    return transform


def random_flip(example, rng_seed):
    """Mirror image, mask and cues left to right, with probability one half."""
    flipped = tf.random.stateless_uniform([], rng_seed) < 0.5

    def mirrored(value):
        columns = tf.range(tf.shape(value)[1])
        return tf.gather(value, tf.where(flipped, columns[::-1], columns), axis=1)

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
    return {**example, "image": ops.normalize_image(example["image"])}


# === Colour, on 8 bits as Pillow's ImageEnhance does it ===


def color_jitter(jitter, hue):
    """Return the transform that changes brightness, contrast, saturation and hue in random order.

    Args:
      jitter: factors are uniform in [1 - jitter, 1 + jitter]; in [0, 1].
      hue: shift uniform in [-hue, hue], in turns; in [0, 0.5].
    """
    if not (0 <= jitter <= 1 and 0 <= hue <= 0.5):
        raise ValueError(f"jitter = {jitter}, hue = {hue}: need 0 <= jitter <= 1, 0 <= hue <= 0.5.")
    operations = []
    if jitter:
        operations += [(adjust, 1 - jitter, 1 + jitter) for adjust in _ENHANCEMENTS]
    if hue:
        operations.append((adjust_hue, -hue, hue))

    def transform(example, rng_seed):
        if not operations:
            return example
        order_seed, amount_seed = tf.unstack(tf.random.split(rng_seed, num=2))
        count = len(operations)
        order = tf.argsort(tf.random.stateless_uniform([count], order_seed))
        amounts = tf.random.stateless_uniform([count], amount_seed)

        # A loop in the graph, which holds each operation once and not once for each place.
        def change(place, image):
            branches = [
                lambda adjust=adjust, low=low, high=high, i=i: adjust(
                    image, low + amounts[i] * (high - low)
                )
                for i, (adjust, low, high) in enumerate(operations)
            ]
            image = tf.switch_case(order[place], branches)
            image.set_shape([None, None, 3])
            return place + 1, image

        _, image = tf.while_loop(lambda place, _: place < count, change, [0, example["image"]])
        return {**example, "image": image}

    return transform


def adjust_brightness(image, factor):
    """Blend with black: factor 0 is black, 1 the image; uint8 [h, w, 3] in and out."""
    return _to_uint8(tf.cast(image, tf.float32) * factor)


def adjust_contrast(image, factor):
    """Blend with the mean grey of the image: factor 0 is uniform grey, 1 the image."""
    grey = _luma(image)
    # Summed as integers: a float32 sum of 768 x 768 values would be off by more than rounding.
    total = tf.reduce_sum(tf.cast(grey, tf.int64))
    mean = tf.cast(total, tf.float64) / tf.cast(tf.size(grey), tf.float64)
    return _blend(tf.floor(tf.cast(mean, tf.float32) + 0.5), image, factor)


def adjust_saturation(image, factor):
    """Blend with the image in grey: factor 0 is grey, 1 the image."""
    return _blend(_luma(image)[:, :, None], image, factor)


_ENHANCEMENTS = (adjust_brightness, adjust_contrast, adjust_saturation)


def adjust_hue(image, shift):
    """Turn the hue of every pixel on Pillow's 8-bit HSV scale, as torchvision does for PIL images.

    Args:
      image: uint8 [h, w, 3].
      shift: scalar in [-0.5, 0.5], turns.

    Returns:
      uint8 [h, w, 3]. Even a shift of 0 changes colours a little, because HSV has 8 bits.
    """
    red, green, blue = tf.unstack(tf.cast(image, tf.float32), axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # Differences of quotients and a modulus in float64, as in Pillow's C: hues on a boundary of the
    # 8-bit scale (there are many) fall on the same side.
    divisor = tf.maximum(chroma, 1.0)
    red_part, green_part, blue_part = [
        tf.cast((value - channel) / divisor, tf.float64) for channel in (red, green, blue)
    ]
    sector = tf.where(
        red == value,
        blue_part - green_part,
        tf.where(green == value, 2 + red_part - blue_part, 4 + green_part - red_part),
    )
    # `tf.math.floormod` would give the same numbers, more slowly.
    turns = tf.cast(tf.cast(sector, tf.float32), tf.float64) / 6 + 1
    hue = tf.cast(turns - tf.floor(turns), tf.float32)
    hue = tf.where(chroma == 0, 0.0, tf.floor(hue * 255.0))
    saturation = tf.floor(chroma / tf.maximum(value, 1.0) * 255.0) / 255.0

    steps = tf.cast(tf.cast(shift * 255.0, tf.int32), tf.float32)  # the cast cuts towards zero
    hue = hue + steps
    turned = (hue - 256.0 * tf.floor(hue / 256.0)) * 6.0 / 255.0
    whole = tf.floor(turned)
    fraction = turned - whole
    # Hue 255 is a whole turn and a little, so the sectors run from 0 to 6.
    sector = tf.where(whole == 6.0, 0.0, whole)
    low = _half_up(value * (1.0 - saturation))
    # Between two sectors of a channel at its highest and two at its lowest it rises or falls: in
    # even sectors one rises, in odd ones one falls.
    is_odd = sector - 2.0 * tf.floor(sector / 2.0) == 1.0
    between = _half_up(value * (1.0 - saturation * tf.where(is_odd, fraction, 1.0 - fraction)))

    def channel(is_high, is_low):
        return tf.where(is_high, value, tf.where(is_low, low, between))

    to_red, to_green, to_blue = (tf.abs(sector - middle) for middle in (2.5, 1.5, 3.5))
    red = channel(to_red > 2.0, to_red < 1.0)
    green = channel(to_green < 1.0, to_green > 2.0)
    blue = channel(to_blue < 1.0, to_blue > 2.0)
    return _to_uint8(tf.stack([red, green, blue], axis=-1))


def _half_up(x):
    return tf.floor(x + 0.5)


def _luma(image):
    # Whole numbers below 2^24, which float32 holds exactly.
    weighted = tf.linalg.matvec(tf.cast(image, tf.float32), tf.constant(_LUMA, tf.float32))
    return tf.floor((weighted + 32768.0) / 65536.0)


def _blend(base, image, factor):
    """Return base + factor * (image - base), cut to whole numbers as Pillow's blend does."""
    return _to_uint8(base + factor * (tf.cast(image, tf.float32) - base))


def _to_uint8(x):
    """Clip to 0..255 and drop the fraction."""
    return tf.cast(tf.clip_by_value(x, 0.0, 255.0), tf.uint8)
