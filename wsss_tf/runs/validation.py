"""Scores and pictures of a network during training: one scale, no flip, some of the images."""

import collections
import itertools

import numpy as np

from wsss_tf.data.source import loader
from wsss_tf.evaluation import plots
from wsss_tf.evaluation.score import score_maps, score_masks
from wsss_tf.evaluation.scored_run import spread
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
    positions, load = spread(range(len(source)), num_images), loader(source)
    scored = source.has_masks and source.has_background

    def validate():
        columns = []

        def maps():
            for i in positions:
                example = load(i)
                image = example["image"]
                present = np.flatnonzero(source.labels[i])
                cams = compute(image[None])["cams"].numpy()[0].transpose(2, 0, 1)[present]
                if len(columns) < _PICTURES:
                    columns.append(_column(image, cams))
                yield source.ids[i], present + 1, cams, example.get("mask")

        metrics = score_maps(maps(), source.class_names) if scored else _look(maps())
        pictures = {"cams": _side_by_side(columns)}
        keys = ("miou", "background_threshold")
        return {key: metrics[key] for key in keys} if metrics else {}, pictures

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
    positions, load = spread(range(len(source)), num_images), loader(source)

    def validate():
        columns, attended = [], []

        def masks():
            for i in positions:
                example = load(i)
                image, mask = example["image"], example.get("mask")
                prediction = predict(image[None])[0].numpy().argmax(-1).astype(np.uint8)
                if len(columns) < _PICTURES:
                    shown = [prediction] if mask is None else [prediction, mask]
                    columns.append(np.concatenate([image, *map(plots.colour_mask, shown)]))
                    if attention is not None:
                        [(_, row, column)] = chosen_pixels(shown[-1], 1, source.has_background)
                        maps = attention_pictures(attention, image, row, column)
                        attended.append(np.concatenate(list(maps.values()), axis=0))
                yield source.ids[i], mask, prediction

        scored = source.has_masks
        metrics = score_masks(masks(), source.class_names) if scored else _look(masks())
        pictures = {"masks": _side_by_side(columns)}
        if attended:
            pictures["attention"] = _side_by_side(attended)
        keys = ("miou", "pixel_accuracy")
        return {key: metrics[key] for key in keys} if metrics else {}, pictures

    return validate


def _look(examples):
    """Go through as many examples as are drawn; there is nothing to score them against."""
    collections.deque(itertools.islice(examples, _PICTURES), maxlen=0)


def _column(image, cams):
    strongest = cams.max(axis=0) if len(cams) else np.zeros(image.shape[:2], np.float32)
    return np.concatenate([image, plots.overlay(image, strongest)], axis=0)


def _side_by_side(columns):
    height = max(column.shape[0] for column in columns)
    padded = [np.pad(c, ((0, height - c.shape[0]), (0, 4), (0, 0))) for c in columns]
    return np.concatenate(padded, axis=1)
