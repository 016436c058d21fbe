"""Bilinear resizing to a fixed size, as a layer."""

import keras

from wsss_tf.ops import resize_bilinear


@keras.saving.register_keras_serializable("wsss_tf")
class ResizeTo(keras.layers.Layer):
    """Resize to a fixed height and width; an input of that size stays as it is.

    Args:
      size: (height, width).
      align_corners: as in `ops.resize_bilinear`.

    Call: `layer(x)` with `x` [B, H, W, D]; returns float32 [B, height, width, D].
    """

    def __init__(self, size, align_corners=True, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = tuple(size)
        self.align_corners = align_corners

    def call(self, x):
        return resize_bilinear(x, self.size, self.align_corners)

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], *self.size, x.shape[-1]), "float32")

    def get_config(self):
        return {**super().get_config(), "size": self.size, "align_corners": self.align_corners}
