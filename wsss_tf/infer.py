"""Write what a network finds in a split, or in any folder of pictures.

  python -m wsss_tf.infer --run_dir=RUN --split=train
  python -m wsss_tf.infer --run_dir=RUN --input=FOLDER --output=FOLDER2
  python -m wsss_tf.infer --run_dir=RUN --split=train --crf                       and the dense CRF
  python -m wsss_tf.infer --run_dir=RUN --split=train --random_walk --affinity_run=RUN2
  python -m wsss_tf.infer --run_dir=RUN --input='FOLDER/**.jpg' --output=OUT --runner=DirectRunner
                          -- --direct_num_workers=8 --direct_running_mode=multi_processing

A run on image labels gives class activation maps (cams/) and pseudo_labels/; a network that
predicts masks gives predictions/, palette PNGs with values 0..K-1. Files that are already there are
kept, so an interrupted command can be run again. With --runner the same files come out of Apache
Beam, in archives; what follows -- are the runner's own options.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.runs import infer_beam, infer_cams, infer_masks, infer_walk

for _module in (infer_cams, infer_masks, infer_beam, infer_walk):
    flags.adopt_module_key_flags(_module)  # for --help

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder, as wsss_tf.train made it.")
_SPLIT = flags.DEFINE_string("split", None, "Split of the run's data set.")
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "Folder of pictures without labels, instead of --split; with --runner also a file pattern.",
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
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which network to use.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side",
    None,
    "Longer side, pixels, at which larger pictures are labelled; what is written has their own "
    "size. Default: the recipe's; 0 for no limit.",
    0,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures of equal size run together.", 1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write files that exist again.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Override the run's config.gin, such as the folder of the data set."
)


def main(runner_options):
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: a folder that wsss_tf.train made.")
    if bool(_SPLIT.value) == bool(_INPUT.value):
        raise UserError("give either --split or --input.")
    affinity_run = infer_walk.affinity_run()
    infer_beam.check(runner_options, _OUTPUT.value)
    if affinity_run is not None:
        walk_output = pathlib.Path(_OUTPUT.value or affinity_run)
        infer_walk.check_output(_RUN_DIR.value, walk_output)
    from wsss_tf.runs import recipe as recipe_lib

    run_dir = pathlib.Path(_RUN_DIR.value)
    recipe = recipe_lib.load_run(run_dir, _GIN_BINDINGS.value)
    _check_flags(recipe.predicts_masks)
    scales = None if _SCALES.value is None else command.parse_scales(_SCALES.value)
    class_names = recipe_lib.load_class_names(run_dir)
    if infer_beam.is_wanted():
        source = _split_source(recipe, class_names) if _SPLIT.value else None
        maps = infer_cams.map_options(recipe, scales, _FLIP.value)
        pictures = infer_beam.pictures(source, _INPUT.value)
        networks = (run_dir, _CHECKPOINT.value, maps, affinity_run)
        infer_beam.run(
            recipe,
            networks,
            len(class_names) - 1,  # without the background
            pictures,
            _OUTPUT.value,
            _OVERWRITE.value,
            recipe.side_limit(_MAX_SIDE.value),
            runner_options,
        )
        return
    net = recipe_lib.load_network(run_dir, _CHECKPOINT.value)
    source, output = _source_and_output(recipe, run_dir, class_names)
    work = {
        "batch_size": _BATCH_SIZE.value,
        "overwrite": _OVERWRITE.value,
        "max_side": recipe.side_limit(_MAX_SIDE.value),
    }
    if recipe.predicts_masks:
        infer_masks.run(recipe, net, source, output, scales, _FLIP.value, **work)
        return
    compute = infer_cams.make_maps(net, **infer_cams.map_options(recipe, scales, _FLIP.value))
    # Before hours of work.
    affinity = infer_walk.load_affinity(affinity_run)
    walk_options = infer_walk.options(recipe) if infer_walk.is_wanted() else {}
    infer_cams.run(recipe, compute, source, output, **work)
    if affinity is not None:
        infer_walk.run(affinity, walk_options, source, output, walk_output, **work)


def _source_and_output(recipe, run_dir, class_names):
    from wsss_tf.data.folder import pictures_source
    from wsss_tf.runs.training_run import checked_source

    output = pathlib.Path(_OUTPUT.value or run_dir)
    if (
        infer_walk.is_wanted()
    ):  # --output is for the walk's labels, which the CAMs' must not replace
        output = run_dir if _SPLIT.value else output / infer_walk.CAM_FOLDER
    if _INPUT.value:
        source = pictures_source(_INPUT.value, class_names)
    else:
        source = _split_source(recipe, class_names)
    return checked_source(recipe, source, output), output


def _split_source(recipe, class_names):
    source = recipe.true_source(_SPLIT.value).without_masks()
    if tuple(source.class_names) != class_names:
        raise UserError(
            f"the run was trained on the classes {list(class_names)}, "
            f"the data set now has {list(source.class_names)}."
        )
    return source


def _check_flags(predicts_masks):
    """Refuse flags that mean nothing for the other kind of network."""
    for name in infer_cams.FLAGS if predicts_masks else infer_masks.FLAGS:
        if flags.FLAGS[name].present:
            kind = "predicts masks" if predicts_masks else "gives class activation maps"
            raise UserError(f"--{name} means nothing here: the network of this run {kind}.")


if __name__ == "__main__":
    command.run(main, takes_rest=True)
