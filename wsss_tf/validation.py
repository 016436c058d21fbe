"""Scores and pictures of a network during training: one scale, no flip, some of the images."""

import numpy as np
import tensorflow as tf

from wsss_tf.evaluation import plots
from wsss_tf.evaluation.threshold_sweep import Sweep
from wsss_tf.inference.multi_scale_cam import MultiScaleCam

_PICTURES = 6


def make_validation(source, net, output, num_images):
    """Return the function that `training.callbacks.EndOfEpoch` calls after each epoch.

    Args:
      source: `data.source.Source` to validate on, with masks and a background class or without.
      net: network under training.
      output: the score maps to judge, as in `inference.multi_scale_cam`.
      num_images: how many images, spread evenly over the split.

    Returns:
      Function without arguments, to ({"miou" at the best background threshold, in 0..1, and that
      "background_threshold"} where there are masks to score against, {"cams": uint8 [H, W, 3]
      picture of images over their strongest CAMs}).
    """
    positions = np.linspace(0, len(source) - 1, min(num_images, len(source))).round().astype(int)
    compute = MultiScaleCam(net, output, scales=(1.0,), flip=False)
    scored = source.has_masks and source.has_background

    def validate():
        sweep = Sweep(len(source.class_names)) if scored else None
        columns = []
        for i in positions:
            example = source.load(tf.constant(i))
            image = example["image"].numpy()
            present = np.flatnonzero(source.labels[i])
            cams = compute(image[None])["cams"].numpy()[0].transpose(2, 0, 1)[present]
            if scored:
                sweep.update(present + 1, cams, example["mask"].numpy())
            if len(columns) < _PICTURES:
                columns.append(_column(image, cams))
        pictures = {"cams": _side_by_side(columns)}
        if not scored or not sweep.histogram.any():
            return {}, pictures
        result = sweep.result(source.class_names)
        return {
            "miou": float(result.miou[result.best]),
            "background_threshold": float(result.thresholds[result.best]),
        }, pictures

    return validate


def _column(image, cams):
    strongest = cams.max(axis=0) if len(cams) else np.zeros(image.shape[:2], np.float32)
    return np.concatenate([image, plots.overlay(image, strongest)], axis=0)


def _side_by_side(columns):
    height = max(column.shape[0] for column in columns)
    padded = [np.pad(c, ((0, height - c.shape[0]), (0, 4), (0, 0))) for c in columns]
    return np.concatenate(padded, axis=1)
