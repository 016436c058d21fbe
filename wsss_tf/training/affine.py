"""The spatial transform A of SEAM's siamese training."""

import dataclasses

import numpy as np
from keras import ops

from wsss_tf.ops import resize_bilinear


@dataclasses.dataclass(frozen=True)
class Affine:
    """A combination of flip, rotation, translation and rescaling, in this order.

    Attributes:
      rescale: factor on height and width, floor(factor * size); 1 for none. The paper's is 0.3.
      flip: mirror left and right (always: a mirror image half of the time would do nothing then).
      rotation: largest angle, degrees; each example's is uniform in [-rotation, rotation].
      translation: largest shift per axis, pixels at full size; uniform likewise.

    What comes in from outside the picture is zero: the mean colour of a normalised image, and no
    score in a map.

    Source: SEAM, section 4.2 and table 3. How the paper draws angles and shifts is not stated;
    uniform per example is ours.
    """

    rescale: float = 0.3
    flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0

    def __call__(self, x, uniform):
        """Transform images or maps.

        Args:
          x: [B, H, W, D].
          uniform: [B, 4] in [0, 1): the random numbers of the examples (angle, shift down, shift
            right, spare). The same numbers give the same transform.

        Returns:
          float32 [B, floor(rescale H), floor(rescale W), D].
        """
        if self.flip:
            x = ops.flip(x, axis=2)
        if self.rotation or self.translation:
            height, width = ops.shape(x)[1:3]
            x = ops.image.affine_transform(
                x,
                self._matrix(ops.cast(uniform, "float32"), height, width),
                interpolation="bilinear",
                fill_mode="constant",
                fill_value=0.0,
            )
        if self.rescale != 1:
            x = resize_bilinear(x, self.size(*ops.shape(x)[1:3]), align_corners=True)
        return x

    def size(self, height, width):
        """Return the (height, width) that an image of this size is transformed to."""
        if isinstance(height, int):
            return int(height * self.rescale), int(width * self.rescale)

        def scaled(n):  # in float64, to round as Python does
            return ops.cast(ops.floor(ops.cast(n, "float64") * self.rescale), "int32")

        return scaled(height), scaled(width)

    def _matrix(self, uniform, height, width):
        """Return [B, 8] projective rows that map output (x, y) to input, about the centre."""
        centred = 2 * uniform - 1
        angle = centred[:, 0] * (self.rotation * np.pi / 180)
        down, right = centred[:, 1] * self.translation, centred[:, 2] * self.translation
        cosine, sine = ops.cos(angle), ops.sin(angle)
        cx = (ops.cast(width, "float32") - 1) / 2
        cy = (ops.cast(height, "float32") - 1) / 2
        x0 = cx - cosine * (cx + right) + sine * (cy + down)
        y0 = cy - sine * (cx + right) - cosine * (cy + down)
        zero = ops.zeros_like(angle)
        return ops.stack([cosine, -sine, x0, sine, cosine, y0, zero, zero], axis=1)
