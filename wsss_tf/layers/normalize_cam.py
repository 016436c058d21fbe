"""The maps that SEAM's pixel correlation module propagates, as a layer."""

import keras

from wsss_tf import ops


@keras.saving.register_keras_serializable("wsss_tf")
class NormalizeCam(keras.layers.Layer):
    """`ops.normalize_cam` in float32: raw scores [B, h, w, K] to [B, h, w, K] in [0, 1].

    Channel 0 becomes background; no gradient flows.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)  # 1e-5 counts here: no rounding on the way in

    def call(self, scores):
        return ops.normalize_cam(keras.ops.cast(scores, "float32"))

    def compute_output_spec(self, scores):
        return keras.KerasTensor(scores.shape, "float32")
