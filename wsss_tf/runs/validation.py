"""Scores and pictures of a network during training: one scale, no flip, some of the images."""

import numpy as np

from wsss_tf.data.source import loader
from wsss_tf.evaluation import plots
from wsss_tf.evaluation.confusion import Confusion, mean_iou, pixel_accuracy
from wsss_tf.evaluation.threshold_sweep import Sweep
from wsss_tf.inference.attention import attention_pictures, chosen_pixels

_PICTURES = 6


def make_validation(source, compute, num_images):
    """Return the function that `training.callbacks.EndOfEpoch` calls after each epoch.

    Args:
      source: `data.source.Source` to validate on, with masks and a background class or without.
      compute: function of pictures to maps, as `inference.multi_scale_cam.MultiScaleCam`, by the
        network under training.
      num_images: how many images, spread evenly over the split.

    Returns:
      Function without arguments, to ({"miou" at the best background threshold, in 0..1, and that
      "background_threshold"} where there are masks to score against, {"cams": uint8 [H, W, 3]
      picture of images over their strongest CAMs}).
    """
    positions, load = _spread(source, num_images), loader(source)
    scored = source.has_masks and source.has_background

    def validate():
        sweep = Sweep(len(source.class_names)) if scored else None
        columns = []
        for i in positions:
            example = load(i)
            image = example["image"]
            present = np.flatnonzero(source.labels[i])
            cams = compute(image[None])["cams"].numpy()[0].transpose(2, 0, 1)[present]
            if scored:
                sweep.update(present + 1, cams, example["mask"])
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


def make_mask_validation(source, predict, num_images, attention=None):
    """Return the function that validates a network which predicts masks, after each epoch.

    Args:
      source: `data.source.Source` to validate on, with masks or without.
      predict: function of pictures uint8 [1, H, W, 3] to probabilities [1, H, W, K], by the network
        under training.
      num_images: how many images, spread evenly over the split.
      attention: `inference.attention.PixelAttention` of that network; None if it has none.

    Returns:
      Function without arguments, to ({"miou", "pixel_accuracy"}, in 0..1, where there are masks to
      score against, {"masks": uint8 [H, W, 3] picture of images over predictions over masks}, and
      with `attention` "attention": the maps, one below the other, for a pixel in the midst of the
      largest object of each of these images).
    """
    positions, load = _spread(source, num_images), loader(source)

    def validate():
        confusion = Confusion(len(source.class_names))
        columns, attended = [], []
        for i in positions:
            example = load(i)
            image = example["image"]
            prediction = predict(image[None])[0].numpy().argmax(-1).astype(np.uint8)
            shown = [image, plots.colour_mask(prediction)]
            if source.has_masks:
                mask = example["mask"]
                confusion.update(mask, prediction)
                shown.append(plots.colour_mask(mask))
            if len(columns) < _PICTURES:
                columns.append(np.concatenate(shown, axis=0))
                if attention is not None:
                    truth = mask if source.has_masks else prediction
                    [(_, row, column)] = chosen_pixels(truth, 1, source.has_background)
                    maps = attention_pictures(attention, image, row, column)
                    attended.append(np.concatenate(list(maps.values()), axis=0))
        pictures = {"masks": _side_by_side(columns)}
        if attended:
            pictures["attention"] = _side_by_side(attended)
        if not confusion.matrix.any():
            return {}, pictures
        return {
            "miou": float(mean_iou(confusion.matrix)),
            "pixel_accuracy": float(pixel_accuracy(confusion.matrix)),
        }, pictures

    return validate


def _spread(source, count):
    """Return the positions of at most `count` images, spread evenly over the source."""
    return np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)


def _column(image, cams):
    strongest = cams.max(axis=0) if len(cams) else np.zeros(image.shape[:2], np.float32)
    return np.concatenate([image, plots.overlay(image, strongest)], axis=0)


def _side_by_side(columns):
    height = max(column.shape[0] for column in columns)
    padded = [np.pad(c, ((0, height - c.shape[0]), (0, 4), (0, 0))) for c in columns]
    return np.concatenate(padded, axis=1)
