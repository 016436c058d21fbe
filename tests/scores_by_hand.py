"""Scores by their definition, class after class, for the tests of commands."""

import numpy as np

IGNORE = 255


def mean_iou(masks, predictions, num_classes):
    """Return the mean over the classes that are in masks or predictions."""
    masks = np.concatenate([np.ravel(mask) for mask in masks])
    predictions = np.concatenate([np.ravel(prediction) for prediction in predictions])
    predictions = predictions[masks != IGNORE]
    masks = masks[masks != IGNORE]
    unions = [((masks == c) | (predictions == c)).sum() for c in range(num_classes)]
    hits = [((masks == c) & (predictions == c)).sum() for c in range(num_classes)]
    return np.mean([hit / union for hit, union in zip(hits, unions) if union])


def cam_label(class_ids, cams, background_threshold):
    """Return the mask value of the strongest of the background and the maps, [h, w]."""
    background = np.full((1, *cams.shape[1:]), background_threshold, np.float32)
    values = np.array([0, *class_ids])
    return values[np.concatenate([background, cams.astype(np.float32)]).argmax(axis=0)]


def masks_of(source):
    """Return the masks of a data source, in the order of its ids."""
    return [source.read(i)["mask"].numpy() for i in range(len(source.ids))]
