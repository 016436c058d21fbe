"""Enlarging by a whole factor, cut to the size of another tensor, as a layer."""

import keras
from keras import ops

from wsss_tf.ops import resize_bilinear


@keras.saving.register_keras_serializable("wsss_tf")
class EnlargeLike(keras.layers.Layer):
    """Enlarge the first input by a factor, and keep what is on the second one's grid.

    Of a grid that was rounded up the last cells hang over: to resize it to the other's size would
    shift all of them.

    Args:
      factor: whole number; 1 leaves the values as they are.

    Call: `layer([x, like])` with `x` [B, h, w, D] and `like` [B, H, W, any], H <= factor h and
    W <= factor w; returns float32 [B, H, W, D], bilinearly with half-pixel centres.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(autocast=False, **kwargs)  # norms before and after it are in float32
        self.factor = factor

    def call(self, inputs):
        x, like = inputs
        if self.factor > 1:
            size = [self.factor * n for n in ops.shape(x)[1:3]]
            x = resize_bilinear(x, size, align_corners=False)
        height, width = ops.shape(like)[1:3]
        return ops.cast(x, "float32")[:, :height, :width]

    def compute_output_spec(self, inputs):
        x, like = inputs
        return keras.KerasTensor((x.shape[0], *like.shape[1:3], x.shape[-1]), "float32")

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
