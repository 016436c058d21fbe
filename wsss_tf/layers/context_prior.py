"""CPNet's context prior: a learnt map of which positions belong to the same class."""

import keras
from keras import ops

from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.conv_batchnorm import kaiming_fan_out


def aggregate_context(prior, value):
    """Average features over the positions of the same class, and over the others.

    Args:
      prior: [B, M, N] in [0, 1]: for M of the N positions, how likely each of the N is of the same
        class.
      value: [B, N, D].

    Returns:
      (intra, inter), each float32 [B, M, D]: P V / N and (1 - P) V / N. The division by N is the
      official implementation's, not in the paper's formulas.
    """
    prior, value = ops.cast(prior, "float32"), ops.cast(value, "float32")
    intra = ops.matmul(prior, value) / ops.cast(ops.shape(value)[1], "float32")
    # (1 - P) V / N is the mean of V less P V / N: no second product with an N x N map.
    return intra, ops.mean(value, axis=1, keepdims=True) - intra


@keras.saving.register_keras_serializable("wsss_tf")
class ContextPrior(keras.layers.Layer):
    """Predict the prior map of the positions, and the contexts it gathers.

    The N = h * w positions are the channels of a 1x1 convolution, so the layer works on maps of the
    size it was made for and on no other.

    Args:
      size: (h, w) of the maps.
      tile: in inference, how many positions' contexts are computed at a time, so that memory grows
        with N instead of its square; None for all at once. The third output is N x N all the same:
        in a graph it costs nothing where nobody asks for it.
      synchronized_batchnorm: batch statistics over all replicas.

    `pixel_attention` makes it one of the layers that `inference.attention` draws.

    Call: `layer(value)` with [B, h, w, D], what `Aggregation` gives; returns a tuple of float32
    (intra [B, h, w, D], inter [B, h, w, D], prior [B, N, N]). The last are logits; row i speaks of
    position i, row by row over the map, column j of position j.

        intra, inter, prior = ContextPrior((60, 60), name="context_prior")(value)

    Raises (in the call):
      ValueError: maps of another size; a graph in which the size is not known fails when it runs.

    Memory: in training one [B, N, N] float32 map and its gradient (60 x 60: 49 MiB an image).
    Source: CPNet (Yu et al., CVPR 2020), section 3.3; official `CPHead`.
    """

    def __init__(self, size, tile=None, synchronized_batchnorm=True, **kwargs):
        # Under mixed precision only the 1x1 convolution is rounded, not what is averaged.
        super().__init__(autocast=False, **kwargs)
        self.size = tuple(size)
        self.tile = tile
        self.synchronized_batchnorm = synchronized_batchnorm

    @property
    def positions(self):
        """N, the number of positions of a map."""
        return self.size[0] * self.size[1]

    def build(self, input_shape):
        self.prior_conv = keras.layers.Conv2D(
            self.positions,
            1,
            use_bias=False,
            kernel_initializer=kaiming_fan_out(),
            dtype=self.dtype_policy,
            name="prior_conv",
        )
        self.prior_bn = batchnorm(
            "prior_bn", synchronized=self.synchronized_batchnorm, dtype="float32"
        )
        self.prior_conv.build(input_shape)
        self.prior_bn.build((*input_shape[:-1], self.positions))

    def call(self, value, training=None):
        self._check(value.shape)
        batch, depth = ops.shape(value)[0], value.shape[-1]
        if None in value.shape[1:3]:
            # Fails for another size, where a reshape would scramble one of as many positions.
            value = ops.broadcast_to(value, (batch, *self.size, depth))
        flat = ops.reshape(value, (batch, self.positions, depth))
        # Before the sigmoid, [B, N, N]. Positions are flattened row by row: no transpose.
        prior = self._logits(flat, training)
        if training or self.tile is None:
            intra, inter = aggregate_context(ops.sigmoid(prior), flat)
        else:
            intra, inter = self._tiled(flat)
        shape = (batch, *self.size, depth)
        return ops.reshape(intra, shape), ops.reshape(inter, shape), prior

    @property
    def map_size(self):
        """The size of maps, (h, w), that `pixel_attention` takes."""
        return self.size

    def pixel_attention(self, value, row, column):
        """Return how likely each position is to share one position's class: a row of the prior.

        Args:
          value: [B, h, w, D], the layer's input.
          row, column: int scalars, the position in the map.

        Returns:
          float32 [B, h, w] in [0, 1], as in inference.
        """
        x = ops.expand_dims(value[:, row, column], axis=1)
        row_of_prior = ops.sigmoid(self._logits(x, training=False))
        return ops.reshape(row_of_prior, (ops.shape(value)[0], *self.size))

    def _logits(self, flat, training):
        """Prior logits of positions [B, M, D] as float32 [B, M, N]."""
        x = self.prior_conv(flat[:, :, None, :])
        return self.prior_bn(x, training=training)[:, :, 0, :]

    def _tiled(self, flat):
        batch, depth = ops.shape(flat)[0], flat.shape[-1]
        tiles = -(-self.positions // self.tile)
        padded = ops.pad(flat, [[0, 0], [0, tiles * self.tile - self.positions], [0, 0]])
        padded = ops.reshape(padded, (batch, tiles, self.tile, depth))

        def context(rows):  # [B, tile, D]
            intra, inter = aggregate_context(ops.sigmoid(self._logits(rows, False)), flat)
            return ops.concatenate([intra, inter], axis=-1)

        both = ops.map(context, ops.transpose(padded, (1, 0, 2, 3)))
        both = ops.reshape(ops.transpose(both, (1, 0, 2, 3)), (batch, tiles * self.tile, 2 * depth))
        return both[:, : self.positions, :depth], both[:, : self.positions, depth:]

    def _check(self, shape):
        for given, own in zip(shape[1:3], self.size):
            if given not in (None, own):
                raise ValueError(
                    f"a context prior for maps of {self.size[0]} x {self.size[1]} cannot take "
                    f"{shape[1]} x {shape[2]}: run the network on sliding windows of the size it "
                    "was made for (window_size)."
                )

    def compute_output_spec(self, value, training=None):
        self._check(value.shape)
        context = (value.shape[0], *self.size, value.shape[-1])
        prior = (value.shape[0], self.positions, self.positions)
        # Three tensors: a model takes one that is returned twice for a single output.
        return tuple(keras.KerasTensor(shape, "float32") for shape in (context, context, prior))

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "tile": self.tile,
            "synchronized_batchnorm": self.synchronized_batchnorm,
        }
