"""CPNet's aggregation module: a large receptive field by fully separable convolutions."""

import keras

from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.conv_batchnorm import ConvBatchNorm


def _without_bias(layer, x):
    return keras.ops.depthwise_conv(x, layer.kernel, padding="same")


@keras.saving.register_keras_serializable("wsss_tf")
class Aggregation(keras.layers.Layer):
    """Two parallel pairs of one-dimensional depthwise convolutions, in opposite orders, added.

    A 3x3 convolution with BatchNorm and ReLU reduces the channels; branch t convolves k x 1 then
    1 x k, branch p 1 x k then k x 1, each depthwise, with bias and nothing in between; their sum
    passes BatchNorm and ReLU.

    Args:
      filters: D, channels after the reduction; 512 in CPNet.
      kernel_size: k, odd; 11 in CPNet.
      synchronized_batchnorm: batch statistics over all replicas.

    Call: [B, h, w, any] to [B, h, w, D], non-negative.

        value = Aggregation(512, name="aggregation")(features)

    Source: CPNet (Yu et al., CVPR 2020), section 3.4; official `AggregationModule`.
    """

    def __init__(self, filters, kernel_size=11, synchronized_batchnorm=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.synchronized_batchnorm = synchronized_batchnorm

    def build(self, input_shape):
        reduced = self.compute_output_shape(input_shape)
        self.reduce = ConvBatchNorm(
            self.filters,
            3,
            synchronized_batchnorm=self.synchronized_batchnorm,
            dtype=self.dtype_policy,
            name="reduce",
        )
        self.reduce.build(input_shape)
        tall, wide = (self.kernel_size, 1), (1, self.kernel_size)
        for name, size in {"t1": tall, "t2": wide, "p1": wide, "p2": tall}.items():
            conv = keras.layers.DepthwiseConv2D(
                size,
                padding="same",
                # Kaiming normal over the outputs, which PyTorch counts over all channels: Keras'
                # fan-in of a depthwise kernel.
                depthwise_initializer=keras.initializers.VarianceScaling(
                    2.0, "fan_in", "untruncated_normal"
                ),
                dtype=self.dtype_policy,
                name=name,
            )
            conv.build(reduced)
            setattr(self, name, conv)
        self.bn = batchnorm("bn", synchronized=self.synchronized_batchnorm, dtype=self.dtype_policy)
        self.bn.build(reduced)

    def call(self, x, training=None):
        x = self.reduce(x, training=training)
        # The last two biases are added after the sum: TensorFlow's graph optimizer (2.21, oneDNN)
        # fails on the sum of two depthwise convolutions with biases, and says so in an error.
        x = _without_bias(self.t2, self.t1(x)) + _without_bias(self.p2, self.p1(x))
        x = x + (self.t2.bias + self.p2.bias)
        return keras.ops.relu(self.bn(x, training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "synchronized_batchnorm": self.synchronized_batchnorm,
        }
