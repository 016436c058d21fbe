"""Export a trained network as a SavedModel, preprocessing included.

  python -m wsss_tf.export --run_dir=RUN --output=DIR [--scales=0.5,1,1.5,2] [--flip]

writes DIR/<version>/, one higher than the highest there, as TensorFlow Serving takes it; a server
that watches DIR goes over to it. wsss_tf/serving/saved_model.py lists the signatures. Scales, flip
and the thresholds are part of the graph; so is a recipe's CRF (Recipe.postprocess) with --crf.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.files.calibration import load_calibration
from wsss_tf.files.run_folder import RunFolder, read_json, write_json

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder, as wsss_tf.train made it.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the versions; made if missing.")
_VERSION = flags.DEFINE_integer(
    "version", None, "Number to write; default: one higher than the highest in --output.", 1
)
_SCALES = flags.DEFINE_list("scales", ["1"], "Factors on the picture's size, all in the graph.")
_FLIP = flags.DEFINE_bool("flip", False, "Add the mirrored picture.")
_CRF = flags.DEFINE_bool(
    "crf",
    False,
    "For masks: the dense CRF that is the recipe's postprocess too, so that masks are those of "
    "wsss_tf.infer. On a CPU it takes longer than a small network.",
)
_CAM_OUTPUT = flags.DEFINE_string(
    "cam_output", None, "Network output to use: cam or cam_rv (default: the recipe's)."
)
_BACKGROUND_THRESHOLD = flags.DEFINE_float(
    "background_threshold",
    None,
    "For CAMs: score that a mask's pixel must beat; default: the best of RUN/metrics.json, or the "
    "recipe's.",
    0,
    1,
)
_LABEL_THRESHOLD = flags.DEFINE_float(
    "label_threshold", 0.5, "For CAMs: probability that makes a class present.", 0, 1
)
_MAX_SIDE = flags.DEFINE_integer(
    "max_side",
    None,
    "Longer side, pixels, at which the network sees larger pictures; masks have their own size. "
    "Default: the recipe's; 0 for no limit.",
    0,
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    None,
    "Larger pictures are refused, before they take the server's memory and minutes. Default: 2^25 "
    "where the network sees them at a limited side, else 2^22.",
    1,
)
_WARMUP_SIZES = flags.DEFINE_list(
    "warmup_sizes", ["256x256", "384x512"], "Pictures (HEIGHTxWIDTH) that a server starts with."
)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which network to use.")

# 33 megapixels, decoded and enlarged again in seconds; 4 through a small network.
_MOST_PIXELS_LIMITED, _MOST_PIXELS = 2**25, 2**22

_CAM_FLAGS = ("cam_output", "background_threshold", "label_threshold")


def main():
    """Run the command."""
    for name in ("run_dir", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    scales = command.parse_scales(_SCALES.value)
    sizes = [_parse_size(text) for text in _WARMUP_SIZES.value]
    from wsss_tf.files.pixel_limit import MAX_PIXELS, VARIABLE
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.trained_network import load_network
    from wsss_tf.serving.versions import new_version

    if _MAX_PIXELS.value is not None and _MAX_PIXELS.value > MAX_PIXELS:
        raise UserError(
            f"--max_pixels={_MAX_PIXELS.value}: no picture of more than {MAX_PIXELS} pixels is "
            f"read; set {VARIABLE} to read such."
        )
    run = RunFolder(_RUN_DIR.value)
    recipe = recipe_lib.load_run(run)
    net = load_network(run, _CHECKPOINT.value, for_inference=True)
    class_names = run.read_class_names()
    make = _mask_model if recipe.predicts_masks else _cam_model
    limit = recipe.side_limit(_MAX_SIDE.value)
    save, options = make(recipe, net, scales, limit, run)
    by_default = _MOST_PIXELS_LIMITED if limit else _MOST_PIXELS
    most = options["max_pixels"] = _MAX_PIXELS.value or min(by_default, MAX_PIXELS)
    with new_version(_OUTPUT.value, _VERSION.value) as version:
        save(version.path, class_names, most)
        _write_warmup(version.path, sizes)
        _write_options(version.path, options)
    print(f"SavedModel: {version.published}")
    for name, value in options.items():
        print(f"  {name}: {value}")


def _parse_size(text):
    """Return (height, width) of "HEIGHTxWIDTH"."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UserError(f"--warmup_sizes={text}: give HEIGHTxWIDTH in pixels, such as 384x512.")
    return int(height), int(width)


def _cam_model(recipe, net, scales, max_side, run):
    """Return the function that writes a SavedModel of CAMs, and its options by name."""
    from wsss_tf.inference.limited_side import limited
    from wsss_tf.runs.infer_cams import make_maps
    from wsss_tf.serving.saved_model import save_cam_model

    if _CRF.value:
        raise UserError(
            "--crf means nothing here: the network of this run gives class activation maps."
        )
    cam_output = _CAM_OUTPUT.value or recipe.cam_output
    threshold, origin = _background_threshold(recipe, run)
    options = {
        "scales": list(scales),
        "flip": _FLIP.value,
        "max_side": max_side,
        "cam_output": cam_output,
        "background_threshold": threshold,
        "background_threshold_from": origin,
        "label_threshold": _LABEL_THRESHOLD.value,
    }
    compute = make_maps(
        net, cam_output=cam_output, scales=scales, flip=_FLIP.value, merging=recipe.cam_merging
    )
    compute = limited(compute, max_side)

    def save(path, class_names, max_pixels):
        thresholds = threshold, _LABEL_THRESHOLD.value
        save_cam_model(compute, path, class_names, max_pixels, *thresholds)

    return save, options


def _background_threshold(recipe, run):
    """Return the threshold of the masks, and where it comes from."""
    if _BACKGROUND_THRESHOLD.value is not None:
        return _BACKGROUND_THRESHOLD.value, "--background_threshold"
    calibration = load_calibration(run)
    if calibration is not None:
        return calibration.background_threshold, f"{run.calibration}, by {calibration.chosen_by}"
    path = run.metrics()
    metrics = read_json(path) if path.is_file() else {}
    if "best_background_threshold" not in metrics:
        return recipe.background_threshold, "Recipe.background_threshold"
    return metrics["best_background_threshold"], f"{path}, split {metrics.get('split')!r}"


def _mask_model(recipe, net, scales, max_side, run):
    """Return the same for a network that predicts masks."""
    from wsss_tf.inference.graph_crf import RefinedByCrf
    from wsss_tf.inference.limited_side import limited
    from wsss_tf.runs.training_run import make_postprocess, make_predictor
    from wsss_tf.serving.saved_model import save_mask_model

    for name in _CAM_FLAGS:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} means nothing here: the network of this run predicts masks.")
    postprocess = make_postprocess(recipe)
    parameters = getattr(postprocess, "parameters", None)
    if _CRF.value and parameters is None:
        raise UserError("--crf: Recipe.postprocess of this run is no dense CRF.")
    if postprocess is not None and not _CRF.value:
        print("note: the recipe's postprocess is left out; --crf makes a CRF part of the model.")
    kept = "none" if postprocess is None else "dense CRF" if _CRF.value else "left out"
    options = {
        "scales": list(scales),
        "flip": _FLIP.value,
        "max_side": max_side,
        "postprocess": kept,
    }
    predictor = make_predictor(recipe, net, scales=scales, flip=_FLIP.value)
    if _CRF.value:
        predictor = RefinedByCrf(predictor, parameters)
    predictor = limited(predictor, max_side)
    return lambda *arguments: save_mask_model(predictor, *arguments), options


def _write_warmup(path, sizes):
    from wsss_tf.serving.warmup import write_warmup_requests

    try:
        write_warmup_requests(path, sizes)
    except ImportError:
        print(
            "note: no warm-up requests; for them pip install 'wsss_tf[serving]' and export again."
        )


def _write_options(path, options):
    """Record in the SavedModel how it was made."""
    import keras
    import tensorflow as tf

    import wsss_tf

    record = {
        "run_dir": str(pathlib.Path(_RUN_DIR.value).resolve()),
        "checkpoint": _CHECKPOINT.value,
        **options,
        "wsss_tf": wsss_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    write_json(path / "assets.extra" / "export.json", record)


if __name__ == "__main__":
    command.run(main)
