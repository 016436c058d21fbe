"""A squeeze-and-excitation module in place of SANet's squeeze-and-attention."""

import keras
from keras import ops

from wsss_tf.layers.conv_batchnorm import ConvBatchNorm


@keras.saving.register_keras_serializable("wsss_tf")
class SqueezeExcitation(keras.layers.Layer):
    """Channel weights from a global mean, times the input, plus two 3x3 convolutions of the input.

    Args:
      filters: D, output channels. Where the input has another number the weighted input passes a
        1x1 convolution with BatchNorm (ours).
      reduction: of the channels between the two dense layers (ours).
      synchronized_batchnorm: batch statistics over all replicas.

    Call: [B, h, w, C] to [B, h, w, D]; no activation after the sum (ours).

        x = SqueezeExcitation(512, name="se4")(features["stage4"])

    Source: the baseline FCN-SE of SANet (Zhong et al., CVPR 2020), equations 2 and 3; what is
    marked "ours" is not in the paper's parts that are known here.
    """

    def __init__(self, filters, reduction=16, synchronized_batchnorm=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.reduction = reduction
        self.synchronized_batchnorm = synchronized_batchnorm

    def build(self, input_shape):

        def conv(size, name, activation="relu"):
            return ConvBatchNorm(
                self.filters,
                size,
                activation,
                self.synchronized_batchnorm,
                dtype=self.dtype_policy,
                name=name,
            )

        channels = input_shape[-1]
        hidden = max(1, channels // self.reduction)
        self.conv1, self.conv2 = conv(3, "conv1"), conv(3, "conv2")
        self.conv1.build(input_shape)
        self.conv2.build(self.compute_output_shape(input_shape))
        self.fc1 = keras.layers.Dense(hidden, activation="relu", dtype="float32", name="fc1")
        self.fc2 = keras.layers.Dense(channels, activation="sigmoid", dtype="float32", name="fc2")
        self.fc1.build((input_shape[0], channels))
        self.fc2.build((input_shape[0], hidden))
        self.proj = None
        if channels != self.filters:
            self.proj = conv(1, "proj", activation=None)
            self.proj.build(input_shape)

    def res(self, x, training=None):
        """Return the main path's map, [B, h, w, D]."""
        return self.conv2(self.conv1(x, training=training), training=training)

    def weights_of(self, x):
        """Return the channel weights, float32 [B, C] in (0, 1)."""
        return self.fc2(self.fc1(ops.mean(ops.cast(x, "float32"), axis=(1, 2))))

    def shortcut(self, x, training=None):
        """Return the weighted input, projected where needed, [B, h, w, D]."""
        x = x * ops.cast(self.weights_of(x)[:, None, None, :], x.dtype)
        return x if self.proj is None else self.proj(x, training=training)

    def call(self, x, training=None):
        return self.shortcut(x, training) + self.res(x, training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "reduction": self.reduction,
            "synchronized_batchnorm": self.synchronized_batchnorm,
        }
