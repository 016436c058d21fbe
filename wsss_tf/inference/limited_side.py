"""Run any function of pictures on large pictures at a limited size."""

import tensorflow as tf

from wsss_tf import ops
from wsss_tf.files import images


class LimitedSide(tf.Module):
    """A function from pictures to maps that sees large pictures at a reduced size.

    Args:
      compute: `multi_scale_cam.MultiScaleCam`, `grad_cam.GradCam` or `segment.MultiScalePredictor`.
      max_side: longer side, pixels, to which larger pictures are reduced by `images.limit_side`.

    Call: as `compute`; maps come back bilinearly, with half-pixel centres, at the pictures' own
    size. Of pictures that are not larger they are the very same.
    """

    def __init__(self, compute, max_side):
        super().__init__()
        self.compute = compute
        self.net = compute.net
        self.max_side = max_side

    def __call__(self, pictures):
        size = tf.shape(pictures)[1:3]

        def enlarge(x):
            return ops.resize_bilinear(x, size, align_corners=False) if x.shape.rank == 4 else x

        outputs = self.compute(images.limit_side(pictures, self.max_side))
        return tf.nest.map_structure(enlarge, outputs)


def limited(compute, max_side):
    """Return `compute` with that limit, or `compute` itself if the limit is None."""
    return compute if max_side is None else LimitedSide(compute, max_side)
