"""Class probabilities of pictures of any size, from a network that predicts masks."""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.files import images

# How the 8-bit picture is brought to a scale: function of (pictures, size).
RESIZE_METHODS = {
    "bilinear": lambda x, size: ops.resize_bilinear(x, size, align_corners=False),
    "bilinear_align_corners": lambda x, size: ops.resize_bilinear(x, size, align_corners=True),
    "opencv_cubic": lambda x, size: images.resize_cubic(tf.cast(x, tf.float32), size),
    "pillow_bicubic": images.resize_bicubic,
}


class MultiScalePredictor(tf.Module):
    """Softmax of logits averaged over scales, mirror images and windows, as one function.

    Args: as `multi_scale_predictor`.

    Call: `predictor(pictures uint8 [B, H, W, 3])` returns probabilities, float32 [B, H, W, K].

    Memory: the copies run one after the other, windows too; beside the network's own there are
    three maps of K channels at a time, of the largest copy.
    """

    def __init__(
        self,
        net,
        scales,
        flip,
        window_size,
        window_stride,
        input_size,
        image_resize,
        align_corners,
        preprocess,
    ):
        super().__init__()
        if "logits" not in net.output:
            raise UserError(
                f"the network has no output 'logits', only {sorted(net.output)}; "
                "does it predict masks?"
            )
        if not scales or min(scales) <= 0:
            raise UserError(f"scales = {scales}; give positive numbers, such as (0.5, 1.0).")
        if image_resize not in RESIZE_METHODS:
            raise UserError(
                f"image_resize = {image_resize!r}; there is {', '.join(RESIZE_METHODS)}."
            )
        self.net = net
        self.num_classes = net.output["logits"].shape[-1]
        self.scales = tuple(scales)
        self.flip = flip
        self.window_size = _pair(window_size, "window_size")
        self.window_stride = _pair(window_stride, "window_stride")
        if self.window_size and not self.window_stride:
            self.window_stride = tuple(max(1, side * 2 // 3) for side in self.window_size)
        if self.window_size and any(map(int.__gt__, self.window_stride, self.window_size)):
            raise UserError(
                f"window_stride = {self.window_stride} leaves gaps between windows of "
                f"{self.window_size}."
            )
        self.input_size = _pair(input_size, "input_size")
        self.resize = RESIZE_METHODS[image_resize]
        self.align_corners = align_corners
        self.preprocess = preprocess

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def __call__(self, pictures):
        return tf.nn.softmax(self.mean_logits(pictures))

    def mean_logits(self, pictures):
        """Return logits, float32 [B, H, W, K], averaged over the copies of uint8 pictures."""
        size = tf.shape(pictures)[1:3]
        total = tf.zeros([])
        for scale in self.scales:
            # One after the other: the graph alone would allow all scales at once.
            with tf.control_dependencies([total]):
                image = self.preprocess(self.resize(tf.identity(pictures), self._size(size, scale)))
                if self.input_size:
                    image = tf.ensure_shape(image, [None, *self._size(None, scale), 3])
                logits = self._logits(image)
            if self.flip:
                with tf.control_dependencies([logits]):
                    mirrored = tf.reverse(image, [2])
                    logits += tf.reverse(self._logits(mirrored), [2])
            total += ops.resize_bilinear(logits, size, self.align_corners)
        return total / (len(self.scales) * (2 if self.flip else 1))

    def _size(self, size, scale):
        """Return (height, width) at a scale, rounded half to even, at least one pixel."""
        if self.input_size:
            return tuple(max(1, round(side * scale)) for side in self.input_size)
        scaled = tf.round(tf.cast(size, tf.float64) * scale)
        return tf.maximum(tf.cast(scaled, tf.int32), 1)

    def _logits(self, image):
        if self.window_size:
            return self._windowed_logits(image)
        return tf.cast(self.net(image, training=False)["logits"], tf.float32)

    def _windowed_logits(self, image):
        """Return logits of an image, [B, h, w, K], each pixel's mean over the windows on it."""
        window, stride = tf.constant(self.window_size), tf.constant(self.window_stride)
        batch, size = tf.shape(image)[0], tf.shape(image)[1:3]
        padded = tf.maximum(size, window)
        # Zero is the mean colour.
        rest = padded - size
        image = tf.pad(image, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]])
        counts = (padded - window + stride - 1) // stride + 1
        # The last window is shifted back inside.
        tops, lefts = (
            tf.minimum(tf.range(counts[axis]) * stride[axis], padded[axis] - window[axis])
            for axis in (0, 1)
        )

        def add_window(i, total):
            top, left = tops[i // counts[1]], lefts[i % counts[1]]
            bottom, right = top + window[0], left + window[1]
            part = tf.ensure_shape(
                image[:, top:bottom, left:right], [None, *self.window_size, image.shape[-1]]
            )
            logits = tf.cast(self.net(part, training=False)["logits"], tf.float32)
            logits = ops.resize_bilinear(logits, window, self.align_corners)
            edges = [[top, padded[0] - bottom], [left, padded[1] - right]]
            return i + 1, total + tf.pad(logits, [[0, 0], *edges, [0, 0]])

        shape = [batch, padded[0], padded[1], self.num_classes]
        static = [image.shape[0], None, None, self.num_classes]
        _, total = tf.while_loop(
            lambda i, total: i < counts[0] * counts[1],
            add_window,
            [tf.constant(0), tf.zeros(shape)],
            shape_invariants=[tf.TensorShape([]), tf.TensorShape(static)],
            parallel_iterations=1,
        )
        visits = _visits(tops, window[0], padded[0])[:, None] * _visits(lefts, window[1], padded[1])
        return (total / visits[..., None])[:, : size[0], : size[1]]


def _visits(begins, window, length):
    """Return how many windows lie on each position of an axis, float32 [length]."""
    position = tf.range(length)[:, None]
    return tf.reduce_sum(
        tf.cast((position >= begins) & (position < begins + window), tf.float32), axis=1
    )


def _pair(size, name):
    """Return (height, width) of positive ints from an int or a pair; None stays None."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise UserError(f"{name} = {size!r}; give pixels, a number or (height, width).")
    return pair


def multi_scale_predictor(
    network,
    scales=(1.0,),
    flip=False,
    window_size=None,
    window_stride=None,
    input_size=None,
    image_resize="bilinear",
    align_corners=False,
    preprocess=ops.normalize_image,
):
    """Return the function of pictures to class probabilities that the commands use.

    Args:
      network: with the output "logits", [B, h, w, K].
      scales: factors on the picture's size; each scaled size is rounded half to even.
      flip: run the mirror image of each copy too.
      window_size: run the network on windows of this size only, an int or (height, width), pixels,
        for networks with a fixed input; a smaller copy lies on a canvas of mean colour. None for
        whole pictures.
      window_stride: from one window to the next; None for 2/3 of `window_size`. The last window is
        shifted back inside.
      input_size: bring every picture to this size, an int or (height, width), whatever its own
        proportions; `scales` are then factors on it. None keeps the picture's size.
      image_resize: "bilinear" (half-pixel centres), "bilinear_align_corners" or "opencv_cubic", on
        floats; "pillow_bicubic", antialiased and rounded to 8 bits. None of them changes a picture
        that has the size already.
      align_corners: how logits are resized to the picture's size, as in `ops.resize_bilinear`.
      preprocess: function of RGB [B, h, w, 3] in 0..255 to the network's input.

    Returns:
      `MultiScalePredictor`.

    Raises:
      UserError: an argument out of range, or a network without logits.
    """
    return MultiScalePredictor(
        network,
        scales,
        flip,
        window_size,
        window_stride,
        input_size,
        image_resize,
        align_corners,
        preprocess,
    )
