"""IRN's last layer: pixels belong together unless a class boundary lies between them."""

import functools

import keras
import numpy as np
from keras import ops

from wsss_tf.layers.pair_affinity import PairAffinity
from wsss_tf.ops import pair_offsets

# Paths whose lengths differ by less than this go through one loop: a graph has a few loops over
# paths, and not a maximum for each pixel of each, which would take a minute to build.
_LENGTH_STEP = 6


def path_pixels(dy, dx):
    """Return the pixels of the path between the two pixels of a pair.

    Args:
      dy, dx: offset from the first pixel to the second.

    Returns:
      List of (y, x) relative to the first: all pixels of the box that the two span which are closer
      than one pixel to the line through them, both ends included; far ones first (by |y| + |x|,
      then y, then x), the first pixel itself last.
    """
    box = [(y, x * (1 if dx >= 0 else -1)) for y in range(dy + 1) for x in range(abs(dx) + 1)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy**2 + dx**2]
    return sorted(near, key=lambda pixel: (-pixel[0] - abs(pixel[1]), pixel))


def path_affinity(boundary, radius):
    """Return one minus the largest boundary on the path between the two pixels of every pair.

    Args:
      boundary: [B, h, w] in [0, 1], how much a pixel looks like a class boundary.
      radius: pixels of the map, h >= radius and w >= 2 radius - 1.

    Returns:
      float32 [B, O, M] in [0, 1], pairs as in `ops.pair_values`. Gradient flows into the largest
      pixel of a path only, the first of equal ones in the order of `path_pixels`.

    Memory: the map once for each pixel of the search box (190 at radius 10), the result, and the
    windows of a path at a time; in the gradient one int32 a pair. (All path pixels at once would be
    2134 values for each pixel of the map.)
    Source: IRN (Ahn, Cho and Kwak, CVPR 2019), section 4.2.
    """
    boundary = ops.cast(boundary, "float32")
    count = len(pair_offsets(radius))
    batch, height, width = ops.shape(boundary)
    if not count:
        return ops.zeros((batch, 0, height * width))
    margin = radius - 1
    rows, columns = height - margin, width - 2 * margin
    pixels, groups, order = _paths(radius)

    def windows(maps):
        corners = [(y, x + margin) for y, x in pixels]
        return ops.stack([maps[:, y : y + rows, x : x + columns] for y, x in corners])

    @ops.custom_gradient
    def largest_of(maps):
        shifted = windows(maps)

        def largest(path):
            return ops.max(ops.take(shifted, path, axis=0), axis=0)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            # The place on the maps of the pixel that starts a pair, and from there of each other.
            pictures = ops.arange(batch, dtype="int32")[:, None, None] * (height * width)
            down = ops.arange(rows, dtype="int32")[:, None] * width + margin
            start = pictures + down + ops.arange(columns, dtype="int32")
            down, across = np.int32(pixels).T
            shift = ops.convert_to_tensor(down) * width + across
            total = 0.0
            for paths, numbers in groups:
                length = paths.shape[1]
                rank = np.arange(length, 0, -1, dtype=np.uint8)[:, None, None, None]

                def place_of_largest(path, length=length, rank=rank):
                    values = ops.take(shifted, path, axis=0)
                    is_largest = values == ops.max(values, axis=0)
                    first = ops.max(ops.where(is_largest, rank, np.uint8(0)), axis=0)
                    number = length - ops.cast(first, "int32")
                    return start + ops.take(ops.take(shift, path), number)

                # Its upstream gradient, summed over the pairs that have a pixel as their largest.
                places = ops.map(place_of_largest, ops.convert_to_tensor(paths))
                total += ops.segment_sum(
                    ops.reshape(ops.take(upstream, numbers, axis=0), (-1,)),
                    ops.reshape(places, (-1,)),
                    num_segments=batch * height * width,
                )
            return ops.reshape(total, (batch, height, width))

        found = [ops.map(largest, ops.convert_to_tensor(paths)) for paths, _ in groups]
        return ops.take(ops.concatenate(found), order, axis=0), gradient

    affinity = ops.transpose(1.0 - largest_of(boundary), (1, 0, 2, 3))
    return ops.reshape(affinity, (batch, count, -1))


@functools.cache
def _paths(radius):
    """Return the paths of all pairs, those of similar length together, and where each one is.

    Returns:
      List of the pixels (y, x) that are on any path. List of (int32 [paths, length], int32 [paths])
      for each loop: which of these pixels are on a path, the last one of shorter paths several
      times, and which of `ops.pair_offsets` it is of. And int32 [O], the places of these among all.
    """
    paths = [path_pixels(*offset) for offset in pair_offsets(radius)]
    pixels = sorted({pixel for path in paths for pixel in path})
    number_of = {pixel: number for number, pixel in enumerate(pixels)}
    by_length = {}
    for number, path in enumerate(paths):
        by_length.setdefault(-(-len(path) // _LENGTH_STEP), []).append(number)
    groups, order = [], []
    for _, numbers in sorted(by_length.items()):
        longest = max(len(paths[n]) for n in numbers)
        padded = [paths[n] + paths[n][-1:] * (longest - len(paths[n])) for n in numbers]
        on_path = np.int32([[number_of[pixel] for pixel in path] for path in padded])
        groups.append((on_path, np.int32(numbers)))
        order += numbers
    return pixels, groups, np.argsort(order).astype(np.int32)


@keras.saving.register_keras_serializable("wsss_tf")
class PathAffinity(PairAffinity):
    """Affinities of the pairs of pixels within a radius, from a map of class boundaries.

    It has no weights: it is a layer so that a network knows how it was trained.

    Args:
      radius: pixels of the map in training; maps under 2 radius + 1 pixels have a smaller one,
        `ops.search_radius`.
      crop_size: side of the pictures in training, pixels.

    Call: logits of boundaries [B, h, w, 1] to float32 [B, O, M] in [0, 1], `path_affinity` of their
    sigmoid; `radius` as in `PairAffinity`.

        affinity = PathAffinity(10, name="affinity")(edge_logits)
    """

    def __init__(self, radius=10, crop_size=512, **kwargs):
        super().__init__(radius, **kwargs)
        self.crop_size = crop_size

    def call(self, edge_logits, radius=None):
        edge_logits = ops.cast(edge_logits, "float32")
        radius = self._radius(edge_logits, radius)
        return path_affinity(ops.sigmoid(edge_logits[..., 0]), radius)

    def get_config(self):
        return {**super().get_config(), "crop_size": self.crop_size}
