"""A network that trains in seconds: three convolutions under the real SEAM head."""

import keras
from keras import layers

from wsss_tf.models.seam import seam_head


def tiny_network(num_classes, dropout=0.0):
    image = keras.Input((None, None, 3), name="image")
    x, maps = image, {}
    for name in ("conv4", "conv5", "conv6"):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(16, 3, strides=2, activation="relu", name=name)(x)
        maps[name] = x
    size = maps["conv6"]
    features = {
        "conv4": layers.AveragePooling2D(4, padding="same", name="pool4")(maps["conv4"]),
        "conv5": layers.AveragePooling2D(2, padding="same", name="pool5")(maps["conv5"]),
        "conv6": size,
    }
    outputs = seam_head(image, features, num_classes, filters=(16, 16, 16), dropout=dropout)
    return keras.Model(image, outputs, name="tiny")
