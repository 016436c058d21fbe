"""Mean field inference in a fully connected CRF, exactly, as a layer."""

import keras
from keras import ops

# Added to the row sums of a kernel before it is normalised, as in the reference.
_EPSILON = 1e-20


def mean_field(
    logits,
    image,
    bilateral_weight=10.0,
    bilateral_xy=80 / 12,
    bilateral_rgb=13.0,
    gaussian_weight=3.0,
    gaussian_xy=3 / 12,
    iterations=10,
    tile=None,
):
    """Return the mean field marginals of a fully connected CRF with Potts compatibility.

    The energy of a label is minus its logit. Two kernels join every pixel with every pixel, itself
    included, and are normalised symmetrically, D^-1/2 K D^-1/2 with D the sums of K's rows:
    exp(-|xy|^2 / (2 bilateral_xy^2) - |rgb|^2 / (2 bilateral_rgb^2)) and
    exp(-|xy|^2 / (2 gaussian_xy^2)). An iteration is Q <- softmax(logits + the kernels' weighted
    sums of Q), for all pixels at once, and starts from softmax(logits).

    Args:
      logits: [B, h, w, K]; what is added to all labels of a pixel changes nothing.
      image: [B, h, w, 3] colours of the same pixels, in 0..255, any dtype.
      bilateral_weight, gaussian_weight: of the two kernels.
      bilateral_xy, gaussian_xy: standard deviations in pixels of this grid.
      bilateral_rgb: standard deviation in grey levels.
      iterations: how many; the marginals of ten have not settled yet, so it matters.
      tile: pixels whose rows of the bilateral kernel are held at a time; None for all. With tiles
        the kernel is computed again in each iteration, and memory grows with N = h w instead of its
        square.

    Returns:
      float32 [B, h, w, K] (float64 for such logits), positive, sums of one. Differentiable in both
      inputs.

    Raises:
      ValueError: the inputs differ in size.

    Memory: a [B, N, N] map and two more while it is made (41 x 41: 11 MB an image and map), or
    [B, tile, N] ones. The Gaussian kernel is a product of one along rows and one along columns.
    Source: Krähenbühl and Koltun, NIPS 2011, here without the approximation of its high-dimensional
    filter; parameters of SEC's training (official code: full-size ones over a factor of 12).
    """
    pairs = zip(logits.shape[:3], image.shape[:3])
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(f"logits {logits.shape} and image {image.shape} differ in size.")
    logits = ops.convert_to_tensor(logits)
    dtype = keras.backend.result_type(logits.dtype, "float32")
    batch, height, width, classes = ops.shape(logits)
    count = height * width
    shape = (batch, height, width, classes)
    unary = ops.reshape(ops.cast(logits, dtype), (batch, count, classes))

    rows, columns = ops.arange(height, dtype=dtype), ops.arange(width, dtype=dtype)
    gaussian_rows = _normalized(_gaussian(rows, rows, gaussian_xy))
    gaussian_columns = _normalized(_gaussian(columns, columns, gaussian_xy))

    def gaussian(q):  # [B, N, K] -> [B, N, K]
        q = ops.reshape(q, (batch, height, width * classes))
        q = ops.reshape(ops.matmul(gaussian_rows, q), shape)
        return ops.reshape(ops.matmul(gaussian_columns, q), (batch, count, classes))

    # Five features a pixel, in standard deviations: [5, B or 1, N].
    colours = ops.cast(image, dtype) / bilateral_rgb
    colours = ops.transpose(ops.reshape(colours, (batch, count, 3)), (2, 0, 1))
    grid = ops.stack(ops.meshgrid(rows, columns, indexing="ij")) / bilateral_xy
    grid = ops.reshape(grid, (2, 1, count))

    def bilateral_rows(grid_part, colour_part):  # features of M pixels -> [B, M, N]
        # Differences, not |a|^2 + |b|^2 - 2ab, which cancels in float32.
        square = _square_distance(grid_part, grid) + _square_distance(colour_part, colours)
        return ops.exp(-0.5 * square)

    if tile is None:
        kernel = bilateral_rows(grid, colours)
        scale = ops.rsqrt(ops.sum(kernel, axis=-1, keepdims=True) + _EPSILON)

        def bilateral(q):  # D^-1/2 on Q, which is smaller than the kernel
            return scale * ops.matmul(kernel, scale * q)

    else:
        tiles = (count + tile - 1) // tile
        padding = [[0, 0], [0, 0], [0, tiles * tile - count]]

        def split(features):  # [D, B, N] -> [tiles, D, B, tile]
            parts = ops.pad(features, padding)
            parts = ops.reshape(parts, (*ops.shape(features)[:2], tiles, tile))
            return ops.transpose(parts, (2, 0, 1, 3))

        parts = split(grid), split(colours)

        def product(q):
            result = ops.map(lambda part: ops.matmul(bilateral_rows(*part), q), parts)
            result = ops.transpose(result, (1, 0, 2, 3))
            return ops.reshape(result, (batch, tiles * tile, q.shape[-1]))[:, :count]

        scale = ops.rsqrt(product(ops.ones((batch, count, 1), dtype)) + _EPSILON)

        def bilateral(q):
            return scale * product(scale * q)

    q = ops.softmax(unary, axis=-1)
    for _ in range(iterations):
        q = unary + gaussian_weight * gaussian(q) + bilateral_weight * bilateral(q)
        q = ops.softmax(q, axis=-1)
    return ops.reshape(q, shape)


def _gaussian(first, second, deviation):
    """Return exp(-(a - b)^2 / (2 deviation^2)) for all pairs, [M, N]."""
    return ops.exp(-0.5 * ops.square((first[:, None] - second[None, :]) / deviation))


def _normalized(kernel):
    """Return D^-1/2 K D^-1/2 of a symmetric kernel [N, N], D its row sums."""
    scale = ops.rsqrt(ops.sum(kernel, axis=-1) + _EPSILON)
    return scale[:, None] * kernel * scale[None, :]


def _square_distance(first, second):
    """Return [B, M, N] squared distances of features [D, B, M] and [D, B, N], one D at a time."""
    total = 0.0
    for a, b in zip(ops.unstack(first), ops.unstack(second)):
        total = total + ops.square(a[:, :, None] - b[:, None, :])
    return total


@keras.saving.register_keras_serializable("wsss_tf")
class MeanField(keras.layers.Layer):
    """`mean_field` as a layer without weights.

    Args: as `mean_field`.

    Call: `layer([logits, image])` with `logits` [B, h, w, K] and `image` [B, h, w, 3];
    returns float32 [B, h, w, K].

        marginals = MeanField(iterations=10, name="crf")([logits, image])
    """

    def __init__(
        self,
        bilateral_weight=10.0,
        bilateral_xy=80 / 12,
        bilateral_rgb=13.0,
        gaussian_weight=3.0,
        gaussian_xy=3 / 12,
        iterations=10,
        tile=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # colours and logits need all their digits
        self.bilateral_weight = bilateral_weight
        self.bilateral_xy = bilateral_xy
        self.bilateral_rgb = bilateral_rgb
        self.gaussian_weight = gaussian_weight
        self.gaussian_xy = gaussian_xy
        self.iterations = iterations
        self.tile = tile

    def _settings(self):
        return {
            "bilateral_weight": self.bilateral_weight,
            "bilateral_xy": self.bilateral_xy,
            "bilateral_rgb": self.bilateral_rgb,
            "gaussian_weight": self.gaussian_weight,
            "gaussian_xy": self.gaussian_xy,
            "iterations": self.iterations,
            "tile": self.tile,
        }

    def call(self, inputs):
        logits, image = inputs
        return mean_field(logits, image, **self._settings())

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, "float32")

    def get_config(self):
        return {**super().get_config(), **self._settings()}
