"""Maps of a picture at another size. No TensorFlow: worker processes use it too."""

import numpy as np
from PIL import Image


def resize_maps(maps, size):
    """Resize maps bilinearly, with half-pixel centres.

    Args:
      maps: [P, h, w], any float dtype; P may be 0.
      size: (H, W).

    Returns:
      float32 [P, H, W], antialiased where that is smaller; `maps` themselves if they have the size.
    """
    if maps.shape[1:] == tuple(size):
        return maps
    resized = np.empty((len(maps), *size), np.float32)
    for i, one in enumerate(maps):
        resized[i] = _resize(one, size)
    return resized


def strongest_at(scores, size):
    """Return which map is the highest at each pixel of another size.

    Args:
      scores: [h, w, K].
      size: (H, W), as `resize_maps` brings them to; a class at a time, so memory does not grow with
        K.

    Returns:
      int64 [H, W] in 0..K-1, the lowest of equal ones.
    """
    if scores.shape[:2] == tuple(size):
        return scores.argmax(axis=-1)
    highest = np.full(size, -np.inf, np.float32)
    strongest = np.zeros(size, np.int64)
    for k in range(scores.shape[-1]):
        one = _resize(scores[..., k], size)
        is_higher = one > highest
        highest[is_higher] = one[is_higher]
        strongest[is_higher] = k
    return strongest


def _resize(one, size):
    picture = Image.fromarray(np.ascontiguousarray(one, np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
