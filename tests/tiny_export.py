"""Small SavedModels with random weights, whose masks hold several classes."""

import numpy as np
import tensorflow as tf
from tiny_network import tiny_mask_network, tiny_network

from wsss_tf.inference.multi_scale_cam import MultiScaleCam
from wsss_tf.inference.segment import multi_scale_predictor
from wsss_tf.serving import saved_model

CLASS_NAMES = ("background", "cat", "blue bird", "Hütte", "dog")
MAX_PIXELS = 5000
BACKGROUND_THRESHOLD, LABEL_THRESHOLD = 0.4, 0.5


def mask_predictor():
    """Return the function of pictures to probabilities of a network that predicts masks."""
    net = tiny_mask_network(len(CLASS_NAMES))
    _randomise(net)
    return multi_scale_predictor(net, scales=(0.5, 1.0), flip=True)


def cam_compute():
    """Return the function of pictures to CAMs of a network that gives such."""
    net = tiny_network(len(CLASS_NAMES) - 1)
    _randomise(net)
    return MultiScaleCam(net, "cam_rv", (0.5, 1.0), flip=True)


def _randomise(net):
    rng = np.random.default_rng(3)
    for variable in net.trainable_variables:
        if "kernel" in variable.path:
            kernel = rng.normal(0, 1, variable.shape)
            # Sums of zero, for outputs that tell places apart instead of classes.
            kernel -= kernel.mean((0, 1, 2))
            variable.assign(4 * kernel / np.sqrt(np.prod(kernel.shape[:-1])))


def save_masks(predictor, path):
    saved_model.save_mask_model(predictor, path, CLASS_NAMES, MAX_PIXELS)


def save_cams(compute, path):
    thresholds = BACKGROUND_THRESHOLD, LABEL_THRESHOLD
    saved_model.save_cam_model(compute, path, CLASS_NAMES, MAX_PIXELS, *thresholds)


def picture(height, width, seed=0):
    """Return a uint8 [height, width, 3] of coloured patches."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 7 + 1, width // 7 + 1, 3))
    large = tf.image.resize(small.astype(np.float32), (height, width), "bicubic")
    return np.clip(large.numpy(), 0, 255).astype(np.uint8)


def encoded(image, kind="PNG"):
    """Return a picture's bytes; of a JPEG, the best that there is."""
    if kind == "PNG":
        return tf.io.encode_png(image).numpy()
    return tf.io.encode_jpeg(image, quality=100).numpy()
