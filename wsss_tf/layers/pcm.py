"""SEAM's pixel correlation module."""

import math

import keras
from keras import ops

from wsss_tf.ops import EPSILON

# A picture of 500 x 375 pixels at twice its size and stride 8 has 11,750 positions.
MAX_KEYS = 2**14


def pixel_correlation(cam, features, tile=None, max_keys=None):
    """Propagate class scores between pixels with similar features.

    Args:
      cam: [B, h, w, K] scores in [0, 1]; channel 0 is background. A constant in SEAM.
      features: [B, h, w, D], any scale; divided by (L2 norm + 1e-5) over D here.
      tile: number of output pixels computed at a time, so that memory grows with N = h * w instead
        of its square; None for all at once. Meant for inference.
      max_keys: above so many input pixels they are pooled over square blocks, of scores and of
        features, so that work grows with N instead of its square; None for no pooling. Below it
        nothing changes.

    Returns:
      [B, h, w, K]: each output pixel is a weighted mean of input pixels, so scores stay in [0, 1].

    Memory: one [B, N, N] float32 map (56 x 56: 39 MB an image), or [B, tile, min(N, max_keys)].
    Source: SEAM (Wang et al., CVPR 2020), section 3.4; official `Net.PCM` after its convolution.
    """
    batch, height, width, classes = ops.shape(cam)
    depth = features.shape[-1]
    features = ops.cast(features, "float32")
    # The norm's gradient at zero is undefined; PyTorch's is zero there, and so is this one.
    square = ops.sum(ops.square(features), axis=-1, keepdims=True)
    norm = ops.where(square > 0, ops.sqrt(ops.where(square > 0, square, 1.0)), 0.0)
    unit = ops.reshape(features / (norm + EPSILON), (batch, height * width, depth))
    flat = ops.reshape(ops.cast(cam, "float32"), (batch, height * width, classes))
    # The ones become the sum of the affinities, in the product that the scores need anyway.
    values = ops.concatenate([flat, ops.ones_like(flat[..., :1])], axis=-1)
    keys = unit
    if max_keys is not None:
        keys, values = _pooled_keys(unit, values, (batch, height, width), max_keys)
    keys = ops.transpose(keys, (0, 2, 1))

    def propagate(queries):  # [B, M, D] -> [B, M, K]
        summed = ops.matmul(ops.relu(ops.matmul(queries, keys)), values)
        return summed[..., :-1] / (summed[..., -1:] + EPSILON)

    if tile is None:
        refined = propagate(unit)
    else:
        count = height * width
        tiles = (count + tile - 1) // tile
        tile = (count + tiles - 1) // tiles  # of one size, so that little is padded
        padded = ops.pad(unit, [[0, 0], [0, tiles * tile - count], [0, 0]])
        padded = ops.reshape(padded, (batch, tiles, tile, depth))
        refined = ops.map(propagate, ops.transpose(padded, (1, 0, 2, 3)))
        refined = ops.reshape(ops.transpose(refined, (1, 0, 2, 3)), (batch, tiles * tile, classes))
        refined = refined[:, :count]
    return ops.reshape(refined, (batch, height, width, classes))


def _pooled_keys(unit, values, size, max_keys):
    """Return keys and values of at most about `max_keys` blocks of pixels.

    A key is the mean direction of its block, a value the sum over it, so a block counts as much as
    its pixels.
    """
    batch, height, width = size
    # The second bound is that of maps with fewer rows than a block has.
    if isinstance(height * width, int):
        side = math.ceil(max(math.sqrt(height * width / max_keys), max(height, width) / max_keys))
    else:  # sizes that the graph learns with each picture
        area = ops.cast(height * width, "float32")
        longer = ops.cast(ops.maximum(height, width), "float32")
        side = ops.maximum(ops.sqrt(area / max_keys), longer / max_keys)
        side = ops.cast(ops.ceil(side), "int32")
    rows, columns = (height + side - 1) // side, (width + side - 1) // side

    def blocks(x):  # [B, N, D] -> [B, M, D], sums
        depth = x.shape[-1]
        x = ops.reshape(x, (batch, height, width, depth))
        x = ops.pad(x, [[0, 0], [0, rows * side - height], [0, columns * side - width], [0, 0]])
        x = ops.reshape(x, (batch, rows, side, columns, side, depth))
        return ops.reshape(ops.sum(x, axis=(2, 4)), (batch, rows * columns, depth))

    values = blocks(values)
    return blocks(unit) / values[..., -1:], values


@keras.saving.register_keras_serializable("wsss_tf")
class Pcm(keras.layers.Layer):
    """Pixel correlation module: a 1x1 embedding `f9` and the propagation of scores by its affinity.

    Args:
      filters: embedding size, 192 in SEAM.
      tile, max_keys: as in `pixel_correlation`; used in inference only.

    Call: `pcm([cam, features])` with `cam` [B, h, w, K] and `features` [B, h, w, D];
    returns float32 [B, h, w, K].

        refined = Pcm(192, name="pcm")([cam, features])
    """

    def __init__(self, filters, tile=None, max_keys=MAX_KEYS, **kwargs):
        # Under mixed precision only the embedding is rounded, not the scores.
        super().__init__(autocast=False, **kwargs)
        self.filters = filters
        self.tile = tile
        self.max_keys = max_keys

    def build(self, input_shape):
        _, features = input_shape
        self.f9 = keras.layers.Conv2D(
            self.filters,
            1,
            use_bias=False,
            # Xavier uniform with gain 4.
            kernel_initializer=keras.initializers.VarianceScaling(16, "fan_avg", "uniform"),
            dtype=self.dtype_policy,
            name="f9",
        )
        self.f9.build(features)

    def call(self, inputs, training=None):
        cam, features = inputs
        sizes = zip(cam.shape[1:3], features.shape[1:3])
        if any(None not in pair and pair[0] != pair[1] for pair in sizes):
            raise ValueError(f"cam {cam.shape} and features {features.shape} differ in size.")
        bounds = (None, None) if training else (self.tile, self.max_keys)
        return pixel_correlation(cam, self.f9(features), *bounds)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs[0].shape, "float32")

    def get_config(self):
        own = {"filters": self.filters, "tile": self.tile, "max_keys": self.max_keys}
        return {**super().get_config(), **own}
