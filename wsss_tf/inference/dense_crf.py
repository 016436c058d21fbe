"""The fully connected CRF of DeepLab: probabilities and a picture in, marginals out.

Mean field runs on the permutohedral lattices of `inference.lattice`; in TensorFlow
(`inference.graph_crf`), on a GPU where there is one; or in pydensecrf, which is behind these
functions and nowhere else. The results are the same. This file imports no TensorFlow by itself, so
that worker processes start in a moment.
"""

import contextlib
import dataclasses
import sys
import threading

import numpy as np

from wsss_tf.errors import UserError

EPSILON = 1e-5
LIBRARIES = ("numba", "tensorflow", "pydensecrf")


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
      library: what computes it: "numba", the fastest on a CPU; "tensorflow"; or "pydensecrf",
        which must be installed by itself.

    Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs", NIPS 2011.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_weight: float = 10.0
    unary_weight: float = 1.0
    library: str = "numba"

    def __post_init__(self):
        widths = (self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb)
        weights = (self.gaussian_weight, self.bilateral_weight, self.unary_weight)
        if min(widths) <= 0 or min(weights) < 0:
            raise ValueError(f"{self}: widths must be positive and weights not negative.")
        if self.iterations < 0:
            raise ValueError(f"iterations = {self.iterations}; need 0 or more.")
        if self.library not in LIBRARIES:
            raise ValueError(f"library = {self.library!r}; there are {', '.join(LIBRARIES)}.")

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
      ValueError: sizes, dtype or values that cannot be; a kernel too narrow for so large a picture.
      UserError: `parameters` want pydensecrf, and it is not installed.
    """
    return dense_crfs([probs], image, parameters)[0]


def dense_crfs(several, image, parameters=CAM_CRF):
    """Return the marginals of several CRFs on one picture, which share the work on its colours.

    Args:
      several: list of probabilities [h, w, K] as in `dense_crf`, of one K.
      image, parameters: as in `dense_crf`.

    Returns:
      list of float32 [h, w, K].

    Raises: as `dense_crf`.
    """
    several = [np.clip(np.asarray(probs, np.float32), EPSILON, 1) for probs in several]
    return _marginals([-np.log(probs) for probs in several], image, parameters)


def dense_crf_from_energy(energy, image, parameters=CAM_CRF):
    """Return the CRF's marginals for unary energies.

    Args:
      energy: [h, w, K], negative log probabilities up to a constant a pixel (negated logits, say).
      image, parameters: as in `dense_crf`.

    Returns and raises: as `dense_crf`.
    """
    return _marginals([np.asarray(energy, np.float32)], image, parameters)[0]


def _marginals(energies, image, parameters):
    image = np.ascontiguousarray(image)
    for energy in energies:
        _check(energy, image)
    if parameters.unary_weight != 1:
        energies = [np.float32(parameters.unary_weight) * energy for energy in energies]
    compute = {
        "numba": _by_numba,
        "tensorflow": _by_tensorflow,
        "pydensecrf": _by_pydensecrf,
    }
    return compute[parameters.library](energies, image, parameters)


def _check(energy, image):
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


def _by_numba(energies, image, parameters):
    from wsss_tf.inference import lattice  # numba takes half a second to import

    height, width = image.shape[:2]
    smoothness = appearance = None
    if parameters.gaussian_weight:
        smoothness = lattice.plane_lattice(height, width, parameters.gaussian_sxy)
    if parameters.bilateral_weight:
        appearance = lattice.colour_lattice(
            image, parameters.bilateral_sxy, parameters.bilateral_srgb
        )
    marginals = lattice.mean_field(
        [energy.reshape(height * width, -1) for energy in energies],
        (smoothness, appearance),
        (parameters.gaussian_weight, parameters.bilateral_weight),
        parameters.iterations,
    )
    return [field.reshape(height, width, -1) for field in marginals]


def _by_tensorflow(energies, image, parameters):
    from wsss_tf.inference import graph_crf

    energies = np.stack(energies, axis=2)
    marginals = graph_crf.compiled(parameters, *energies.shape[2:])(energies, image).numpy()
    return [np.ascontiguousarray(marginals[:, :, field]) for field in range(marginals.shape[2])]


def _by_pydensecrf(energies, image, parameters):
    densecrf = _pydensecrf()
    height, width = image.shape[:2]
    results = []
    for energy in energies:
        classes = energy.shape[-1]
        crf = densecrf.DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(np.array(energy.reshape(-1, classes).T, order="C"))
        if parameters.gaussian_weight:
            crf.addPairwiseGaussian(sxy=parameters.gaussian_sxy, compat=parameters.gaussian_weight)
        if parameters.bilateral_weight:
            crf.addPairwiseBilateral(
                sxy=parameters.bilateral_sxy,
                srgb=parameters.bilateral_srgb,
                rgbim=image.copy(),  # the library refuses read-only arrays
                compat=parameters.bilateral_weight,
            )
        marginals = np.array(crf.inference(parameters.iterations), np.float32)
        results.append(np.ascontiguousarray(marginals.T).reshape(height, width, classes))
    return results


def prepare(parameters=CAM_CRF):
    """Compile what is not compiled yet, so that worker processes find it in numba's cache.

    Args:
      parameters: `CrfParameters`, of which the library counts.

    Raises:
      UserError: they want pydensecrf, and it is not installed.
    """
    require_library(parameters.library)
    if parameters.library != "numba":
        return
    with _says_after(2, "compiling the dense CRF, which is kept for the next time"):
        dense_crf(np.full((2, 2, 2), 0.5), np.zeros((2, 2, 3), np.uint8))


def require_library(library):
    """Raise `UserError` if pydensecrf is wanted and not installed."""
    if library == "pydensecrf":
        _pydensecrf()


@contextlib.contextmanager
def _says_after(seconds, what):
    timer = threading.Timer(seconds, print, [what], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def crf_postprocess(
    iterations=10,
    gaussian_sxy=3.0,
    gaussian_weight=3.0,
    bilateral_sxy=80.0,
    bilateral_srgb=13.0,
    bilateral_weight=10.0,
    library="numba",
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
        library=library,
    )

    def postprocess(probabilities, image):
        return dense_crf(probabilities, image, parameters)

    postprocess.parameters = parameters  # for an export, where it is part of the graph
    return postprocess


def _pydensecrf():
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError(
            "pydensecrf is not installed: pip install 'wsss_tf[pydensecrf]' (it needs a C++ "
            'compiler and Python 3.10 to 3.12), or go without it: the CRF\'s library "numba" '
            "gives the same."
        ) from error
    return densecrf
