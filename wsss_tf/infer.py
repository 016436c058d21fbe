"""Write what a network finds in a split, or in any folder of pictures.

  python -m wsss_tf.infer --run_dir=RUN --split=train
  python -m wsss_tf.infer --run_dir=RUN --input=FOLDER --output=FOLDER2
  python -m wsss_tf.infer --run_dir=RUN --split=train --crf                       and the dense CRF
  python -m wsss_tf.infer --run_dir=RUN --split=train --random_walk --affinity_run=RUN2

A run on image labels gives class activation maps (cams/) and pseudo_labels/; a network that
predicts masks gives predictions/, palette PNGs with values 0..K-1. Files that are already there are
kept, so an interrupted command can be run again.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder, as wsss_tf.train made it.")
_SPLIT = flags.DEFINE_string("split", None, "Split of the run's data set.")
_INPUT = flags.DEFINE_string(
    "input", None, "Folder of pictures without labels, instead of --split."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write into; default: RUN.")
_SCALES = flags.DEFINE_list(
    "scales",
    None,
    "Factors on the picture's size; default 0.5,1,1.5,2 or, for masks, the recipe's.",
)
_FLIP = flags.DEFINE_bool(
    "flip", None, "Add the mirrored picture; default: yes or, for masks, as the recipe says."
)
_POSTPROCESS = flags.DEFINE_bool(
    "postprocess", True, "For masks: apply the recipe's postprocess (such as a CRF), if it has one."
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
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which network to use.")
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
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures of equal size run together.", 1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write files that exist again.")
_CRF = flags.DEFINE_bool("crf", False, "Run the dense CRF on the CAMs: crf_low/, crf_high/.")
_CRF_PROCESSES = flags.DEFINE_integer(
    "crf_processes", None, "Processes for the dense CRF; default: one a processor core.", 1
)
_RANDOM_WALK = flags.DEFINE_bool(
    "random_walk", False, "Spread the CAMs by a random walk: pseudo_labels/ of --affinity_run."
)
_AFFINITY_RUN = flags.DEFINE_string(
    "affinity_run", None, "Run of gin/affinity.gin; with --random_walk --output replaces it."
)
_BACKGROUND_POWER = flags.DEFINE_float(
    "background_power", 6, "Random walk: power of the background score (1 - strongest class).", 0
)
_AFFINITY_POWER = flags.DEFINE_float("affinity_power", 8, "Random walk: power of affinities.", 0)
_WALK_STEPS = flags.DEFINE_integer("walk_steps", 64, "Random walk: number of steps.", 0)
_WALK_CRF = flags.DEFINE_bool("walk_crf", False, "Random walk: refine by one CRF iteration.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Override the run's config.gin, such as the folder of the data set."
)


def main():
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: a folder that wsss_tf.train made.")
    if bool(_SPLIT.value) == bool(_INPUT.value):
        raise UserError("give either --split or --input.")
    _check_random_walk()
    from wsss_tf import recipe as recipe_lib
    from wsss_tf.data.folder import pictures_source
    from wsss_tf.stages import checked_source

    run_dir = pathlib.Path(_RUN_DIR.value)
    recipe = recipe_lib.load_run(run_dir, _GIN_BINDINGS.value)
    _check_flags(recipe.predicts_masks)
    scales = None if _SCALES.value is None else command.parse_scales(_SCALES.value)
    net = recipe_lib.load_network(run_dir, _CHECKPOINT.value)
    class_names = recipe_lib.load_class_names(run_dir)
    output = pathlib.Path(_OUTPUT.value or run_dir)
    if _RANDOM_WALK.value:  # --output is for the walk's labels, which the CAMs' must not replace
        output = run_dir if _SPLIT.value else output / "cam_stage"
    if _INPUT.value:
        source = pictures_source(_INPUT.value, class_names)
    else:
        source = recipe.true_source(_SPLIT.value).without_masks()
        if tuple(source.class_names) != class_names:
            raise UserError(
                f"the run was trained on the classes {list(class_names)}, "
                f"the data set now has {list(source.class_names)}."
            )
    source = checked_source(recipe, source, output)
    infer = _infer_masks if recipe.predicts_masks else _infer_cams
    infer(recipe, net, source, output, scales)


# Flags that mean nothing for the other kind of network.
_CAM_FLAGS = (
    "method",
    "cam_output",
    "background_threshold",
    "label_threshold",
    "crf",
    "random_walk",
)
_MASK_FLAGS = ("postprocess",)


def _check_flags(predicts_masks):
    for name in _CAM_FLAGS if predicts_masks else _MASK_FLAGS:
        if flags.FLAGS[name].present:
            kind = "predicts masks" if predicts_masks else "gives class activation maps"
            raise UserError(f"--{name} means nothing here: the network of this run {kind}.")


def _infer_cams(recipe, net, source, output, scales):
    from wsss_tf.inference.label import label_source
    from wsss_tf.inference.multi_scale_cam import SCALES, MultiScaleCam

    cam_output = _CAM_OUTPUT.value or recipe.cam_output
    if cam_output not in net.output:
        raise UserError(f"--cam_output={cam_output}: the network has {sorted(net.output)}.")
    # Before hours of work; after the run's own recipe, which it replaces as what gin knows.
    affinity = _load_affinity()
    scales, flip = scales or SCALES, _FLIP.value is not False
    if _METHOD.value == "cam":
        compute = MultiScaleCam(net, cam_output, scales, flip)
    else:
        compute = _grad_cam(net, scales, flip)
    written, kept = label_source(
        compute,
        source,
        output,
        background_threshold=_BACKGROUND_THRESHOLD.value,
        label_threshold=_LABEL_THRESHOLD.value,
        batch_size=_BATCH_SIZE.value,
        overwrite=_OVERWRITE.value,
    )
    print(f"{written} written, {kept} kept: {output / 'cams'}, {output / 'pseudo_labels'}")
    if _CRF.value:
        from wsss_tf.inference.crf_stage import crf_source

        processes, overwrite = _CRF_PROCESSES.value, _OVERWRITE.value
        written, kept = crf_source(source, output, processes, overwrite=overwrite)
        print(f"dense CRF: {written} written, {kept} kept: {output / 'crf_low'}, crf_high")
    if affinity is not None:
        _random_walk(affinity, source, cam_run=output)


def _check_random_walk():
    if _RANDOM_WALK.value != bool(_AFFINITY_RUN.value):
        raise UserError("--random_walk and --affinity_run=RUN go together.")
    if not _RANDOM_WALK.value:
        return
    run = pathlib.Path(_AFFINITY_RUN.value)
    if not (run / "config.gin").is_file():
        raise UserError(f"--affinity_run={run}: no config.gin in it; train gin/affinity.gin first.")
    output = pathlib.Path(_OUTPUT.value or run)
    if output.resolve() == pathlib.Path(_RUN_DIR.value).resolve():
        raise UserError(f"{output}: holds the labels of the CAMs; choose another --output.")


def _load_affinity():
    """Return the network of --affinity_run, ready to be used; None where no walk is wanted."""
    if not _RANDOM_WALK.value:
        return None
    from wsss_tf import recipe as recipe_lib
    from wsss_tf.inference.random_walk import PairAffinity

    run = pathlib.Path(_AFFINITY_RUN.value)
    net = recipe_lib.load_network(run)
    if "features" not in net.output:
        raise UserError(f"--affinity_run={run}: is no run of gin/affinity.gin.")
    return PairAffinity(net, recipe_lib.load_run(run).step(net).radius)


def _random_walk(affinity, source, cam_run):
    from wsss_tf.inference.dense_crf import RANDOM_WALK_CRF
    from wsss_tf.inference.random_walk import walk_source

    output = pathlib.Path(_OUTPUT.value or _AFFINITY_RUN.value)
    written, kept = walk_source(
        affinity,
        source,
        cam_run,
        output,
        background_power=_BACKGROUND_POWER.value,
        affinity_power=_AFFINITY_POWER.value,
        steps=_WALK_STEPS.value,
        crf=RANDOM_WALK_CRF if _WALK_CRF.value else None,
        batch_size=_BATCH_SIZE.value,
        overwrite=_OVERWRITE.value,
    )
    print(f"random walk: {written} written, {kept} kept: {output / 'pseudo_labels'}")


def _infer_masks(recipe, net, source, output, scales):
    from wsss_tf.inference.predict import predict_source
    from wsss_tf.stages import make_postprocess, make_predictor

    options = {"scales": scales, "flip": _FLIP.value}
    options = {name: value for name, value in options.items() if value is not None}
    written, kept = predict_source(
        make_predictor(recipe, net, **options),
        source,
        output,
        postprocess=make_postprocess(recipe) if _POSTPROCESS.value else None,
        batch_size=_BATCH_SIZE.value,
        overwrite=_OVERWRITE.value,
    )
    print(f"{written} written, {kept} kept: {output / 'predictions'}")


def _grad_cam(net, scales, flip):
    from wsss_tf.inference.grad_cam import GradCam

    if _CAM_OUTPUT.value:
        raise UserError(f"--cam_output means nothing for --method={_METHOD.value}.")
    try:
        return GradCam(net, _METHOD.value, scales, flip)
    except ValueError as error:
        raise UserError(f"--method={_METHOD.value}: {error}") from error


if __name__ == "__main__":
    command.run(main)
