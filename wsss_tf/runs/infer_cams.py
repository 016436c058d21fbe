"""Class activation maps, pseudo labels, and the dense CRF on the maps."""

import dataclasses
import math

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

FLAGS = (
    "method",
    "cam_output",
    "background_threshold",
    "label_threshold",
    "crf",
    "crf_powers",
    "crf_thresholds",
    "crf_iterations",
    "crf_scale",
    "crf_unary_weight",
    "random_walk",
    "runner",
)
_METHOD = flags.DEFINE_enum(
    "method",
    "cam",
    ["cam", "gradcam", "gradcam++"],
    "What to compute; for the second and third give an --output of their own.",
)
_CAM_OUTPUT = flags.DEFINE_string(
    "cam_output", None, "Network output to use: cam or cam_rv (default: the recipe's)."
)
_BACKGROUND_THRESHOLD = flags.DEFINE_float(
    "background_threshold",
    None,
    "Score that a pseudo label's pixel must beat; default: the recipe's. The background powers of "
    "the dense CRF and the random walk follow it where they are not given.",
    0,
    1,
)
_LABEL_THRESHOLD = flags.DEFINE_float(
    "label_threshold",
    0.5,
    "Probability that makes a class present, where there are no labels.",
    0,
    1,
)
_CRF = flags.DEFINE_bool("crf", False, "Run the dense CRF on the CAMs: crf_low/, crf_high/.")
_CRF_POWERS = flags.DEFINE_list(
    "crf_powers",
    None,
    "Low and high power of the background score before the dense CRF; 4,24 for maps whose "
    "threshold is 0.26.",
)
_CRF_THRESHOLDS = flags.DEFINE_list(
    "crf_thresholds",
    None,
    "Instead of --crf_powers: below the first score a pixel is taken for background, above the "
    "second for its strongest class.",
)
_CRF_ITERATIONS = flags.DEFINE_integer("crf_iterations", 10, "Iterations of the dense CRF.", 0)
_CRF_SCALE = flags.DEFINE_float(
    "crf_scale", 1, "Divides the CRFs' widths, which are for pictures of 500 pixels."
)
_CRF_UNARY_WEIGHT = flags.DEFINE_float(
    "crf_unary_weight", 1, "How much the maps count against the kernels of the dense CRF.", 0
)
_CRF_PROCESSES = flags.DEFINE_integer(
    "crf_processes", None, "Processes for the dense CRF; default: one a processor core.", 1
)


def crf_options(recipe):
    """Return `powers` and `parameters` of `inference.write_crf.crf_source`, from flags.

    None if no dense CRF is asked for.

    Args:
      recipe: of the run.

    Raises:
      UserError: flags that contradict each other or mean nothing, numbers that cannot be.
    """
    from wsss_tf.inference.dense_crf import CAM_CRF

    if not _CRF.value:
        only = ["crf_powers", "crf_thresholds", "crf_iterations", "crf_unary_weight"]
        only += [] if flags.FLAGS["walk_crf"].value else ["crf_scale"]
        for name in only:
            if flags.FLAGS[name].present:
                raise UserError(f"--{name} means nothing without --crf.")
        return None
    parameters = dataclasses.replace(
        scaled_crf(CAM_CRF),
        iterations=_CRF_ITERATIONS.value,
        unary_weight=_CRF_UNARY_WEIGHT.value,
    )
    return {"powers": _crf_powers(recipe), "parameters": parameters}


def _crf_powers(recipe):
    """Return the low and the high background power."""
    from wsss_tf.inference.cam_crf import BACKGROUND_POWERS, power_of_threshold

    if _CRF_POWERS.value is not None and _CRF_THRESHOLDS.value is not None:
        raise UserError("give either --crf_powers or --crf_thresholds.")
    if _CRF_POWERS.value is not None:
        return _two_ascending("crf_powers", _CRF_POWERS.value, "4,24")
    if _CRF_THRESHOLDS.value is None:
        return tuple(followed_power(recipe, power) for power in BACKGROUND_POWERS)
    low, high = _two_ascending("crf_thresholds", _CRF_THRESHOLDS.value, "0.1,0.3")
    if high >= 1:
        raise UserError(f"--crf_thresholds={low:g},{high:g}: scores lie below 1.")
    return power_of_threshold(high), power_of_threshold(low)


def _two_ascending(name, texts, example):
    numbers = command.parse_positive(name, texts, example)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise UserError(f"--{name}={','.join(texts)}: give two numbers, the lower one first.")
    return numbers


def followed_power(recipe, official_power):
    """Return `inference.cam_crf.power_for_maps` of the run's maps.

    Raises:
      UserError: their threshold is 0 or 1.
    """
    from wsss_tf.inference.cam_crf import power_for_maps

    try:
        return power_for_maps(thresholds(recipe)["background_threshold"], official_power)
    except ValueError as error:
        raise UserError(
            f"{error} Give another --background_threshold, or the powers: --crf_powers, "
            "--background_power."
        ) from error


def scaled_crf(parameters):
    """Return `dense_crf.CrfParameters` with the widths that --crf_scale asks for.

    Raises:
      UserError: --crf_scale is not above 0.
    """
    if not 0 < _CRF_SCALE.value < math.inf:
        raise UserError(f"--crf_scale={_CRF_SCALE.value:g}: give a number above 0.")
    return parameters.scaled(_CRF_SCALE.value)


def thresholds(recipe):
    """Return the thresholds of a run, as `inference.write_cams.label_source` takes them."""
    threshold = _BACKGROUND_THRESHOLD.value
    return {
        "background_threshold": recipe.background_threshold if threshold is None else threshold,
        "label_threshold": _LABEL_THRESHOLD.value,
    }


def map_options(recipe, scales, flip):
    """Return what `make_maps` takes beside the network, from flags.

    Args:
      recipe: of the run.
      scales, flip: None for those of the paper.
    """
    from wsss_tf.inference.multi_scale_cam import SCALES

    method = _METHOD.value
    if method != "cam" and _CAM_OUTPUT.value:
        raise UserError(f"--cam_output means nothing for --method={method}.")
    return {
        "method": method,
        "cam_output": _CAM_OUTPUT.value or recipe.cam_output,
        "scales": scales or SCALES,
        "flip": flip is not False,
    }


def make_maps(net, method, cam_output, scales, flip):
    """Return the function of pictures to maps: `MultiScaleCam` or `GradCam`.

    Raises:
      UserError: the network has no such output, or no head that the method can be used with.
    """
    from wsss_tf.inference.grad_cam import GradCam
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam

    if method == "cam":
        return MultiScaleCam(net, cam_output, scales, flip)
    try:
        return GradCam(net, method, scales, flip)
    except ValueError as error:
        raise UserError(f"--method={method}: {error}") from error


def run(recipe, compute, source, output, **work):
    """Write CAMs and pseudo labels, and with --crf the CRF's maps, for every image of a source.

    Args:
      recipe: of the run.
      compute: as `make_maps` gives.
      source: `data.source.Source`.
      output: folder, a `pathlib.Path`.
      **work: `batch_size`, `overwrite` and `max_side` as in `inference.write_cams.label_source`.
    """
    from wsss_tf.inference.write_cams import label_source
    from wsss_tf.inference.write_crf import crf_source

    crf = crf_options(recipe)
    written, kept = label_source(compute, source, output, **thresholds(recipe), **work)
    print(f"{written} written, {kept} kept: {output / 'cams'}, {output / 'pseudo_labels'}")
    if crf is not None:
        del work["batch_size"]
        written, kept = crf_source(source, output, _CRF_PROCESSES.value, **crf, **work)
        print(f"dense CRF: {written} written, {kept} kept: {output / 'crf_low'}, crf_high")
