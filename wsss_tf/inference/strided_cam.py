"""Class activation maps as IRN makes them: summed on the network's own grid, and at two sizes."""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.files import images
from wsss_tf.inference.multi_scale_cam import SCALES, check_output
from wsss_tf.models.heads import stride_of


class StridedCam(tf.Module):
    """CAMs of pictures of any size, over scales and flips.

    Args:
      net: `models.irn.irn_cam_network`, or any model with the outputs "cam" and `output`.
      output: name of the score maps, [B, h, w, K] with background first.
      scales: factors on the size; each scaled size is rounded half to even.
      flip: add the maps of the mirror images.
      stride: of the smaller maps, pixels: that of the random walk.

    Raises:
      UserError: the network has no such output.

    Call: `module(pictures uint8 [B, H, W, 3])` returns {"cams": float32 [B, H, W, C],
    "strided_cams": float32 [B, ceil(H / stride), ceil(W / stride), C], both in [0, 1] for all
    classes: positive scores divided by their maximum, nothing subtracted; "probabilities": float32
    [B, C], from the mean of the classifier's logits}. Labels may be given too, as to
    `MultiScaleCam`.

    The two are made independently: both are resized from the network's grid, the larger one as if
    the grid ended with the picture's last whole cell.

    Source: IRN (Ahn, Cho and Kwak, CVPR 2019), official `step/make_cam.py`.
    """

    def __init__(self, net, output="cam", scales=SCALES, flip=True, stride=4):
        super().__init__()
        check_output(net, output)
        self.net = net
        self.output = output
        self.scales = tuple(scales)
        self.flip = flip
        self.stride = stride
        self.grid = stride_of(net, output)

    def __call__(self, pictures, labels=None):
        del labels
        return self._compute(pictures)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def _compute(self, pictures):
        return self.compute(pictures)

    def compute(self, pictures):
        """Return the maps and probabilities, outside of a graph of its own."""
        batch, height, width = tf.unstack(tf.shape(pictures)[:3])
        strided_size = [-(-n // self.stride) for n in (height, width)]
        whole_size = [-(-n // self.grid) * self.grid for n in (height, width)]
        classes = self.net.output[self.output].shape[-1] - 1
        factors = tf.constant(self.scales, tf.float64)

        def add_scale(i, strided, whole, mean):
            size = tf.cast(tf.stack([height, width]), tf.float64) * factors[i]
            size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
            scaled = ops.normalize_image(images.resize_bicubic(pictures, size))
            maps, logits = self._maps(scaled)
            strided += ops.resize_bilinear(maps, strided_size, align_corners=False)
            whole += ops.resize_bilinear(maps, whole_size, align_corners=False)
            return i + 1, strided, whole, mean + logits / len(self.scales)

        start = (
            0,
            tf.zeros([batch, *strided_size, classes]),
            tf.zeros([batch, *whole_size, classes]),
            tf.zeros([batch, classes]),
        )
        # One scale at a time, so that neither the graph nor its memory grows with their number.
        _, strided, whole, logits = tf.while_loop(
            lambda i, *_: i < len(self.scales), add_scale, start, parallel_iterations=1
        )
        return {
            "cams": _over_maximum(whole[:, :height, :width]),
            "strided_cams": _over_maximum(strided),
            "probabilities": tf.sigmoid(logits),
        }

    def _maps(self, copies):
        """Return the positive scores of copies and their mirror images, and the mean logits."""
        turned = [copies, tf.reverse(copies, [2])] if self.flip else [copies]
        outputs = self.net(tf.concat(turned, axis=0), training=False)
        scores = tf.nn.relu(tf.cast(outputs[self.output], tf.float32)[..., 1:])
        logits = tf.reduce_mean(tf.cast(outputs["cam"], tf.float32), axis=[1, 2])[:, 1:]
        if not self.flip:
            return scores, logits
        plain, mirrored = tf.split(scores, 2)
        return plain + tf.reverse(mirrored, [2]), tf.add_n(tf.split(logits, 2)) / 2


def _over_maximum(scores):
    return scores / (tf.reduce_max(scores, axis=[1, 2], keepdims=True) + ops.EPSILON)
