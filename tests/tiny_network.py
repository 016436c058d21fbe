"""Networks that train in seconds: a few convolutions under the real heads."""

import keras
import numpy as np
from keras import layers

from wsss_tf.models.deeplab import deeplab_head
from wsss_tf.models.seam import seam_head


def tiny_network(num_classes, dropout=0.0):
    image = keras.Input((None, None, 3), name="image")
    x, maps = image, {}
    for name in ("stage2", "stage3", "stage4"):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(16, 3, strides=2, activation="relu", name=name)(x)
        maps[name] = x
    features = {
        "stage2": layers.AveragePooling2D(4, padding="same", name="pool2")(maps["stage2"]),
        "stage3": layers.AveragePooling2D(2, padding="same", name="pool3")(maps["stage3"]),
        "stage4": maps["stage4"],
    }
    outputs = seam_head(image, features, num_classes, filters=(16, 16, 16), dropout=dropout)
    return keras.Model(image, outputs, name="tiny")


def tiny_mask_network(num_classes, dropout=0.5):
    """Two convolutions under the real DeepLab head."""
    image = keras.Input((None, None, 3), name="image")
    x = image
    for name in ("conv4", "conv5"):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(16, 3, strides=2, activation="relu", name=name)(x)
    outputs = deeplab_head(image, x, num_classes, filters=16, dilation=2, dropout=dropout)
    return keras.Model(image, outputs, name="tiny_masks")


def roll(places):
    """Return a postprocess whose effect shows: the classes' probabilities in a circle."""

    def postprocess(probabilities, image):
        assert probabilities.shape[:2] == image.shape[:2]
        return np.roll(probabilities, places, axis=-1)

    return postprocess
