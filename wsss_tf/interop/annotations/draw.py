"""Index masks from the shapes of a picture."""

import numpy as np

from wsss_tf.masks import IGNORE


def draw_mask(shapes, size, values, is_relative=False, largest_first=False):
    """Draw shapes, later ones on earlier ones.

    A pixel belongs to a polygon if its centre lies inside: where the border is crossed an odd
    number of times on the way to it.

    Args:
      shapes: list of `record.Shape`, each with pixels.
      size: (h, w) of the picture.
      values: {class name: mask value}; what has no class name is `IGNORE`.
      is_relative: points are fractions of width and height.
      largest_first: small shapes are drawn on large ones, whatever their order.

    Returns:
      uint8 [h, w], and the number of shapes without a single pixel.
    """
    scale = np.array(size[::-1]) if is_relative else np.ones(2)
    pieces = []
    for shape in shapes:
        if shape.bitmap is not None:
            parts = [shape.bitmap(size)]
        else:
            parts = [_polygon_bitmap(points * scale, size) for points in shape.polygons]
        area = sum(int(bitmap.sum()) for _, _, bitmap in parts)
        value = IGNORE if shape.class_name is None else values[shape.class_name]
        pieces.append((area, value, parts))
    if largest_first:
        pieces.sort(key=lambda piece: -piece[0])
    mask = np.zeros(size, np.uint8)
    for _, value, parts in pieces:
        for top, left, bitmap in parts:
            height, width = bitmap.shape
            mask[top : top + height, left : left + width][bitmap] = value
    return mask, sum(not area for area, _, _ in pieces)


def _polygon_bitmap(points, size):
    """Return (top, left, bool [h', w']) of a polygon, float [n, 2] of x, y, cut to the picture."""
    # Pixel i has its centre at i + 0.5, so that these are the first centres not left of a border.
    first = np.ceil(points - 0.5).astype(int)
    limits = size[::-1]
    left, top = np.clip(first.min(0), 0, limits)
    right, bottom = np.clip(first.max(0), 0, limits)
    toggles = np.zeros([bottom - top, right - left + 1], bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
        begin, end = (np.clip(np.ceil(y - 0.5), top, bottom).astype(int) for y in sorted((y0, y1)))
        if begin == end:
            continue
        rows = np.arange(begin, end)
        crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(int)
        toggles[rows - top, columns - left] ^= True
    inside = np.logical_xor.accumulate(toggles, 1)[:, :-1]
    return top, left, inside
