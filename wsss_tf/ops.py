"""Small tensor functions without state, in `keras.ops` only.

Letters of shapes: B batch, H W image size, h w map size, C foreground classes, K = C + 1 classes
with background first, D features, N = h * w.
"""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EPSILON = 1e-5


def normalize_image(image):
    """Scale RGB values to what ImageNet-trained backbones expect.

    Args:
      image: [..., H, W, 3] in 0..255, any dtype.

    Returns:
      float32 [..., H, W, 3]: (v / 255 - mean) / std, so zero is the mean colour.
    """
    image = ops.cast(image, "float32")
    return (image / 255.0 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)


def denormalize_image(image):
    """Undo `normalize_image`: float32 [..., H, W, 3] to RGB values in 0..255, float32."""
    image = ops.cast(image, "float32")
    return (image * np.float32(IMAGENET_STD) + np.float32(IMAGENET_MEAN)) * 255.0


def resize_bilinear(x, size, align_corners):
    """Resize maps bilinearly, without antialiasing.

    Args:
      x: [B, H, W, D] float.
      size: (height, width), ints or scalar integer tensors.
      align_corners: True takes source coordinate i * (in - 1) / (out - 1), as the SEAM network and
        losses do; False half-pixel centres, clamped, as its CAM inference does.

    Returns:
      float32 [B, height, width, D].
    """
    x = ops.cast(x, "float32")
    if keras.backend.backend() == "tensorflow":
        # `keras.ops` has no aligned corners (two gathers per axis take 3 to 14 times as long on a
        # CPU, and equal this to 8e-7) and resizes to no size that is known only in the graph.
        import tensorflow as tf

        return tf.raw_ops.ResizeBilinear(
            images=x, size=size, align_corners=align_corners, half_pixel_centers=not align_corners
        )
    if not align_corners:
        return ops.image.resize(x, size, interpolation="bilinear", antialias=False)
    for axis in (1, 2):
        x = _interpolate_axis(x, size[axis - 1], axis)
    return x


def _interpolate_axis(x, length, axis):
    """Linear interpolation along one axis with aligned corners.

    By a product with a constant matrix, whose gradient is a product as well: that of a gather is a
    scatter, which is slow on GPUs.
    """
    subscripts = {1: "oi,bijd->bojd", 2: "oj,bijd->biod"}[axis]
    with _exact_products():
        return ops.einsum(subscripts, _aligned_weights(x.shape[axis], length), x)


def _aligned_weights(old, length):
    """Return float32 [length, old]: each output's shares of the inputs on its two sides."""
    position = np.arange(length, dtype=np.float32) * np.float32((old - 1) / max(length - 1, 1))
    low = np.clip(np.floor(position).astype(int), 0, old - 1)
    high = np.minimum(low + 1, old - 1)
    share = position - low.astype(np.float32)
    weights = np.zeros((length, old), np.float32)
    rows = np.arange(length)
    weights[rows, low] = 1 - share
    weights[rows, high] += share
    return weights


def _exact_products():
    """Return a context in which JAX rounds no factor of a product to TensorFloat-32, as on GPUs."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("highest")


def dilated_conv(x, kernel, padding, dilation):
    """Convolve with stride 1 and a dilation, which may be wide.

    On TensorFlow `keras.ops.conv` cuts the padded input into dilation^2 maps and convolves these.
    At dilation 12 most of that is padding: on a CPU value and gradients of a 13 x 13 map take nine
    times as long as by TensorFlow's own dilated convolution, of a 41 x 41 map twice; at dilations 2
    and 4 of a 56 x 56 map as long. The latter's gradient is oneDNN's alone (`command.py` switches
    it on), which has it in half precision on some CPUs only. On JAX the kernel's gradient is
    `_grid_kernel_gradient`.

    Args:
      x: [B, H, W, D].
      kernel: [rows, columns, D, F].
      padding: "same" or "valid".
      dilation: (down, across).

    Returns:
      [B, H', W', F] of x's dtype, as `keras.ops.conv` gives.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if keras.backend.backend() == "tensorflow" and _tensorflow_has_dilated_gradient(dtype):
        import tensorflow as tf

        return tf.nn.conv2d(x, kernel, 1, padding.upper(), dilations=dilation)
    if keras.backend.backend() == "jax":
        return _jax_dilated_conv(x, kernel, padding, dilation)
    return ops.conv(x, kernel, padding=padding, dilation_rate=dilation)


def _jax_dilated_conv(x, kernel, padding, dilation):
    """`ops.conv`, whose kernel gets its gradient by `_grid_kernel_gradient`."""
    import jax

    def convolve(x, kernel):
        return ops.conv(x, kernel, padding=padding, dilation_rate=dilation)

    @jax.custom_vjp
    def convolution(x, kernel):
        return convolve(x, kernel)

    def forward(x, kernel):
        return convolve(x, kernel), (x, kernel)

    def backward(inputs, upstream):
        x, kernel = inputs
        [of_x] = jax.linear_transpose(lambda x: convolve(x, kernel), x)(upstream)
        return of_x, _grid_kernel_gradient(x, kernel, upstream, padding, dilation)

    convolution.defvjp(forward, backward)
    # Of variables JAX takes no gradients here.
    return convolution(ops.convert_to_tensor(x), ops.convert_to_tensor(kernel))


def _grid_kernel_gradient(x, kernel, upstream, padding, dilation):
    """Return the gradient of a dilated convolution's kernel, from that of a plain one (JAX).

    Pixels that are a dilation apart meet under the kernel, others never do: the map is cut into
    dilation^2 grids, and a plain convolution of these has the same gradient. Left to itself JAX
    writes it as a convolution of the map with a window as large as the map, and a stride of the
    dilation, for which cuDNN has no fast kernel.
    """
    import jax

    reach = [(taps - 1) * d for taps, d in zip(kernel.shape, dilation)]
    # As "same" pads at stride 1, and then on to whole rows and columns of grids.
    before = [r // 2 if padding == "same" else 0 for r in reach]
    cells = [-(-length // d) for length, d in zip(upstream.shape[1:3], dilation)]
    wide = [(n + taps - 1) * d for n, taps, d in zip(cells, kernel.shape, dilation)]
    high = [n * d for n, d in zip(cells, dilation)]
    x = _grids(x, before, wide, dilation)
    upstream = _grids(upstream, (0, 0), high, dilation)
    [gradient] = jax.linear_transpose(lambda k: ops.conv(x, k, padding="valid"), kernel)(upstream)
    return gradient


def _grids(x, before, size, dilation):
    """Cut [B, H, W, D], padded to `size`, into grids: [d_1 d_2 B, size / d.., D], one per phase."""
    batch, height, width, depth = x.shape
    after = [n - b - old for n, b, old in zip(size, before, (height, width))]
    x = ops.pad(x, [[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]])
    (down, across), (rows, columns) = dilation, size
    x = ops.reshape(x, (batch, rows // down, down, columns // across, across, depth))
    x = ops.transpose(x, (2, 4, 0, 1, 3, 5))
    return ops.reshape(x, (down * across * batch, rows // down, columns // across, depth))


@functools.cache
def _tensorflow_has_dilated_gradient(dtype):
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU"):
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 5, 5, 16],
                filter=tf.ones([3, 3, 16, 16], dtype),
                out_backprop=tf.ones([1, 5, 5, 16], dtype),
                strides=[1, 1, 1, 1],
                padding="SAME",
                dilations=[1, 2, 2, 1],
            )
        except tf.errors.OpError:
            return False
    return True


def weighted_rank_pooling(scores, decay):
    """Pool each map to a mean weighted by rank: global weighted rank pooling.

    Args:
      scores: [B, h, w, K].
      decay: in [0, 1], a number or one for each class: the j-th largest value of a map (from 0)
        has the weight decay^j. 0 is the maximum (0^0 = 1), 1 the average.

    Returns:
      [B, K], dtype of `scores`. Gradient reaches each pixel by the weight of its rank.

    Source: SEC (Kolesnikov and Lampert, ECCV 2016), equation 3.
    """
    _, height, width, classes = ops.shape(scores)
    if isinstance(decay, int | float):
        if decay == 0:
            return ops.max(scores, axis=(1, 2))
        if decay == 1:
            return ops.mean(scores, axis=(1, 2))
        decay = [decay] * classes
    count = height * width
    if isinstance(count, int):  # in float64: the weights have powers of hundreds
        weights = np.power(np.float64(decay)[:, None], np.arange(count))
        weights /= weights.sum(axis=1, keepdims=True)
    else:
        rank = ops.cast(ops.arange(count), "float64")
        weights = ops.power(ops.convert_to_tensor(decay, "float64")[:, None], rank)
        weights = weights / ops.sum(weights, axis=1, keepdims=True)
    # Classes before pixels: sorted along the last axis, where values lie side by side.
    flat = ops.reshape(ops.transpose(scores, (0, 3, 1, 2)), (-1, classes, count))
    ranked = -ops.sort(-flat, axis=-1)
    return ops.sum(ranked * ops.cast(weights, scores.dtype), axis=-1)


def max_norm(scores):
    """Scale each map to a spatial maximum of one, as SEAM's losses do.

    Args:
      scores: [B, h, w, K]; negative values count as zero.

    Returns:
      [B, h, w, K]: ReLU(p - min - 1e-5) / (max - min + 1e-5) with p = ReLU(scores). Gradient flows
      through the maximum and the minimum too.

    Source: official `max_norm`, version of the training code.
    """
    p = ops.relu(scores)
    high = ops.max(p, axis=(1, 2), keepdims=True)
    low = ops.min(p, axis=(1, 2), keepdims=True)
    return ops.relu(p - low - EPSILON) / (high - low + EPSILON)


def with_background(scores):
    """Replace channel 0 by one minus the strongest foreground score.

    Args:
      scores: [B, h, w, K]; channel 0 is ignored.

    Returns:
      [B, h, w, K].
    """
    foreground = scores[..., 1:]
    background = 1 - ops.max(foreground, axis=-1, keepdims=True)
    return ops.concatenate([background, foreground], axis=-1)


def suppress_non_maxima(scores):
    """Set every foreground score below its pixel's foreground maximum to zero.

    Args:
      scores: [B, h, w, K]; channel 0 (background) is left as it is.

    Returns:
      [B, h, w, K]; ties all survive, and the maximum keeps its value.

    Source: official `max_onehot`.
    """
    foreground = scores[..., 1:]
    strongest = ops.max(foreground, axis=-1, keepdims=True)
    kept = ops.where(foreground == strongest, foreground, ops.zeros_like(foreground))
    return ops.concatenate([scores[..., :1], kept], axis=-1)


def normalize_cam(scores):
    """Turn raw class scores into the map that the PCM propagates.

    Args:
      scores: [B, h, w, K] classifier output, any sign; channel 0 is overwritten.

    Returns:
      [B, h, w, K] in [0, 1]: foreground maps with peak one, all but the strongest of each pixel set
      to zero; background is one minus the strongest. No gradient flows.

    Source: official `Net.forward`, the block under `torch.no_grad`.
    """
    scores = ops.relu(ops.stop_gradient(scores))
    high = ops.max(scores, axis=(1, 2), keepdims=True) + EPSILON
    return suppress_non_maxima(with_background(ops.relu(scores - EPSILON) / high))


# === Pairs of neighbouring pixels (AffinityNet, IRN) ===


def search_radius(height, width, radius=5):
    """Return the radius in which a map's pixels are paired: smaller for maps under 11 pixels.

    Args:
      height, width: of the map, ints.
      radius: of maps that are large enough.

    Returns:
      int: `radius`, or (min - 1) // 2 where the map's shorter side `min` is under 2 radius + 1.
    """
    shorter = min(height, width)
    return radius if shorter >= 2 * radius + 1 else (shorter - 1) // 2


def pair_offsets(radius):
    """Return the offsets (dy, dx) from a pixel to its partners, below it and to its right.

    A list of O pairs of ints within a distance under `radius`, in the official order; 34 for 5, and
    none for 1 and 0.
    """
    reach = range(1 - radius, radius)
    right = [(0, dx) for dx in range(1, radius)]
    below = [(dy, dx) for dy in range(1, radius) for dx in reach if dy**2 + dx**2 < radius**2]
    return right + below


def pair_values(maps, radius):
    """Return what a map holds at both ends of every pair of pixels.

    Args:
      maps: [B, h, w], any dtype.
      radius: as `search_radius` gives for h and w.

    Returns:
      `start` [B, M] and `end` [B, O, M], M = (h - r + 1) (w - 2 r + 2). Only pixels whose whole
      neighbourhood is on the map start a pair, so pixels near a border have fewer partners than
      others, and some none.

    Source: AffinityNet, official `get_indices_of_pairs`.
    """
    windows = _pair_windows(maps, radius)
    batch = ops.shape(maps)[0]
    start, *ends = [ops.reshape(window, (batch, -1)) for window in windows]
    if not ends:
        return start, ops.zeros((batch, 0, ops.shape(start)[1]), maps.dtype)
    return start, ops.stack(ends, axis=1)


def pairwise_affinity(features, radius):
    """Return how alike the two pixels of every pair are.

    Args:
      features: [B, h, w, D].
      radius: as `search_radius` gives for h and w.

    Returns:
      float32 [B, O, M] in (0, 1]: exp(-mean over D of |difference|), pairs as in `pair_values`.

    Memory in training: two [B, h, w, D] maps an offset while gradients are summed (56 x 56,
    D = 448, B = 8: 3 GB by count, not measured).
    Source: AffinityNet (Ahn and Kwak, CVPR 2018), equation 1; official `network/resnet38_aff.py`.
    """
    features = ops.cast(features, "float32")
    batch, height, width, depth = ops.shape(features)
    offsets = pair_offsets(radius)
    if not offsets:
        return ops.zeros((batch, 0, height * width))

    # Left to itself TensorFlow adds the gradients of the windows, one an offset, in whatever order
    # their buffers become free, also under op determinism. One reduction has a fixed order.
    @ops.custom_gradient
    def affinity_of(maps):
        start, *ends = _pair_windows(maps, radius)
        affinities = [ops.exp(-ops.mean(ops.abs(end - start), axis=-1)) for end in ends]

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            of_ends = [
                ops.sign(start - end) * (upstream[:, i] * affinity / depth)[..., None]
                for i, (end, affinity) in enumerate(zip(ends, affinities))
            ]
            return _sum_on_map(of_ends, radius, height, width)

        return ops.stack(affinities, axis=1), gradient

    return ops.reshape(affinity_of(features), (batch, len(offsets), -1))


def pair_differences(maps, radius):
    """Return by how much the two pixels of every pair differ.

    Args:
      maps: [B, h, w, D].
      radius: as `search_radius` gives for h and w.

    Returns:
      float32 [B, O, M, D]: the pixel that starts a pair minus the one that ends it, pairs as in
      `pair_values`.
    """
    maps = ops.cast(maps, "float32")
    batch, height, width, depth = ops.shape(maps)
    offsets = pair_offsets(radius)
    if not offsets:
        return ops.zeros((batch, 0, height * width, depth))

    @ops.custom_gradient  # for its order of sums, as above
    def differences_of(maps):
        start, *ends = _pair_windows(maps, radius)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            of_ends = [-upstream[:, i] for i in range(len(offsets))]
            return _sum_on_map(of_ends, radius, height, width)

        return ops.stack([start - end for end in ends], axis=1), gradient

    return ops.reshape(differences_of(maps), (batch, len(offsets), -1, depth))


def _sum_on_map(of_ends, radius, height, width):
    """Return the gradient of a map from those of the pixels that end pairs, [B, rows, columns, D].

    The pixel that starts a pair has the opposite.
    """
    rows, columns = ops.shape(of_ends[0])[1:3]
    of_start = -ops.sum(ops.stack(of_ends), axis=0)
    on_map = [
        ops.pad(part, [[0, 0], [dy, height - dy - rows], [x, width - x - columns], [0, 0]])
        for part, (dy, x) in zip([of_start, *of_ends], _window_corners(radius))
    ]
    return ops.sum(ops.stack(on_map), axis=0)


def _window_corners(radius):
    """Return the top left corners (y, x) of the windows that `_pair_windows` cuts out."""
    margin = max(radius - 1, 0)
    return [(dy, dx + margin) for dy, dx in [(0, 0), *pair_offsets(radius)]]


def _pair_windows(maps, radius):
    """Return the pixels that start pairs, and for each offset those that end them."""
    height, width = ops.shape(maps)[1:3]
    margin = max(radius - 1, 0)
    rows, columns = height - margin, width - 2 * margin
    return [maps[:, y : y + rows, x : x + columns] for y, x in _window_corners(radius)]
