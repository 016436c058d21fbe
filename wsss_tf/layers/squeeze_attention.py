"""SANet's squeeze-and-attention module.

SANet's code is closed and its figure leaves layers out: what is marked "ours" below is this
package's reading, not the authors'.
"""

import keras
from keras import ops

from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.ops import resize_bilinear


def squeeze(x, window=8):
    """Average a map over windows, not down to one value: what the attention is computed from.

    Args:
      x: [B, h, w, D].
      window: side of the windows, which do not overlap; min(window, size) per axis on smaller maps.

    Returns:
      [B, h // window, w // window, D]; rows and columns that fill no window are left out (ours).
    """
    if None not in x.shape[1:3]:
        window = tuple(min(window, n) for n in x.shape[1:3])
        return ops.average_pool(x, window, window, "valid")
    batch, height, width = ops.shape(x)[:3]
    tall, wide = ops.minimum(window, height), ops.minimum(window, width)
    rows, columns = height // tall, width // wide
    x = x[:, : rows * tall, : columns * wide]
    x = ops.reshape(x, (batch, rows, tall, columns, wide, x.shape[-1]))
    return ops.mean(x, axis=(2, 4))


@keras.saving.register_keras_serializable("wsss_tf")
class SqueezeAttention(keras.layers.Layer):
    """Squeeze-and-attention module: attn * res + attn, element by element.

    res is two 3x3 convolutions of the input; attn two 3x3 convolutions of the input averaged over
    8 x 8 windows, resized to the input's size bilinearly (half-pixel centres). Ours: the kernel
    size, BatchNorm and ReLU after each of the four convolutions, and the resize at the very end.

    Args:
      filters: D, output channels; a quarter of the input's in SANet.
      mid_filters: channels of the first attention convolution; None for max(1, D // 4) (ours; the
        article's "set to 4" may also mean 4 channels).
      window: of the pooling.
      attn_activation: "relu" (ours) or "sigmoid", the last activation of the attention.
      synchronized_batchnorm: batch statistics over all replicas.

    Call: [B, h, w, any] to [B, h, w, D]. `res(x)` and `attn(x)` give the two factors;
    `pixel_attention` makes it one of the layers that `inference.attention` draws.

        x = SqueezeAttention(512, name="sa4")(features["stage4"])

    Source: SANet (Zhong et al., CVPR 2020), figure 2c, equations 4 and 5.
    """

    def __init__(
        self,
        filters,
        mid_filters=None,
        window=8,
        attn_activation="relu",
        synchronized_batchnorm=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if attn_activation not in ("relu", "sigmoid"):
            raise ValueError(f"attn_activation={attn_activation!r}; choose 'relu' or 'sigmoid'.")
        self.filters = filters
        self.mid_filters = mid_filters
        self.window = window
        self.attn_activation = attn_activation
        self.synchronized_batchnorm = synchronized_batchnorm

    def build(self, input_shape):

        def conv(filters, name, activation="relu"):
            return ConvBatchNorm(
                filters,
                3,
                activation,
                self.synchronized_batchnorm,
                dtype=self.dtype_policy,
                name=name,
            )

        middle = self.mid_filters or max(1, self.filters // 4)
        self.conv1 = conv(self.filters, "conv1")
        self.conv2 = conv(self.filters, "conv2")
        self.aconv1 = conv(middle, "aconv1")
        self.aconv2 = conv(self.filters, "aconv2", self.attn_activation)
        self.conv1.build(input_shape)
        self.conv2.build(self.compute_output_shape(input_shape))
        self.aconv1.build((input_shape[0], None, None, input_shape[-1]))
        self.aconv2.build((input_shape[0], None, None, middle))

    def res(self, x, training=None):
        """Return the main path's map, [B, h, w, D]."""
        return self.conv2(self.conv1(x, training=training), training=training)

    def attn(self, x, training=None):
        """Return the attention, float32 [B, h, w, D]."""
        low = self.aconv1(squeeze(x, self.window), training=training)
        low = self.aconv2(low, training=training)
        return resize_bilinear(low, ops.shape(x)[1:3], align_corners=False)

    map_size = None  # `pixel_attention` takes maps of any size

    def pixel_attention(self, x, row, column):
        """Return how alike each position's attention is to that of one position, in inference.

        The attention of a position has D channels; what is drawn is the distance between two such
        vectors (ours), so that the pixels that the module groups with one stand out.

        Args:
          x: [B, h, w, any], the layer's input.
          row, column: int scalars, the position in the map.

        Returns:
          float32 [B, h, w] in [0, 1]: 1 at the position, 0 where the distance is largest, 1
          everywhere if the attention is the same everywhere.
        """
        attn = ops.cast(self.attn(x, training=False), "float32")
        away = attn - attn[:, row, column][:, None, None, :]
        distance = ops.sqrt(ops.sum(ops.square(away), axis=-1))
        largest = ops.max(distance, axis=(1, 2), keepdims=True)
        return 1 - distance / ops.where(largest > 0, largest, 1.0)

    def call(self, x, training=None):
        attn = self.attn(x, training)
        out = attn * ops.cast(self.res(x, training), "float32") + attn
        return ops.cast(out, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(self.compute_output_shape(x.shape), self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "mid_filters": self.mid_filters,
            "window": self.window,
            "attn_activation": self.attn_activation,
            "synchronized_batchnorm": self.synchronized_batchnorm,
        }
