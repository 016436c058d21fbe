"""Write what a network finds in a split, or in any folder of pictures.

  python -m wsss_tf.infer --run_dir=RUN --split=train
  python -m wsss_tf.infer --run_dir=RUN --input=FOLDER --output=FOLDER2

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
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Override the run's config.gin, such as the folder of the data set."
)


def main():
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: a folder that wsss_tf.train made.")
    if bool(_SPLIT.value) == bool(_INPUT.value):
        raise UserError("give either --split or --input.")
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
_CAM_FLAGS = ("cam_output", "background_threshold", "label_threshold")
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
    compute = MultiScaleCam(net, cam_output, scales or SCALES, _FLIP.value is not False)
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


if __name__ == "__main__":
    command.run(main)
