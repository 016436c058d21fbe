"""The background threshold of class activation maps, chosen by some masks or by colours.

With masks, how sure the choice is follows from bootstrapping over the pictures: as many pictures
drawn with replacement, some hundred times, and what each drawing would have given.

Without masks, it is the threshold whose foreground tells most of a pixel's colour: objects have
other colours than what is around them, and a border in the wrong place mixes the two. gin/results/
photos.md says how much that loses.
"""

import dataclasses

import numpy as np

from wsss_tf.evaluation.confusion import mean_iou
from wsss_tf.evaluation.score import count_one
from wsss_tf.evaluation.threshold_sweep import Sweep, confusions, strongest_class

# What is chosen from, with masks and without.
_BY_MASKS = np.arange(1, 96) / 100
_BY_COLOURS = np.arange(2, 45) / 50
# Of each colour channel; with more, few pixels of a picture share a colour.
_COLOUR_BITS = 3
# How much a foreground is held against its own entropy. With 0 it tends to half of the picture,
# with 1 (the share of the entropy that colours explain) to single pixels.
_ENTROPY_POWER = 0.25

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
        sweep = Sweep(len(class_names), _BY_MASKS)
        count_one(name, sweep.update, class_ids, cams, mask)
        if sweep.histogram.any():
            histograms.append(sweep.histogram)
    if not histograms:
        return None
    total = sum(histograms)
    mious = mean_iou(confusions(total))
    best = int(np.argmax(mious))
    drawn = _drawn_mious(np.stack(histograms), seed)
    return ChosenByMasks(
        threshold=float(_BY_MASKS[best]),
        miou=float(mious[best]),
        num_images=len(histograms),
        miou_interval=_middle(drawn[:, best]),
        threshold_interval=_middle(_BY_MASKS[np.argmax(drawn, axis=1)]),
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


def choose_by_colours(examples):
    """Choose the threshold from the pictures and their maps.

    The score of a threshold is the mean over pictures of I / H^0.25: I is the mutual information
    between a pixel's colour (3 bits a channel) and whether it is foreground, H the entropy of the
    latter. The criterion is ours.

    Args:
      examples: iterable of (image uint8 [h, w, 3], class_ids int [P], cams [P, h, w]).

    Returns:
      (threshold, number of pictures); None if no picture has a class.
    """
    total, count = np.zeros(len(_BY_COLOURS)), 0
    for image, class_ids, cams in examples:
        if len(class_ids):
            total += _told_by_colour(image, strongest_class(np.asarray(class_ids), cams)[0])
            count += 1
    return (float(_BY_COLOURS[np.argmax(total)]), count) if count else None


def _told_by_colour(image, strongest):
    """Return the score of each threshold for one picture, float64 [T]."""
    channels = image.reshape(-1, 3).astype(np.int64) >> (8 - _COLOUR_BITS)
    colour = (channels << (_COLOUR_BITS * np.arange(3))).sum(axis=1)
    exceeded = np.searchsorted(_BY_COLOURS.astype(np.float32), strongest.ravel(), side="left")
    levels, colours = len(_BY_COLOURS) + 1, 1 << (3 * _COLOUR_BITS)
    pixels = np.bincount(colour * levels + exceeded, minlength=colours * levels)
    pixels = pixels.reshape(colours, levels) / colour.size
    foreground = np.cumsum(pixels[:, :0:-1], axis=1)[:, ::-1]
    background = pixels.sum(axis=1, keepdims=True) - foreground
    of_foreground = _entropy(np.stack([foreground.sum(axis=0), background.sum(axis=0)]))
    of_colour = _entropy(pixels.sum(axis=1, keepdims=True))
    information = of_foreground + of_colour - _entropy(np.concatenate([foreground, background]))
    power = np.maximum(of_foreground, 1e-12) ** _ENTROPY_POWER
    return np.where(of_foreground > 0, information / power, 0)


def _entropy(shares):
    """Return the entropy, bits, over the first axis."""
    shares = np.maximum(shares, 0)  # differences of sums may be a rounding below
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=0)
