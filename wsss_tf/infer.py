"""Write what a network finds in a split, or in any folder of pictures.

  python -m wsss_tf.infer --run_dir=RUN --split=train
  python -m wsss_tf.infer --run_dir=RUN --input=FOLDER --output=FOLDER2
  python -m wsss_tf.infer --run_dir=RUN --input='FOLDER/**.jpg' --output=OUT --runner=DirectRunner
                          -- --direct_num_workers=8 --direct_running_mode=multi_processing

A run on image labels gives class activation maps (cams/) and pseudo_labels/; a network that
predicts masks gives predictions/, palette PNGs with values 0..K-1. Files that are already there are
kept, so an interrupted command can be run again. Pictures without labels get those that are found,
which found_labels.csv lists; --overlays writes pictures to be looked at. With --runner the files
come out of Apache Beam, in archives; what follows -- are the runner's own options.

--crf and --random_walk go on with what wsss_tf.refine and wsss_tf.walk do:
  python -m wsss_tf.infer --run_dir=RUN --split=train --crf
  python -m wsss_tf.infer --run_dir=RUN --split=train --random_walk --affinity_run=RUN2
"""

import os

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder

command_flags.define_files()
command_flags.define_crf()
command_flags.define_any_crf()
command_flags.define_walk()
flags.adopt_module_key_flags(command_flags)  # for --help
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

_OVERLAYS = flags.DEFINE_bool(
    "overlays", False, "Also write overlays/: the pictures with their masks' colours over them."
)

# === Masks ===

_POSTPROCESS = flags.DEFINE_bool(
    "postprocess", True, "For masks: apply the recipe's postprocess (such as a CRF), if it has one."
)

# === Class activation maps ===

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
    "Score that a pseudo label's pixel must beat; default: that of wsss_tf.calibrate, or else the "
    "recipe's. The background powers of the dense CRF and the random walk follow it where they are "
    "not given.",
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
_RANDOM_WALK = flags.DEFINE_bool(
    "random_walk", False, "Spread the CAMs by a random walk: pseudo_labels/ of --affinity_run."
)
_RUNNER = flags.DEFINE_string(
    "runner",
    None,
    "Run on Apache Beam: DirectRunner, FlinkRunner, SparkRunner or DataflowRunner; "
    "its own options follow after --.",
)
_IMAGES_PER_ARCHIVE = flags.DEFINE_integer(
    "images_per_archive", 500, "With --runner: pictures whose files share a tar archive.", 1
)

_MASK_FLAGS = ("postprocess",)
_CRF_FLAGS = ("crf_powers", "crf_thresholds", "crf_odds", "crf_iterations", "crf_unary_weight")
_WALK_FLAGS = (
    "background_power",
    "affinity_power",
    "walk_steps",
    "walk_threshold",
    "walk_odds",
    "walk_weigh_start",
    "walk_crf",
    "walk_crf_iterations",
    "walk_crf_unary_weight",
)
_CAM_FLAGS = (
    "method", "cam_output", "background_threshold", "label_threshold", "crf", *_CRF_FLAGS,
    "crf_scale", "crf_library", "random_walk", "runner",
)  # fmt: skip


def main(runner_options):
    """Run the command."""
    _check_flags(runner_options)
    from wsss_tf.runs.trained_run import open_run

    run = open_run(_RUN_DIR.value, command_flags.gin_bindings())
    _check_kind(run.recipe.predicts_masks)
    if run.recipe.predicts_masks:
        _infer_masks(run)
    else:
        _infer_cams(run, runner_options)


def _check_flags(runner_options):
    """Refuse what cannot be, before anything is loaded."""
    from wsss_tf.runs import infer_beam, infer_walk

    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: a folder that wsss_tf.train made.")
    if bool(_SPLIT.value) == bool(_INPUT.value):
        raise UserError("give either --split or --input.")
    affinity_run = flags.FLAGS.affinity_run
    if _RANDOM_WALK.value != bool(affinity_run):
        raise UserError("--random_walk and --affinity_run=RUN go together.")
    infer_beam.check(_RUNNER.value, runner_options, _OUTPUT.value)
    if _RUNNER.value and _OVERLAYS.value:
        raise UserError("--overlays and --runner exclude each other.")
    if _RANDOM_WALK.value:
        infer_walk.check_folders(_RUN_DIR.value, affinity_run, _OUTPUT.value or affinity_run)
    alone = [] if flags.FLAGS.walk_crf else ["crf_scale", "crf_library"]
    command_flags.refuse_without("crf", [*_CRF_FLAGS, *alone])
    command_flags.refuse_without("random_walk", _WALK_FLAGS)


def _check_kind(predicts_masks):
    """Refuse flags that mean nothing for the other kind of network."""
    for name in _CAM_FLAGS if predicts_masks else _MASK_FLAGS:
        if flags.FLAGS[name].present:
            kind = "predicts masks" if predicts_masks else "gives class activation maps"
            raise UserError(f"--{name} means nothing here: the network of this run {kind}.")


def _scales():
    return None if _SCALES.value is None else command.parse_scales(_SCALES.value)


def _work(run):
    return {
        "batch_size": _BATCH_SIZE.value,
        "overwrite": flags.FLAGS.overwrite,
        "max_side": run.recipe.side_limit(_MAX_SIDE.value),
    }


def _hold(folder):
    """Have nobody else write the same into a folder until the command ends."""
    command.hold(RunFolder(folder).writing(_SPLIT.value or "all", make=True))


def _infer_masks(run):
    from wsss_tf.runs.infer_masks import infer_masks

    scales = _scales()
    output = _OUTPUT.value or run.folder
    net = run.network(_CHECKPOINT.value)
    _hold(output)
    source = run.source(output, _SPLIT.value, _INPUT.value)
    infer_masks(run, net, source, output, scales, _FLIP.value, _POSTPROCESS.value, **_work(run))
    if _OVERLAYS.value:
        _write_overlays(source, RunFolder(output).predictions, output)


def _infer_cams(run, runner_options):
    """Write CAMs, then what the dense CRF and the random walk make of them, if they are wanted."""
    from wsss_tf.runs import infer_cams, infer_walk
    from wsss_tf.runs.refine import refine

    maps = infer_cams.map_options(
        run.recipe, _METHOD.value, _CAM_OUTPUT.value, _scales(), _FLIP.value
    )
    threshold = run.threshold(_BACKGROUND_THRESHOLD.value)
    crf = command_flags.crf_options(threshold) if _CRF.value else None
    walk = affinity = None
    if _RANDOM_WALK.value:
        command_flags.walk_options(threshold)  # what cannot be, before hours of work
        affinity = infer_walk.load_affinity(flags.FLAGS.affinity_run)
        walk = command_flags.walk_options(threshold, settings=affinity.settings)
    if _RUNNER.value:
        _infer_on_beam(run, maps, runner_options, threshold, crf, walk)
        return
    compute = infer_cams.make_maps(run.network(_CHECKPOINT.value), **maps)
    output = _OUTPUT.value or run.folder
    if walk is not None:
        # --output is for the walk's labels, which the CAMs' must not replace.
        output = run.folder if _SPLIT.value else RunFolder(output).cam_stage
    labels = output if walk is None else _OUTPUT.value or flags.FLAGS.affinity_run
    for folder in dict.fromkeys(map(os.fspath, (output, labels))):
        _hold(folder)
    source = run.source(output, _SPLIT.value, _INPUT.value)
    work = _work(run)
    cams = infer_cams.infer_cams(
        run, compute, source, output, threshold, _LABEL_THRESHOLD.value, **work
    )
    if crf is not None:
        refine(cams, flags.FLAGS.crf_processes, work["overwrite"], **crf)
    if walk is not None:
        infer_walk.walk(cams, affinity, labels, work["batch_size"], work["overwrite"], **walk)
        output = labels
    if _OVERLAYS.value:
        _write_overlays(source, RunFolder(output).pseudo_labels, output)


def _write_overlays(source, masks, output):
    from wsss_tf.runs.overlays import write_overlays

    write_overlays(source, masks, output, source.has_background, flags.FLAGS.overwrite)


def _infer_on_beam(run, maps, runner_options, threshold, crf, walk):
    from wsss_tf.runs import infer_beam

    if "://" not in _OUTPUT.value:
        _hold(_OUTPUT.value)
    source = run.split_source(_SPLIT.value) if _SPLIT.value else None
    infer_beam.infer_on_beam(
        (run.folder.path, _CHECKPOINT.value, maps, flags.FLAGS.affinity_run),
        infer_beam.pictures(source, _INPUT.value),
        _OUTPUT.value,
        _RUNNER.value,
        runner_options,
        _IMAGES_PER_ARCHIVE.value,
        flags.FLAGS.overwrite,
        num_classes=len(run.class_names) - 1,  # without the background
        background_threshold=threshold,
        label_threshold=_LABEL_THRESHOLD.value,
        crf=crf,
        walk=walk,
        max_side=run.recipe.side_limit(_MAX_SIDE.value),
    )


if __name__ == "__main__":
    command.run(main, takes_rest=True)
