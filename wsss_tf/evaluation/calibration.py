"""The background threshold of class activation maps, chosen from some masks.

How sure the choice is follows from bootstrapping over the pictures: as many pictures drawn with
replacement, some hundred times, and what each drawing would have given.
"""

import dataclasses

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.evaluation.confusion import mean_iou
from wsss_tf.evaluation.threshold_sweep import Sweep, confusions

DRAWINGS = 400
# Drawings whose confusion matrices are in memory together.
_PART = 20


@dataclasses.dataclass(frozen=True)
class ChosenByMasks:
    """The best threshold on some pictures.

    Attributes:
      threshold: the one of the highest mean IoU.
      miou: mean IoU there, 0..1, of the classes that the masks or predictions show.
      num_images: pictures with a mask that counted.
      miou_interval: (low, high) that 95 % of the drawings' mean IoUs at that threshold lie in.
      threshold_interval: likewise of the drawings' own best thresholds.
      missing_classes: names that no mask shows.
    """

    threshold: float
    miou: float
    num_images: int
    miou_interval: tuple
    threshold_interval: tuple
    missing_classes: tuple


def choose_by_masks(examples, class_names, seed=0):
    """Choose the threshold from pictures whose masks are known.

    Args:
      examples: iterable of (name for messages, class_ids, cams, mask) as `score.score_maps` takes.
      class_names: K strings in mask order, background first.
      seed: of the drawings.

    Returns:
      `ChosenByMasks`; None if there is no pixel whose truth is known.

    Raises:
      UserError: maps and mask of an example do not fit; the message begins with its name.
    """
    histograms = []
    for name, class_ids, cams, mask in examples:
        sweep = Sweep(len(class_names))
        try:
            sweep.update(class_ids, cams, mask)
        except ValueError as error:
            raise UserError(f"{name}, compared with the mask of its image: {error}") from error
        if sweep.histogram.any():
            histograms.append(sweep.histogram)
    if not histograms:
        return None
    thresholds = np.round(sweep.thresholds.astype(np.float64), 6)
    total = sum(histograms)
    mious = mean_iou(confusions(total))
    best = int(np.argmax(mious))
    drawn = _drawn_mious(np.stack(histograms), seed)
    return ChosenByMasks(
        threshold=float(thresholds[best]),
        miou=float(mious[best]),
        num_images=len(histograms),
        miou_interval=_middle(drawn[:, best]),
        threshold_interval=_middle(thresholds[np.argmax(drawn, axis=1)]),
        missing_classes=tuple(
            name for name, pixels in zip(class_names, total.sum(axis=(1, 2))) if not pixels
        ),
    )


def _drawn_mious(histograms, seed):
    """Return the mean IoU of each drawing at each threshold, float64 [drawings, T]."""
    count = len(histograms)
    shape, flat = histograms.shape[1:], histograms.reshape(count, -1).astype(np.float64)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWINGS)
    return np.concatenate(
        [
            mean_iou(confusions((part @ flat).reshape(-1, *shape)))
            for part in np.split(draws, DRAWINGS // _PART)
        ]
    )


def _middle(values):
    low, high = np.percentile(values, [2.5, 97.5], method="nearest")
    return float(low), float(high)
