"""An affinity network that trains in seconds: three convolutions under the real head."""

import keras
from keras import layers

from wsss_tf.models.affinitynet import affinity_head


def tiny_affinity_network(num_classes=None, radius=5):
    image = keras.Input((None, None, 3), name="image")
    x, maps = image, {}
    for name in ("stage2", "stage3", "stage4"):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(16, 3, strides=2, activation="relu", name=name)(x)
        maps[name] = x
    features = dict.fromkeys(maps, maps["stage4"])
    return keras.Model(image, affinity_head(features, (16, 16, 16), radius), name="tiny")
