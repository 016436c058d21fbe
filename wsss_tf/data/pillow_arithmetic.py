"""Pillow's 8-bit arithmetic, compiled by numba: results are Pillow's, bit for bit. No TensorFlow.

What TensorFlow's operations say of it goes over float32 maps, once for every sum and product: of
one picture more work than Pillow's. These go over bytes, once for every change, in less time than
Pillow itself.

Source: Pillow, `src/libImaging/Resample.c`, `Blend.c`, `Convert.c`, and `ImageEnhance.py`.
"""

import numpy as np

from wsss_tf.compiled import compiled

# What `changed_colors` can do.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_WEIGHT_BITS = 22
# Pixels that are taken apart into channels at a time: loops over one channel are vectorised.
_CHUNK = 256


# === Resizing ===


@compiled
def resized_bicubic(picture, size):
    """Resize by `Image.resize(..., Image.Resampling.BICUBIC)`: the width first, then the height.

    Pillow 13 may begin with the height, which gives slightly other values; 12 and earlier do not.

    Args:
      picture: uint8 [H, W, 3].
      size: (height, width), integers [2].

    Returns:
      uint8 [height, width, 3].
    """
    old_height, old_width = picture.shape[:2]
    height, width = size
    result = picture
    if width != old_width:
        # Columns are made rows, since the loop over numbers side by side is the fast one.
        columns = _transposed(picture).reshape(old_width, old_height * 3)
        columns = _resized_rows(columns, width).reshape(width, old_height, 3)
        result = _transposed(columns)
    if height != old_height:
        rows = _resized_rows(result.reshape(old_height, width * 3), height)
        result = rows.reshape(height, width, 3)
    return result


@compiled
def _transposed(picture):
    """Return uint8 [W, H, 3] of [H, W, 3], in strips that stay in the cache."""
    height, width = picture.shape[:2]
    result = np.empty((width, height, 3), np.uint8)
    for top in range(0, height, 16):
        for j in range(width):
            for i in range(top, min(top + 16, height)):
                for k in range(3):
                    result[j, i, k] = picture[i, j, k]
    return result


@compiled
def _resized_rows(rows, length):
    """Return uint8 [length, M], weighted sums of the rows of uint8 [N, M]."""
    result = np.empty((length, rows.shape[1]), np.uint8)
    total = np.empty(rows.shape[1], np.int32)
    weights = np.empty(rows.shape[0])
    scale = rows.shape[0] / length
    filter_scale = max(scale, 1.0)
    support = 2.0 * filter_scale
    for i in range(length):
        center = (i + 0.5) * scale
        begin = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), rows.shape[0])
        sum_of_weights = 0.0
        for tap in range(begin, end):
            weights[tap] = _bicubic((tap - center + 0.5) * (1.0 / filter_scale))
            sum_of_weights += weights[tap]
        total[:] = 1 << (_WEIGHT_BITS - 1)
        for tap in range(begin, end):
            weight = weights[tap] / sum_of_weights * (1 << _WEIGHT_BITS)
            weight = np.int32(weight - 0.5 if weight < 0 else weight + 0.5)
            for j in range(total.size):
                total[j] += weight * rows[tap, j]
        for j in range(total.size):
            result[i, j] = min(max(total[j] >> _WEIGHT_BITS, 0), 255)
    return result


@compiled
def _bicubic(x):
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


# === Colours ===


@compiled
def changed_colors(picture, operations, amounts):
    """Change colours, one operation after the other.

    Args:
      picture: uint8 [h, w, 3].
      operations: integers [n]: BRIGHTNESS, CONTRAST and SATURATION blend with black, with the mean
        grey, and with the picture in grey, as `ImageEnhance`'s Brightness, Contrast and Color do;
        HUE turns the hue on Pillow's 8-bit HSV scale, as torchvision does for PIL images. Even a
        turn of 0 changes colours a little.
      amounts: float32 [n]: factors, 1 leaves the picture as it is; of HUE turns, in [-0.5, 0.5].

    Returns:
      uint8 [h, w, 3].
    """
    result = picture.copy()
    pixels = result.reshape(-1, 3)
    for operation, amount in zip(operations, amounts):
        if operation == BRIGHTNESS:
            _blend(pixels, np.float32(0), amount)
        elif operation == CONTRAST:
            _blend(pixels, _mean_grey(pixels), amount)
        elif operation == SATURATION:
            _saturate(pixels, amount)
        else:
            _turn_hue(pixels, np.int32(amount * np.float32(255)))  # cut towards zero
    return result


@compiled
def _blend(pixels, base, factor):
    values = pixels.reshape(-1)
    for i in range(len(values)):
        values[i] = _blended(base, np.float32(values[i]), factor)


@compiled
def _blended(base, value, factor):
    blended = base + factor * (value - base)
    return np.uint8(min(max(blended, np.float32(0)), np.float32(255)))


@compiled
def _mean_grey(pixels):
    total = 0
    for i in range(len(pixels)):
        total += _luma(pixels[i, 0], pixels[i, 1], pixels[i, 2])
    return np.float32(int(total / len(pixels) + 0.5))


@compiled
def _saturate(pixels, factor):
    channels, grey = np.zeros((3, _CHUNK), np.uint8), np.empty(_CHUNK, np.float32)
    for start in range(0, len(pixels), _CHUNK):
        chunk = pixels[start : start + _CHUNK]
        _take_apart(chunk, channels)
        for i in range(_CHUNK):
            grey[i] = _luma(channels[0, i], channels[1, i], channels[2, i])
        for k in range(3):
            for i in range(_CHUNK):
                channels[k, i] = _blended(grey[i], np.float32(channels[k, i]), factor)
        _put_together(channels, chunk)


@compiled
def _take_apart(chunk, channels):
    for i in range(len(chunk)):
        for k in range(3):
            channels[k, i] = chunk[i, k]


@compiled
def _put_together(channels, chunk):
    for i in range(len(chunk)):
        for k in range(3):
            chunk[i, k] = channels[k, i]


@compiled
def _luma(red, green, blue):
    return (np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@compiled
def _turn_hue(pixels, steps):
    channels = np.zeros((3, _CHUNK), np.uint8)
    hue, saturation = np.empty(_CHUNK, np.int32), np.empty(_CHUNK, np.float32)
    value = np.empty(_CHUNK, np.float64)
    for start in range(0, len(pixels), _CHUNK):
        chunk = pixels[start : start + _CHUNK]
        _take_apart(chunk, channels)
        _to_hsv(channels[0], channels[1], channels[2], hue, saturation, value)
        for k in range(3):
            share, channel = _SHARES[k], channels[k]
            for i in range(_CHUNK):
                low = value[i] * (1.0 - np.float64(saturation[i] * share[(hue[i] + steps) & 255]))
                channel[i] = np.int32(low + 0.5)
        _put_together(channels, chunk)


@compiled
def _to_hsv(red, green, blue, hue, saturation, value):
    """Write hue in 0..255, saturation in [0, 1] and value in 0..255 of `_CHUNK` pixels."""
    for i in range(_CHUNK):
        r, g, b = np.int32(red[i]), np.int32(green[i]), np.int32(blue[i])
        highest = max(r, max(g, b))
        chroma = highest - min(r, min(g, b))
        # float32 and float64 where Pillow has them: hues on a boundary of the 8-bit scale (there
        # are many) fall on the same side.
        divisor = np.float32(max(chroma, 1))
        red_part = np.float32(highest - r) / divisor
        green_part = np.float32(highest - g) / divisor
        blue_part = np.float32(highest - b) / divisor
        of_red = np.float32(blue_part - green_part)
        of_green = np.float32(2.0 + np.float64(red_part) - np.float64(blue_part))
        of_blue = np.float32(4.0 + np.float64(green_part) - np.float64(red_part))
        # Values, not branches, so that the loop is vectorised.
        sector = of_red if r == highest else (of_green if g == highest else of_blue)
        turns = np.float64(sector) / 6.0 + 1.0
        turns = turns - 1.0 if turns >= 1.0 else turns
        eighth_bits = np.int32(np.float64(np.float32(turns)) * 255.0)
        hue[i] = eighth_bits if chroma > 0 else np.int32(0)
        share = np.float32(chroma) / np.float32(max(highest, 1))
        saturation[i] = np.float32(np.int32(np.float64(share) * 255.0)) / np.float32(255)
        value[i] = highest


def _shares():
    """Return float32 [3, 256]: how far saturation lowers each channel, by the hue, in [0, 1]."""
    turns = np.arange(256) * 6.0 / 255.0
    sector = np.floor(turns).astype(int)
    part, one, zero = turns - sector, np.ones(256), np.zeros(256)
    # Between two sectors of a channel at its highest and two at its lowest it falls or rises.
    of_red = [zero, part, one, one, 1.0 - part, zero]
    channels = [of_red, of_red[-2:] + of_red[:-2], of_red[-4:] + of_red[:-4]]
    # Hue 255 is a whole turn, in the first sector again.
    return np.stack([np.choose(sector % 6, of) for of in channels]).astype(np.float32)


_SHARES = _shares()
