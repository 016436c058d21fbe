"""CAMs as 8-bit maps that give a browser the exact labels at every background threshold.

A label depends on two things: which class is strongest, and which thresholds its score exceeds. So
the 256 levels are laid between the thresholds, and where rounding makes classes equal, the one that
is not the strongest is taken a level down.
"""

import numpy as np

from wsss_tf.evaluation.threshold_sweep import strongest_class

_MAX_SIDE = 512  # pixels on the longer side; larger maps are reduced


def first_levels(thresholds):
    """Return the lowest level that exceeds each number of thresholds.

    Args:
      thresholds: float [T], ascending, in [0, 1].

    Returns:
      int [T + 1], ascending from 0: a score of level l exceeds n thresholds where
      first[n] <= l < first[n + 1]. Each number has a level; the rest are given by its share of the
      scores from 0 to 1.

    Raises:
      ValueError: more than 255 thresholds.
    """
    edges = np.concatenate([[0.0], np.asarray(thresholds, np.float64), [1.0]])
    if len(edges) > 257:
        raise ValueError(f"{len(edges) - 2} thresholds do not fit into 8 bits; at most 255 do.")
    spare = 257 - len(edges)
    counts = 1 + np.floor(spare * np.diff(edges).clip(0, 1)).astype(int)
    return np.concatenate([[0], np.cumsum(counts)[:-1]])


def level_maps(class_ids, cams, thresholds):
    """Return the levels of an image's CAMs.

    Args:
      class_ids: int [P], mask values of the classes present.
      cams: [P, h, w] in [0, 1], any float dtype; compared as float32, as in `threshold_sweep`.
      thresholds: float [T], ascending, in [0, 1].

    Returns:
      uint8 [P, h, w]. The class of the highest level, ties to the lowest mask value, is that of
      the highest score wherever a score exceeds the first threshold.
    """
    cams = np.asarray(cams, np.float32)
    first = first_levels(thresholds)
    thresholds = np.asarray(thresholds, np.float32)
    exceeded = np.searchsorted(thresholds, cams, side="left")
    edges = np.concatenate([[0.0], thresholds, [1.0]])
    size = np.append(first[1:], 256)[exceeded] - first[exceeded]
    width = np.maximum(np.diff(edges)[exceeded], 1e-9)
    within = np.floor((cams - edges[exceeded]) / width * size).clip(0, size - 1)
    levels = (first[exceeded] + within).astype(np.uint8)
    if len(class_ids) > 1:
        _, winner = strongest_class(np.asarray(class_ids), cams)
        ids = np.asarray(class_ids)[:, None, None]
        of_winner = np.max(np.where(ids == winner, levels, 0), axis=0)
        rivals = (ids < winner) & (levels == of_winner) & (levels > 0)
        levels -= rivals.astype(np.uint8)
    return levels


def reduced(maps):
    """Return maps [.., h, w] of at most 512 pixels on the longer side, by picking pixels."""
    scale = min(1.0, _MAX_SIDE / max(maps.shape[-2:]))

    def picked(side):
        count = max(1, round(side * scale))
        return ((np.arange(count) + 0.5) * side / count).astype(int)

    height, width = maps.shape[-2:]
    return maps[..., picked(height)[:, None], picked(width)]
