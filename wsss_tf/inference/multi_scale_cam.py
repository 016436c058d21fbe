"""Class activation maps of a picture, summed over scales and flips."""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.files import images

SCALES = (0.5, 1.0, 1.5, 2.0)
EPSILON = ops.EPSILON


def multi_scale_scores(net, pictures, output="cam_rv", scales=SCALES, flip=True):
    """Run a network on scaled and mirrored copies of pictures and add up its maps.

    Args:
      net: `models.seam.seam_network`, or any model with the outputs "cam" and `output`.
      pictures: uint8 [B, H, W, 3] RGB, any size.
      output: name of the score maps, [B, H, W, K] with background first. Of raw "cam"
        scores negative ones count as zero in each copy, as in AffinityNet's CAM; of others in the
        sum, as in SEAM's.
      scales: factors on the size; each scaled size is rounded half to even.
      flip: run the mirror images too.

    Returns:
      scores: float32 [B, H, W, C], foreground classes, not normalised, >= 0.
      probabilities: float32 [B, C], the classifier's, from the mean of its logits over the copies.

    Source: official `infer_SEAM.py`: bicubic resizing of the 8-bit picture, and bilinear resizing
    of the maps without aligned corners.
    """
    classes = net.output[output].shape[-1] - 1

    def run(copies):
        outputs = net(copies, training=False)
        maps = tf.cast(outputs[output], tf.float32)[..., 1:]
        if output == "cam":  # raw scores: a copy that votes against a class must not cancel others
            maps = tf.nn.relu(maps)
        return maps, tf.reduce_mean(tf.cast(outputs["cam"], tf.float32), axis=[1, 2])[:, 1:]

    total, logits = sum_over_copies(run, pictures, scales, flip, classes, classes)
    return tf.nn.relu(total), tf.sigmoid(logits)


def sum_over_copies(run, pictures, scales, flip, depth, num_values):
    """Add up the maps of scaled and mirrored copies of pictures, all brought to the pictures' size.

    Args:
      run: function of normalised copies float32 [B, h, w, 3] to (maps [B, any, any, P], values
        [B, C]).
      pictures, scales, flip: as in `multi_scale_scores`.
      depth, num_values: P and C, ints or scalar tensors.

    Returns:
      (float32 [B, H, W, P] sum of the maps, float32 [B, C] mean of the values).

    Memory: a loop whose body is one copy, so that neither the graph nor its memory grows with their
    number.
    """
    batch, *size = tf.unstack(tf.shape(pictures)[:3])
    factors = tf.constant([scale for scale in scales for _ in range(1 + flip)], tf.float64)
    count = len(scales) * (1 + flip)

    def add_copy(i, total, mean):
        scaled = tf.round(tf.cast(size, tf.float64) * factors[i])
        scaled = tf.maximum(tf.cast(scaled, tf.int32), 1)
        copies = ops.normalize_image(images.resize_bicubic(pictures, scaled))

        # The second of two copies of a size is the mirror image.
        def turn(x):
            return tf.cond(i % 2 == 1, lambda: tf.reverse(x, [2]), lambda: x) if flip else x

        maps, values = run(turn(copies))
        maps = turn(ops.resize_bilinear(maps, size, align_corners=False))
        return i + 1, total + maps, mean + values / count

    start = (0, tf.zeros([batch, *size, depth]), tf.zeros([batch, num_values]))
    _, total, mean = tf.while_loop(lambda i, *_: i < count, add_copy, start, parallel_iterations=1)
    return total, mean


def normalize_scores(scores):
    """Scale summed score maps to [0, 1], one peak a class.

    Args:
      scores: float32 [B, H, W, C], >= 0.

    Returns:
      float32 [B, H, W, C]: (s - min - 1e-5) / (max - min + 1e-5) per class, with s < min + 1e-5 set
      to zero first. As in the official code, the pixels at the minimum come out negative where the
      minimum is positive, and a class without any score is -1 everywhere; files hold them as 0.
    """
    high = tf.reduce_max(scores, axis=[1, 2], keepdims=True)
    low = tf.reduce_min(scores, axis=[1, 2], keepdims=True)
    kept = tf.where(scores < low + EPSILON, 0.0, scores)
    return (kept - low - EPSILON) / (high - low + EPSILON)


def check_output(net, output):
    """Check that a network has an output to take as CAM.

    Raises:
      UserError: it has not.
    """
    if output not in net.output:
        raise UserError(
            f"the network has no output {output!r} to take as CAM, only {sorted(net.output)}."
        )


class MultiScaleCam(tf.Module):
    """The two steps above as one compiled function, for pictures of any size.

    Args:
      net, output, scales, flip: as in `multi_scale_scores`.

    Raises:
      UserError: the network has no such output.

    Call: `module(pictures uint8 [B, H, W, 3])` returns {"cams": float32 [B, H, W, C] in [0, 1] for
    all classes, "probabilities": float32 [B, C]}. Labels may be given too, as to `GradCam`; all
    classes come out of one pass, so they change nothing.
    """

    def __init__(self, net, output="cam_rv", scales=SCALES, flip=True):
        super().__init__()
        check_output(net, output)
        self.net = net
        self.output = output
        self.scales = tuple(scales)
        self.flip = flip

    def __call__(self, pictures, labels=None):
        del labels
        return self._compute(pictures)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def _compute(self, pictures):
        scores, probabilities = multi_scale_scores(
            self.net, pictures, self.output, self.scales, self.flip
        )
        cams = tf.clip_by_value(normalize_scores(scores), 0.0, 1.0)
        return {"cams": cams, "probabilities": probabilities}
