"""Four stages like a dilated ResNet's, in five convolutions."""

import keras
from keras import layers

from wsss_tf.layers.batchnorm import batchnorm


def tiny_backbone(image=None, channels=(16, 32, 48, 64), last=8):
    """Return a model of features by stage; `last` is the stride of the last one, 8, 16 or 32."""
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv1")(image)
    features = {"stem": x}
    strides = (2, 2, 1 + (last > 8), 1 + (last > 16))
    for i, (count, stride) in enumerate(zip(channels, strides), start=1):
        x = layers.Conv2D(count, 3, strides=stride, padding="same", name=f"conv{i + 1}_conv")(x)
        x = batchnorm(f"conv{i + 1}_bn", epsilon=1e-3, momentum=0.99)(x)
        x = layers.ReLU(name=f"stage{i}")(x)
        features[f"stage{i}"] = x
    return keras.Model(image, features, name="tiny")
