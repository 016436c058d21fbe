"""Convolution, BatchNorm and activation, the unit that segmentation heads are made of."""

import keras

from wsss_tf.layers.batchnorm import batchnorm


def kaiming_fan_out():
    """Return the initializer of the official heads' kernels: Kaiming normal over the outputs."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


@keras.saving.register_keras_serializable("wsss_tf")
class ConvBatchNorm(keras.layers.Layer):
    """Convolution without bias, BatchNorm (epsilon 1e-5, momentum 0.9) and activation.

    Args:
      filters: D, output channels.
      kernel_size: odd; the output has the size of the input, zeros around it.
      activation: name of a Keras activation, None for none.
      synchronized_batchnorm: batch statistics over all replicas.
      folded: for inference alone: a bias in place of BatchNorm, see `models.folding`.

    Call: [B, h, w, any] to [B, h, w, D].

        x = ConvBatchNorm(512, 3, name="bottleneck")(x)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        activation="relu",
        synchronized_batchnorm=True,
        folded=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.activation = activation
        self.synchronized_batchnorm = synchronized_batchnorm
        self.folded = folded

    def build(self, input_shape):
        self.conv = keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            padding="same",
            use_bias=self.folded,
            kernel_initializer="zeros" if self.folded else kaiming_fan_out(),
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(input_shape)
        if not self.folded:
            synchronized = self.synchronized_batchnorm
            self.bn = batchnorm("bn", synchronized=synchronized, dtype=self.dtype_policy)
            self.bn.build(self.compute_output_shape(input_shape))

    def call(self, x, training=None):
        x = self.conv(x)
        if not self.folded:
            x = self.bn(x, training=training)
        return keras.activations.get(self.activation)(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "activation": self.activation,
            "synchronized_batchnorm": self.synchronized_batchnorm,
            "folded": self.folded,
        }
