"""A layer that lets values through and stops gradients."""

import keras


@keras.saving.register_keras_serializable("wsss_tf")
class StopGradient(keras.layers.Layer):
    """Identity in the forward pass, zero in the backward pass; any shape."""

    def call(self, x):
        return keras.ops.stop_gradient(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)
