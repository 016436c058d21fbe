"""The fully connected CRF of DeepLab: probabilities and a picture in, marginals out.

`pydensecrf` is behind these two functions and nowhere else. This file imports no TensorFlow, so
that worker processes start in a moment.
"""

import dataclasses

import numpy as np

from wsss_tf.errors import UserError

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class CrfParameters:
    """The two Gaussian kernels of the pairwise energy, with Potts compatibility.

    Attributes:
      iterations: mean-field updates; 0 gives the softmax of the unary energy.
      gaussian_sxy: standard deviation of the smoothness kernel, pixels.
      gaussian_weight: its weight; 0 leaves the kernel out.
      bilateral_sxy: standard deviation of the appearance kernel in the plane, pixels.
      bilateral_srgb: and in colour, of 0..255.
      bilateral_weight: its weight; 0 leaves the kernel out.
      unary_weight: factor on the unary energy: above 1 the scores count more against the kernels.

    Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs", NIPS 2011.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_weight: float = 10.0
    unary_weight: float = 1.0

    def __post_init__(self):
        widths = (self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb)
        weights = (self.gaussian_weight, self.bilateral_weight, self.unary_weight)
        if min(widths) <= 0 or min(weights) < 0:
            raise ValueError(f"{self}: widths must be positive and weights not negative.")
        if self.iterations < 0:
            raise ValueError(f"iterations = {self.iterations}; need 0 or more.")

    def scaled(self, scale_factor):
        """Return the parameters for a picture that is `scale_factor` times smaller."""
        return dataclasses.replace(
            self,
            gaussian_sxy=self.gaussian_sxy / scale_factor,
            bilateral_sxy=self.bilateral_sxy / scale_factor,
        )


# Of SEAM: on CAMs (SEC's demo has the same), and after the random walk.
CAM_CRF = CrfParameters()
RANDOM_WALK_CRF = CrfParameters(iterations=1)


def dense_crf(probs, image, parameters=CAM_CRF):
    """Return the CRF's marginals for per-class probabilities.

    Args:
      probs: [h, w, K], clipped to [1e-5, 1]; they need not sum to one, and K need only count the
        classes that the picture shows (the time is proportional to K).
      image: uint8 [h, w, 3] RGB.
      parameters: `CrfParameters`.

    Returns:
      float32 [h, w, K], summing to one over K.

    Raises:
      ValueError: sizes, dtype or values that cannot be.
      UserError: pydensecrf is not installed.
    """
    probs = np.asarray(probs, np.float32)
    return dense_crf_from_energy(-np.log(np.clip(probs, EPSILON, 1)), image, parameters)


def dense_crf_from_energy(energy, image, parameters=CAM_CRF):
    """Return the CRF's marginals for unary energies.

    Args:
      energy: [h, w, K], negative log probabilities up to a constant a pixel (negated logits, say).
      image, parameters: as in `dense_crf`.

    Returns and raises: as `dense_crf`.
    """
    energy, image = np.asarray(energy, np.float32), np.asarray(image)
    if energy.ndim != 3 or not energy.size:
        raise ValueError(f"scores must be [h, w, K], not {list(energy.shape)}.")
    if image.dtype != np.uint8 or image.shape != (*energy.shape[:2], 3):
        raise ValueError(
            f"the image must be uint8 {[*energy.shape[:2], 3]} as the scores are "
            f"{list(energy.shape)}, not {image.dtype} {list(image.shape)}."
        )
    if not np.isfinite(energy).all():
        count = int((~np.isfinite(energy)).sum())
        raise ValueError(f"{count} of {energy.size} scores are not finite numbers.")
    height, width, classes = energy.shape
    crf = _library().DenseCRF2D(width, height, classes)
    by_class = energy.reshape(-1, classes).T
    crf.setUnaryEnergy(np.array(parameters.unary_weight * by_class, np.float32, order="C"))
    if parameters.gaussian_weight:
        crf.addPairwiseGaussian(sxy=parameters.gaussian_sxy, compat=parameters.gaussian_weight)
    if parameters.bilateral_weight:
        crf.addPairwiseBilateral(
            sxy=parameters.bilateral_sxy,
            srgb=parameters.bilateral_srgb,
            rgbim=np.array(image, order="C"),  # a copy: the library refuses read-only arrays
            compat=parameters.bilateral_weight,
        )
    marginals = np.array(crf.inference(parameters.iterations), np.float32)
    return np.ascontiguousarray(marginals.T).reshape(height, width, classes)


def crf_postprocess(
    iterations=10,
    gaussian_sxy=3.0,
    gaussian_weight=3.0,
    bilateral_sxy=80.0,
    bilateral_srgb=13.0,
    bilateral_weight=10.0,
):
    """Return the dense CRF as a recipe's `postprocess`.

    Args: as `CrfParameters`, pixels of the picture's own size.

    Returns:
      Function of (probabilities [h, w, K], image uint8 [h, w, 3]) to the CRF's marginals, float32
      [h, w, K]; it raises what `dense_crf` does. All K classes take part, as in the official
      scripts of SEC and SEAM's DeepLab: what a test picture shows is not known.
    """
    parameters = CrfParameters(
        iterations=iterations,
        gaussian_sxy=gaussian_sxy,
        gaussian_weight=gaussian_weight,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_weight=bilateral_weight,
    )

    def postprocess(probabilities, image):
        return dense_crf(probabilities, image, parameters)

    return postprocess


def _library():
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError(
            "the dense CRF needs pydensecrf, which is not installed: pip install pydensecrf2 "
            "(Python 3.10 to 3.12; it does not build on 3.13), or go without the CRF "
            "(infer --nopostprocess, where it is a recipe's)."
        ) from error
    return densecrf
