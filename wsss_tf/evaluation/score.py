"""Score maps or masks against ground truth, wherever they come from.

Pictures come as iterables, so that those of a large split need not fit in memory together.
"""

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.evaluation.confusion import Confusion
from wsss_tf.evaluation.metrics import cam_metrics, mask_metrics
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, Sweep


def score_maps(
    examples,
    class_names,
    *,
    split=None,
    background_threshold=None,
    skipped_images=0,
    absent_as_zero=False,
):
    """Score class activation maps at every background threshold.

    Args:
      examples: iterable of (name for messages, class_ids, cams, mask), the last three as in
        `threshold_sweep.Sweep.update`.
      class_names: K distinct strings in mask order, background first.
      split, skipped_images, absent_as_zero: as in `metrics.mask_metrics`.
      background_threshold: as in `metrics.cam_metrics`; in [0, 1].

    Returns:
      dict of `metrics.cam_metrics`; None if there is no pixel whose ground truth is known.

    Raises:
      UserError: maps and mask of an example do not fit; the message begins with its name.
    """
    own = [] if background_threshold is None else [background_threshold]
    sweep = Sweep(len(class_names), np.union1d(THRESHOLDS, np.float32(own)))
    for name, class_ids, cams, mask in examples:
        count_one(name, sweep.update, class_ids, cams, mask)
    if not sweep.histogram.any():
        return None
    return cam_metrics(
        sweep,
        class_names,
        split=split,
        background_threshold=background_threshold,
        skipped_images=skipped_images,
        absent_as_zero=absent_as_zero,
    )


def score_masks(examples, class_names, *, split=None, skipped_images=0, absent_as_zero=False):
    """Score predicted masks.

    Args:
      examples: iterable of (name for messages, mask, prediction), the last two as in
        `confusion.Confusion.update`.
      class_names: K distinct strings in mask order.
      split, skipped_images, absent_as_zero: as in `metrics.mask_metrics`.

    Returns:
      dict of `metrics.mask_metrics`; None if there is no pixel whose ground truth is known.

    Raises:
      UserError: mask and prediction of an example do not fit; the message begins with its name.
    """
    confusion = Confusion(len(class_names))
    for name, mask, prediction in examples:
        count_one(name, confusion.update, mask, prediction)
    if not confusion.matrix.any():
        return None
    return mask_metrics(
        confusion.matrix,
        class_names,
        num_images=confusion.num_images,
        ignored_pixels=confusion.ignored_pixels,
        split=split,
        skipped_images=skipped_images,
        absent_as_zero=absent_as_zero,
    )


def count_one(name, update, *arrays):
    """Call `update(*arrays)` for the image of a CAM file or mask.

    Raises:
      UserError: what it is given does not fit; the message begins with the name.
    """
    try:
        update(*arrays)
    except ValueError as error:
        raise UserError(f"{name}, scored against the mask of its image: {error}") from error
