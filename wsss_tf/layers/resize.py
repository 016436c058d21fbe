"""Bilinear resizing to the size of another tensor, as a layer."""

import keras
from keras import ops

from wsss_tf.ops import resize_bilinear


@keras.saving.register_keras_serializable("wsss_tf")
class ResizeLike(keras.layers.Layer):
    """Resize the first input to the height and width of the second.

    Args:
      align_corners: as in `ops.resize_bilinear`.

    Call: `layer([x, like])` with `x` [B, h, w, D] and `like` [B, H, W, any];
    returns float32 [B, H, W, D].
    """

    def __init__(self, align_corners=True, **kwargs):
        # Mixed precision must not round maps on their way to the losses.
        super().__init__(autocast=False, **kwargs)
        self.align_corners = align_corners

    def call(self, inputs):
        x, like = inputs
        return resize_bilinear(x, ops.shape(like)[1:3], self.align_corners)

    def compute_output_spec(self, inputs):
        x, like = inputs
        return keras.KerasTensor((x.shape[0], *like.shape[1:3], x.shape[-1]), "float32")

    def get_config(self):
        return {**super().get_config(), "align_corners": self.align_corners}
