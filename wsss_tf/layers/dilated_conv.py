"""Convolution with a dilation, without the detours that Keras takes on TensorFlow and JAX."""

import keras

from wsss_tf.ops import dilated_conv


@keras.saving.register_keras_serializable("wsss_tf")
class DilatedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` by `ops.dilated_conv`, whose gradients are fast.

    Arguments, variables and results: as `keras.layers.Conv2D` with channels last and one group.
    """

    def convolution_op(self, inputs, kernel):
        """See `keras.layers.Conv2D`."""
        if max(self.dilation_rate) == 1:
            return super().convolution_op(inputs, kernel)
        return dilated_conv(inputs, kernel, self.padding, self.dilation_rate)
