"""IRN's losses: AffinityNet's for the pairs of pixels, and those of their displacements.

Letters as in `wsss_tf.ops`: O pair offsets, M pixels that start a pair.
"""

import numpy as np
from keras import ops

from wsss_tf.losses import affinity
from wsss_tf.ops import pair_differences, pair_offsets

# Half for what pairs are, half for where their ends point to.
TERM_WEIGHTS = {**affinity.TERM_WEIGHTS, "dp_fg": 0.5, "dp_bg": 0.5}


def displacement_terms(displacement, kinds, radius):
    """Return the sums and counts of the errors of displacements.

    Two pixels of one class are to point to one place, so their displacements differ by the way from
    the first to the second; those of two background pixels are to be equal.

    Args:
      displacement: [B, h, w, 2], (dy, dx) in pixels of the map.
      kinds: what `losses.affinity.pair_kinds` gives for the same radius.
      radius: as in `ops.pair_values`.

    Returns:
      Dict of (total, count), both [B], for "dp_fg" and "dp_bg": the sum over both coordinates of
      the absolute errors, and how many coordinates these are. The loss is sum over the names of
      TERM_WEIGHTS * total / (count + 1e-5), counted over the global batch.

    Source: IRN (Ahn, Cho and Kwak, CVPR 2019), section 4.1; official `step/train_irn.py`.
    """
    difference = pair_differences(displacement, radius)
    way = np.float32(pair_offsets(radius)).reshape(1, -1, 1, 2)
    terms = {}
    for kind, target in (("fg", way), ("bg", 0.0)):
        error = ops.sum(ops.abs(difference - target), axis=-1)
        mask = kinds[kind]
        total, count = (ops.sum(x, axis=(1, 2)) for x in (mask * error, 2.0 * mask))
        terms[f"dp_{kind}"] = total, count
    return terms
