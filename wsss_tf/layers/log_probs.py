"""Logarithm of probabilities with a lower bound, as a layer."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("wsss_tf")
class LogProbs(keras.layers.Layer):
    """Return log(max(p, minimum)) of probabilities [..., K] in float32, not renormalised.

    Args:
      minimum: the bound, above 0.
    """

    def __init__(self, minimum=1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.minimum = minimum

    def call(self, probs):
        return ops.log(ops.maximum(ops.cast(probs, "float32"), self.minimum))

    def compute_output_spec(self, probs):
        return keras.KerasTensor(probs.shape, "float32")

    def get_config(self):
        return {**super().get_config(), "minimum": self.minimum}
