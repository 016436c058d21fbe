"""Augmentation for training on masks, on the parts of `data.transforms`.

One random decision moves image and mask together; images are 8-bit until they are normalised.
"""

import tensorflow as tf

from wsss_tf.data.transforms import color_jitter, compose, normalize, random_crop, random_flip
from wsss_tf.files import images


def deeplab_augmentation(crop_size=448, min_scale=0.5, max_scale=1.5, shift=10, flip=True):
    """Return the training augmentation of the DeepLab that SEAM's authors retrain.

    Args:
      crop_size: side of the square output, pixels; outside a smaller image lies the mean colour,
        255 in the mask.
      min_scale, max_scale: the factor on the size is uniform between them.
      shift: hue, saturation and value are shifted by integers uniform in [-shift, shift].
      flip: mirror half of the images.

    Returns:
      Function of (example, rng_seed int32 [2]) to the example with "image" float32
      [crop_size, crop_size, 3], normalised, and "mask" uint8 [crop_size, crop_size].

    Raises:
      ValueError: an argument out of range.

    Source: SEAM's authors' DeepLab, `datasets/transform.py`: OpenCV on 8-bit images.
    """
    transforms = [hsv_shift(shift)] if shift else []
    if flip:
        transforms.append(random_flip)
    transforms.append(random_scale(min_scale, max_scale, opencv=True))
    return compose(*transforms, normalize, random_crop(crop_size))


def supervised_augmentation(
    crop_size,
    min_scale=0.5,
    max_scale=2.0,
    scales=None,
    short_side=None,
    flip=True,
    jitter=0.0,
    hue=0.0,
):
    """Return the usual training augmentation of semantic segmentation.

    Args:
      crop_size: as in `deeplab_augmentation`.
      min_scale, max_scale, scales, short_side: as in `random_scale`.
      flip: mirror half of the images.
      jitter, hue: as in `data.transforms.color_jitter`; 0 for none.

    Returns:
      As `deeplab_augmentation`.

    Raises:
      ValueError: an argument out of range.
    """
    transforms = [random_scale(min_scale, max_scale, scales, short_side)]
    if flip:
        transforms.append(random_flip)
    if jitter or hue:
        transforms.append(color_jitter(jitter, hue))
    return compose(*transforms, normalize, random_crop(crop_size))


def random_scale(smallest, largest, scales=None, short_side=None, opencv=False):
    """Return the transform that resizes image and mask by a random factor.

    Args:
      smallest, largest: the factor is uniform between them.
      scales: factors to choose one from instead, all equally likely.
      short_side: factors are on this length of the short side, pixels; None for factors on the
        image's own size.
      opencv: resize the image by OpenCV's cubic filter, and take for the mask the pixel at
        floor(i * old / new), which OpenCV calls nearest. Otherwise bilinearly, and the nearest
        pixel by half-pixel centres.

    Raises:
      ValueError: an argument out of range.
    """
    if not 0 < smallest <= largest:
        raise ValueError(f"scales from {smallest} to {largest}: need 0 < smallest <= largest.")
    if scales is not None and (not scales or min(scales) <= 0):
        raise ValueError(f"scales = {scales}: need positive numbers.")
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side = {short_side}; need at least 1 pixel.")

    def transform(example, rng_seed):
        if scales is None:
            scale = tf.random.stateless_uniform([], rng_seed, smallest, largest)
        else:
            choice = tf.random.stateless_uniform([], rng_seed, 0, len(scales), dtype=tf.int32)
            scale = tf.gather(tf.constant(scales, tf.float32), choice)
        scale = tf.cast(scale, tf.float64)
        old = tf.shape(example["image"])[:2]
        if short_side is not None:
            scale *= short_side / tf.cast(tf.reduce_min(old), tf.float64)
        size = tf.maximum(tf.cast(tf.round(tf.cast(old, tf.float64) * scale), tf.int32), 1)
        return _resized(example, size, opencv)

    return transform


def _resized(example, size, opencv):
    """Return the example with image and mask at a size, int32 [2]."""
    image = example["image"]
    if opencv:
        image = images.resize_cubic(image, size)
    else:
        image = tf.image.resize(image, size, "bilinear")
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    image.set_shape([None, None, 3])
    if "mask" not in example:
        return {**example, "image": image}
    mask = example["mask"]
    if opencv:
        for axis in (0, 1):
            old = tf.cast(tf.shape(mask)[axis], tf.float64)
            position = tf.cast(tf.range(size[axis]), tf.float64)
            index = tf.cast(tf.floor(position * (old / tf.cast(size[axis], tf.float64))), tf.int32)
            mask = tf.gather(mask, tf.minimum(index, tf.shape(mask)[axis] - 1), axis=axis)
    else:
        mask = tf.image.resize(mask[:, :, None], size, "nearest")[:, :, 0]
    return {**example, "image": image, "mask": mask}


# === Colour, on 8 bits as OpenCV does it ===


def hsv_shift(largest):
    """Return the transform that shifts hue (modulo 180), saturation and value (clipped).

    Args:
      largest: the three shifts are integers uniform in [-largest, largest]; hue counts half
        degrees, the others 1/255.
    """
    if not 0 <= largest <= 90:
        raise ValueError(f"shift = {largest}: need 0 <= shift <= 90.")

    def transform(example, rng_seed):
        shift = tf.random.stateless_uniform([3], rng_seed, -largest, largest + 1, dtype=tf.int32)
        hsv = rgb_to_hsv(example["image"]) + shift
        hue = tf.math.floormod(hsv[..., :1], 180)
        hsv = tf.concat([hue, tf.clip_by_value(hsv[..., 1:], 0, 255)], axis=-1)
        return {**example, "image": hsv_to_rgb(hsv)}

    return transform


def rgb_to_hsv(image):
    """Convert uint8 [h, w, 3] to int32 [h, w, 3]: hue 0..179, saturation and value 0..255.

    In OpenCV's fixed-point arithmetic: quotients come from tables with 12 fractional bits.
    """
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    divisors = tf.maximum(tf.range(256, dtype=tf.float64), 1)
    saturation_table, hue_table = (
        tf.cast(tf.round(numerator / divisors), tf.int32) for numerator in (255 * 4096, 30 * 4096)
    )
    saturation = _rounded(chroma * tf.gather(saturation_table, value))
    hue = tf.where(
        value == red,
        green - blue,
        tf.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    hue = _rounded(hue * tf.gather(hue_table, chroma))
    return tf.stack([tf.where(hue < 0, hue + 180, hue), saturation, value], axis=-1)


def _rounded(x):
    """Drop 12 fractional bits, half up."""
    return tf.bitwise.right_shift(x + 2048, 12)


def hsv_to_rgb(hsv):
    """Convert int32 [h, w, 3], ranges as in `rgb_to_hsv`, to uint8 [h, w, 3]."""
    hue, saturation, value = tf.unstack(tf.cast(hsv, tf.float32), axis=-1)
    hue, saturation = hue / 30, saturation / 255
    # Each channel is `value` less a share of the chroma, which depends on its distance in hue.
    channels = []
    for offset in (5, 3, 1):
        k = tf.math.floormod(hue + offset, 6)
        share = tf.clip_by_value(tf.minimum(k, 4 - k), 0, 1)
        channels.append(value * (1 - saturation * share))
    return tf.cast(tf.round(tf.stack(channels, axis=-1)), tf.uint8)
