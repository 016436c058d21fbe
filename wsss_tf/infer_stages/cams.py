"""Class activation maps, pseudo labels, and the dense CRF on the maps."""

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
    "background_threshold", 0.26, "Score that a pseudo label's pixel must beat.", 0, 1
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
    "crf_powers", ["4", "24"], "Low and high power of the background score before the dense CRF."
)
_CRF_PROCESSES = flags.DEFINE_integer(
    "crf_processes", None, "Processes for the dense CRF; default: one a processor core.", 1
)


def crf_powers():
    """Return the low and the high background power, or None if no dense CRF is asked for.

    Raises:
      UserError: --crf_powers is not two numbers, the lower one first, or without --crf.
    """
    if not _CRF.value:
        if _CRF_POWERS.present:
            raise UserError("--crf_powers means nothing without --crf.")
        return None
    powers = command.parse_positive("crf_powers", _CRF_POWERS.value, "4,24")
    if len(powers) != 2 or powers[0] >= powers[1]:
        text = ",".join(_CRF_POWERS.value)
        raise UserError(f"--crf_powers={text}: give two numbers, the lower one first.")
    return powers


def thresholds():
    """Return the thresholds that flags set, as `inference.label.label_source` takes them."""
    return {
        "background_threshold": _BACKGROUND_THRESHOLD.value,
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


def run(compute, source, output, batch_size, overwrite):
    """Write CAMs and pseudo labels, and with --crf the CRF's maps, for every image of a source.

    Args:
      compute: as `make_maps` gives.
      source: `data.source.Source`.
      output: folder, a `pathlib.Path`.
      batch_size, overwrite: as in `inference.label.label_source`.
    """
    from wsss_tf.inference.crf_stage import crf_source
    from wsss_tf.inference.label import label_source

    powers = crf_powers()
    written, kept = label_source(
        compute, source, output, **thresholds(), batch_size=batch_size, overwrite=overwrite
    )
    print(f"{written} written, {kept} kept: {output / 'cams'}, {output / 'pseudo_labels'}")
    if powers is not None:
        written, kept = crf_source(
            source, output, _CRF_PROCESSES.value, powers=powers, overwrite=overwrite
        )
        print(f"dense CRF: {written} written, {kept} kept: {output / 'crf_low'}, crf_high")
