"""From this package's input convention to that of networks trained with Caffe."""

import keras
import numpy as np
from keras import ops

from wsss_tf.ops import denormalize_image


@keras.saving.register_keras_serializable("wsss_tf")
class CaffeInput(keras.layers.Layer):
    """Turn a normalised RGB image into BGR minus mean colour, an exact affine map without weights.

    With this as a network's first layer, images reach it as they reach every other network.

    Args:
      mean: of red, green and blue, in 0..255; subtracted after the order is reversed.

    Call: `layer(image)` with `image` [B, H, W, 3] as `ops.normalize_image` gives; returns
    float32 [B, H, W, 3], blue first, in about -123..151.
    """

    def __init__(self, mean=(123.0, 117.0, 104.0), **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)

    def call(self, image):
        return ops.flip(denormalize_image(image) - np.float32(self.mean), axis=-1)

    def compute_output_spec(self, image):
        return keras.KerasTensor(image.shape, "float32")

    def get_config(self):
        return {**super().get_config(), "mean": self.mean}
