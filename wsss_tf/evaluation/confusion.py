"""Confusion matrices, and what is read off them: IoU, mean IoU, pixel accuracy.

A matrix counts pixels: int64 [..., K, K] or [..., K, K + 1], rows ground truth, columns prediction.
The optional last column holds pixels that the prediction leaves at 255: their truth is known,
so they count as missed for their class and against no other, as in the official SEAM script.
All functions take any number of leading dimensions, such as one per background threshold.
"""

import numpy as np

from wsss_tf.masks import IGNORE


def check_mask_values(mask, num_classes):
    """Raise ValueError, naming the value, if a mask holds anything but 0..K-1 and 255.

    Args:
      mask: integers, any shape.
      num_classes: K, background included if there is one.
    """
    mask = np.asarray(mask)
    wrong = (mask != IGNORE) & ((mask >= num_classes) | (mask < 0))
    if wrong.any():
        raise ValueError(
            f"holds the value {int(mask[wrong].max())}, but {num_classes} classes allow only "
            f"0..{num_classes - 1}, and {IGNORE} for ignored pixels."
        )


def check_same_size(mask, height_width):
    """Raise ValueError, naming both sizes, if `mask` is not [h, w] with the given (h, w)."""
    if np.shape(mask) != tuple(height_width):
        raise ValueError(
            f"the size (height, width) is {tuple(height_width)}, the mask's is {np.shape(mask)}."
        )


class Confusion:
    """Confusion matrix summed over images; parts made by several processes can be merged.

    Args:
      num_classes: K, background included if there is one.

    Attributes:
      matrix: int64 [K, K + 1]; the last column counts predictions of 255.
      ignored_pixels: pixels whose ground truth is 255, which count nowhere else.
      num_images: number of updates.

    Example:
      >>> confusion = Confusion(num_classes=2)
      >>> confusion.update(mask=[[0, 1, 255]], prediction=[[0, 0, 1]])
      >>> confusion.matrix.tolist(), confusion.ignored_pixels
      ([[1, 0, 0], [1, 0, 0]], 1)
    """

    def __init__(self, num_classes):
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes, num_classes + 1), np.int64)
        self.ignored_pixels = 0
        self.num_images = 0

    def update(self, mask, prediction):
        """Count one image.

        Args:
          mask: ground truth, integers [h, w]: 0..K-1 and 255.
          prediction: the same shape and values.

        Raises:
          ValueError: the sizes differ, or a value is neither a class nor 255.
        """
        mask, prediction = np.asarray(mask), np.asarray(prediction)
        check_same_size(mask, prediction.shape)
        check_mask_values(mask, self.num_classes)
        check_mask_values(prediction, self.num_classes)
        valid = mask != IGNORE
        column = np.minimum(prediction[valid].astype(np.int64), self.num_classes)
        flat = mask[valid].astype(np.int64) * (self.num_classes + 1) + column
        self.matrix += np.bincount(flat, minlength=self.matrix.size).reshape(self.matrix.shape)
        self.ignored_pixels += int(mask.size - flat.size)
        self.num_images += 1

    def merge(self, other):
        """Add the counts of another `Confusion` over the same classes.

        Raises:
          ValueError: the numbers of classes differ.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"{other.num_classes} classes cannot be merged into {self.num_classes}."
            )
        self.matrix += other.matrix
        self.ignored_pixels += other.ignored_pixels
        self.num_images += other.num_images


def true_positives(matrix):
    """Return the correctly labelled pixels of each class, int64 [..., K]."""
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def false_negatives(matrix):
    """Return the pixels of each class that the prediction misses, int64 [..., K]."""
    return np.sum(matrix, axis=-1) - true_positives(matrix)


def false_positives(matrix):
    """Return the pixels wrongly given to each class, int64 [..., K]."""
    num_classes = np.shape(matrix)[-2]
    return np.sum(matrix, axis=-2)[..., :num_classes] - true_positives(matrix)


def class_iou(matrix):
    """Return the IoU of each class, float64 [..., K]; NaN for an absent one."""
    hit = true_positives(matrix)
    union = hit + false_negatives(matrix) + false_positives(matrix)
    return np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)


def mean_iou(matrix, absent_as_zero=False):
    """Return the mean of the class IoUs, float64 [...].

    Args:
      matrix: integers [..., K, K] or [..., K, K + 1].
      absent_as_zero: count a class in neither masks nor predictions as 0, as the official script
        does, instead of leaving it out of the mean.

    Raises:
      ValueError: there is not one pixel whose ground truth is known.
    """
    if not np.sum(matrix, axis=(-2, -1)).all():
        raise ValueError("no pixel to score: every ground truth pixel is ignored (255).")
    iou = class_iou(matrix)
    return np.mean(np.nan_to_num(iou), axis=-1) if absent_as_zero else np.nanmean(iou, axis=-1)


def pixel_accuracy(matrix):
    """Return the fraction of scored pixels that are labelled correctly, float64 [...]."""
    return np.sum(true_positives(matrix), axis=-1) / np.sum(matrix, axis=(-2, -1))
