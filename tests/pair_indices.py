"""The pixels of all pairs on a map, in the official order."""

import numpy as np

from wsss_tf import ops


def pair_indices(height, width, radius, border=0):
    """Return the flat pixel indices of all pairs on a map: start int32 [M], end int32 [O, M].

    Args:
      height, width, radius, border: as in `random_walk.Grid`; pixels of the border are -1.
    """
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pixels = np.pad(pixels, [(0, border), (border, border)], constant_values=-1)
    margin = max(radius - 1, 0)
    rows, columns = pixels.shape[0] - margin, pixels.shape[1] - 2 * margin
    start = pixels[:rows, margin : margin + columns].ravel()
    ends = [
        pixels[dy : dy + rows, margin + dx : margin + dx + columns].ravel()
        for dy, dx in ops.pair_offsets(radius)
    ]
    return start, np.array(ends, np.int32).reshape(len(ends), len(start))
