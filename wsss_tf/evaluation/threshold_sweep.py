"""Score CAMs at every background threshold in one pass over the images.

At threshold t the prediction is the argmax over [t, maps]: background where the strongest map m
does not exceed t (ties go to the lower index, the background), else the class of m. So a pixel
changes once, from its strongest class to background, and it is enough to count, jointly with ground
truth and strongest class, how many thresholds lie below m. One `bincount` an image does that; the
confusion matrices of all thresholds are cumulative sums of the counts.

Source: SEAM (Wang et al., CVPR 2020), official `evaluation.py`, one pass over the data a threshold.
"""

import dataclasses

import numpy as np

from wsss_tf.evaluation.confusion import (
    check_mask_values,
    check_same_size,
    class_iou,
    false_negatives,
    false_positives,
    mean_iou,
    true_positives,
)
from wsss_tf.masks import IGNORE

# The official script fills a float32 map with i / 100, so comparisons are between float32 numbers.
THRESHOLDS = (np.arange(60) / 100).astype(np.float32)


def label_pixels(class_ids, cams, background_threshold):
    """Return the prediction at one threshold, uint8 [h, w] of mask values.

    Args:
      class_ids: int [P], mask values of the classes present.
      cams: [P, h, w], any float dtype; compared as float32.
      background_threshold: the score that a pixel must exceed to be foreground.
    """
    strongest, winner = strongest_class(np.asarray(class_ids), np.asarray(cams))
    foreground = strongest > np.float32(background_threshold)
    return np.where(foreground, winner, 0).astype(np.uint8)


def strongest_class(class_ids, cams):
    """Return the highest score per pixel, float32 [h, w], and its class; ties to the lowest."""
    if len(class_ids) == 0:
        return np.zeros(cams.shape[1:], np.float32), np.zeros(cams.shape[1:], np.int64)
    order = np.argsort(class_ids)
    cams = cams.astype(np.float32)[order]
    position = np.argmax(cams, axis=0)
    strongest = np.take_along_axis(cams, position[None], axis=0)[0]
    return strongest, class_ids[order].astype(np.int64)[position]


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The scores at each of T background thresholds.

    Attributes:
      class_names: the K names, background first.
      thresholds: float64 [T], ascending.
      confusion: int64 [T, K, K].
      iou: float64 [T, K]; NaN for a class in neither masks nor predictions at that threshold.
      miou: float64 [T].
      mfn, mfp: float64 [T], the means over foreground classes of FN/TP (under-activation) and of
        FP/TP (over-activation); lower is better. A class without a true positive has no such
        ratio and is left out; NaN if that leaves none. SEAM, figure 6.
      without_hits: per threshold, the names of the classes so left out (those that occur at all).
      best: index of the highest miou; the lowest of equal ones.
    """

    class_names: tuple
    thresholds: np.ndarray
    confusion: np.ndarray
    iou: np.ndarray
    miou: np.ndarray
    mfn: np.ndarray
    mfp: np.ndarray
    without_hits: tuple
    best: int


class Sweep:
    """Counts from which the confusion matrix at every threshold follows; mergeable.

    Args:
      num_classes: K, background included.
      thresholds: float [T], ascending, not negative (classes that are absent score 0).

    Attributes:
      histogram: int64 [K, K, T + 1]: pixels by ground truth, strongest class, and the number of
        thresholds that the strongest score exceeds. 8·K²·(T + 1) bytes: 215 kB for VOC.
      ignored_pixels: pixels whose ground truth is 255, which count nowhere else.
      num_images: number of updates.

    Example:
      >>> sweep = Sweep(num_classes=3)
      >>> sweep.update([2], np.array([[[0.0, 0.3]]]), np.array([[0, 2]]))
      >>> sweep.result(["background", "cat", "dog"]).miou[[0, 30]]
      array([1.  , 0.25])
    """

    def __init__(self, num_classes, thresholds=THRESHOLDS):
        self.thresholds = np.asarray(thresholds, np.float32)
        if (
            self.thresholds.size == 0
            or self.thresholds[0] < 0
            or (np.diff(self.thresholds) <= 0).any()
        ):
            raise ValueError(f"thresholds must ascend from 0 or above, got {self.thresholds}.")
        self.num_classes = num_classes
        self.histogram = np.zeros((num_classes, num_classes, self.thresholds.size + 1), np.int64)
        self.ignored_pixels = 0
        self.num_images = 0

    def update(self, class_ids, cams, mask):
        """Count one image.

        Args:
          class_ids: int [P], distinct mask values 1..K-1 of the classes present; P may be 0.
          cams: [P, h, w] scores, any float dtype; compared as float32.
          mask: ground truth, integers [h, w]: 0..K-1 and 255.

        Raises:
          ValueError: sizes that differ, a class or mask value out of range, a NaN.
        """
        class_ids, cams, mask = np.asarray(class_ids), np.asarray(cams), np.asarray(mask)
        self._check(class_ids, cams, mask)
        strongest, winner = strongest_class(class_ids, cams)
        valid = mask != IGNORE
        exceeded = np.searchsorted(self.thresholds, strongest[valid], side="left")
        shape = self.histogram.shape
        flat = np.ravel_multi_index((mask[valid].astype(np.int64), winner[valid], exceeded), shape)
        self.histogram += np.bincount(flat, minlength=self.histogram.size).reshape(shape)
        self.ignored_pixels += int(mask.size - flat.size)
        self.num_images += 1

    def _check(self, class_ids, cams, mask):
        if cams.ndim != 3 or class_ids.shape != cams.shape[:1]:
            raise ValueError(f"class_ids {class_ids.shape} and cams {cams.shape} do not match.")
        check_same_size(mask, cams.shape[1:])
        check_mask_values(mask, self.num_classes)
        if np.unique(class_ids).size != class_ids.size:
            raise ValueError(f"a class occurs twice in class_ids {class_ids.tolist()}.")
        if class_ids.size and not (class_ids.min() >= 1 and class_ids.max() < self.num_classes):
            raise ValueError(
                f"class_ids {class_ids.tolist()} are not all in 1..{self.num_classes - 1}."
            )
        # A NaN would sort above every threshold and pass for a confident foreground pixel.
        if np.isnan(cams).any():
            raise ValueError("the CAMs contain NaN.")

    def merge(self, other):
        """Add the counts of another `Sweep` over the same classes and thresholds.

        Raises:
          ValueError: classes or thresholds differ.
        """
        if other.num_classes != self.num_classes or not np.array_equal(
            other.thresholds, self.thresholds
        ):
            raise ValueError("sweeps over other classes or thresholds cannot be merged.")
        self.histogram += other.histogram
        self.ignored_pixels += other.ignored_pixels
        self.num_images += other.num_images

    def confusion(self):
        """Return the confusion matrix at every threshold, int64 [T, K, K]."""
        return confusions(self.histogram)

    def result(self, class_names, absent_as_zero=False, thresholds=None):
        """Return the `SweepResult`.

        Args:
          class_names: K strings, background first.
          absent_as_zero: as in `confusion.mean_iou`.
          thresholds: report only these of the sweep's thresholds; None for all.

        Raises:
          ValueError: K names are not given, a threshold was not swept, or no pixel was counted.
        """
        if len(class_names) != self.num_classes:
            raise ValueError(f"{len(class_names)} names for {self.num_classes} classes.")
        chosen = self.thresholds if thresholds is None else np.asarray(thresholds, np.float32)
        if not np.isin(chosen, self.thresholds).all():
            raise ValueError(f"thresholds {chosen} are not all among those swept.")
        confusion = self.confusion()[np.searchsorted(self.thresholds, chosen)]
        miou = mean_iou(confusion, absent_as_zero)
        hit = true_positives(confusion)[:, 1:]
        missed, wrong = false_negatives(confusion)[:, 1:], false_positives(confusion)[:, 1:]
        no_hits = (hit == 0) & (missed + wrong > 0)
        return SweepResult(
            class_names=tuple(class_names),
            # 0.26, not the 0.25999999046 that its float32 form would print as.
            thresholds=np.round(chosen.astype(np.float64), 6),
            confusion=confusion,
            iou=class_iou(confusion),
            miou=miou,
            mfn=_mean_ratio(missed, hit),
            mfp=_mean_ratio(wrong, hit),
            without_hits=tuple(
                tuple(np.array(class_names[1:], object)[row].tolist()) for row in no_hits
            ),
            best=int(np.argmax(miou)),
        )


def confusions(histogram):
    """Return the confusion matrices at every threshold of histograms as `Sweep` has one.

    Args:
      histogram: [..., K, K, T + 1], of any number type.

    Returns:
      [..., T, K, K], of the same type.
    """
    # Foreground at threshold number i: the strongest score exceeds more than i thresholds.
    foreground = np.cumsum(histogram[..., :0:-1], axis=-1)[..., ::-1]
    matrices = np.moveaxis(foreground, -1, -3).copy()
    matrices[..., 0] = 0
    all_pixels = histogram.sum(axis=(-1, -2))[..., None, :]
    matrices[..., 0] = all_pixels - matrices.sum(axis=-1)
    return matrices


def _mean_ratio(errors, hits):
    """Return the mean over the last axis of errors / hits where hits > 0; NaN where none is."""
    some = hits > 0
    ratio = np.divide(errors, hits, out=np.zeros(hits.shape), where=some)
    count = some.sum(axis=-1)
    return np.divide(ratio.sum(axis=-1), count, out=np.full(count.shape, np.nan), where=count > 0)
