"""Flags that several commands have, and the plain values that they stand for.

A command defines the groups that it wants, and hands their values on.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.files.folder_layout import ROOT_BINDING
from wsss_tf.inference.dense_crf import LIBRARIES
from wsss_tf.inference.walk_settings import AFFINITY_WALK

# === Groups ===


def define_cams(values=flags.FLAGS):
    """Define the flags of a command that goes on from CAMs: which, and how they were made."""
    define_cam_files(values)
    flags.DEFINE_float(
        "background_threshold",
        None,
        "Score that tells classes from background in the maps; default: that of infer or"
        " calibrate. The background powers follow it where they are not given.",
        0,
        1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_side",
        None,
        "Longer side, pixels, at which larger pictures are labelled; what is written has their own "
        "size. Default: that of infer; 0 for no limit.",
        0,
        flag_values=values,
    )
    define_files(values)


def define_cam_files(values=flags.FLAGS):
    """Define --run_dir and --split of CAMs."""
    flags.DEFINE_string(
        "run_dir",
        None,
        "Folder with cams/, as wsss_tf.infer wrote them: the run's, or its --output.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "split",
        None,
        "Split that they are of; all for those of --input.",
        flag_values=values,
    )


def define_files(values=flags.FLAGS):
    """Define what every kind of inference has: --overwrite, and where the data set is."""
    flags.DEFINE_bool("overwrite", False, "Write files that exist again.", flag_values=values)
    define_data(values)


def define_data(values=flags.FLAGS):
    """Define --data and --gin_bindings, for a run whose data set has moved, or is another one."""
    flags.DEFINE_string(
        "data",
        None,
        "Folder of pictures, in place of the one that the run was trained on: of its kind, with "
        "its classes.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "gin_bindings",
        [],
        "Override the run's config.gin, such as the folder of the data set.",
        flag_values=values,
    )


def define_any_crf(values=flags.FLAGS):
    """Define the flags that the dense CRF on CAMs and that of the random walk share."""
    flags.DEFINE_float(
        "crf_scale",
        1,
        "Divides the CRFs' widths, which are for pictures of 500 pixels.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "crf_library",
        LIBRARIES[0],
        LIBRARIES,
        "What computes dense CRFs; the results are the same. tensorflow uses a GPU if there is "
        "one; pydensecrf must be installed by itself.",
        flag_values=values,
    )


def define_crf(values=flags.FLAGS):
    """Define the flags of the dense CRF on CAMs, besides those of `define_any_crf`."""
    flags.DEFINE_list(
        "crf_powers",
        None,
        "Low and high power of the background score before the dense CRF; 4,24 for maps whose "
        "threshold is 0.26.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "crf_thresholds",
        None,
        "Instead of --crf_powers: below the first score a pixel is taken for background, above the "
        "second for its strongest class.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "crf_odds",
        None,
        "Instead of --crf_thresholds: how many times the odds t / (1 - t) of "
        "--background_threshold theirs are; 0.72,1.38 for thresholds close to it.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "crf_unary_weight",
        1,
        "How much the maps count against the kernels of the dense CRF.",
        0,
        flag_values=values,
    )
    define_crf_work(values)


def define_crf_work(values=flags.FLAGS):
    """Define how long a dense CRF on CAMs runs, and over how many processes."""
    flags.DEFINE_integer(
        "crf_iterations", 10, "Iterations of the dense CRF.", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "crf_processes",
        None,
        "Processes for the dense CRF; default: one a processor core.",
        1,
        flag_values=values,
    )


def define_ir_labels(values=flags.FLAGS):
    """Define the flags of IRN's labels, besides those of `define_any_crf`."""
    flags.DEFINE_list(
        "ir_thresholds",
        None,
        "Background is learnt where the maps are below the first score, classes above the second, "
        "but for what the CRF changes; 0.05,0.3 for maps whose threshold is 0.15. By default they "
        "follow it.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "ir_odds",
        None,
        "For --ir_thresholds: how many times the odds t / (1 - t) of --background_threshold theirs "
        "are, such as 0.72,1.38.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "ir_confidence",
        0.7,
        "Probability of a pixel's strongest label before the dense CRF.",
        0,
        1,
        flag_values=values,
    )
    define_crf_work(values)


def define_walk(values=flags.FLAGS):
    """Define the flags of the random walk, besides those of `define_any_crf`."""
    flags.DEFINE_string(
        "affinity_run",
        None,
        "Run of gin/affinity.gin or gin/irn.gin; the random walk's pseudo_labels/ go there, or "
        "into --output.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "background_power",
        None,
        "Random walk: power of the background score (1 - strongest class); 6 for maps whose "
        "threshold is 0.26.",
        0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "affinity_power",
        None,
        "Random walk: power of affinities; default: 8 for AffinityNet, 10 for IRN.",
        0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "walk_steps",
        None,
        "Random walk: number of steps; default: 64 for AffinityNet, 256 for IRN.",
        0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "walk_threshold",
        None,
        "Random walk, for --background_power: the classes walk alone, and background is what "
        "stays below this share of the highest score; the default for IRN, 0.25 for maps whose "
        "threshold is 0.15.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "walk_odds",
        None,
        "Random walk, for --walk_threshold: how many times the odds t / (1 - t) of "
        "--background_threshold its odds are.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "walk_weigh_start",
        True,
        "Random walk, for IRN: begin with less of a score where there is a boundary.",
        flag_values=values,
    )
    flags.DEFINE_bool("walk_crf", False, "Random walk: then the dense CRF.", flag_values=values)
    flags.DEFINE_integer("walk_crf_iterations", 1, "Iterations of that CRF.", 0, flag_values=values)
    flags.DEFINE_float(
        "walk_crf_unary_weight",
        1,
        "How much the walked scores count against the kernels of that CRF.",
        0,
        flag_values=values,
    )


# === Values ===


def gin_bindings(values=flags.FLAGS):
    """Return the strings of --gin_bindings, and before them that of --data.

    Raises:
      UserError: --data is no folder.
    """
    if values.data is None:
        return values.gin_bindings
    folder = pathlib.Path(values.data).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--data={values.data}: no such folder.")
    return [f"{ROOT_BINDING}={str(folder)!r}", *values.gin_bindings]


def open_cams(values=flags.FLAGS):
    """Return the `runs.cam_run.CamRun` that the flags of `define_cams` name.

    Raises:
      UserError: as `runs.cam_run.open_cam_run`.
    """
    from wsss_tf.runs.cam_run import open_cam_run

    return open_cam_run(
        values.run_dir,
        values.split,
        gin_bindings(values),
        values.background_threshold,
        values.max_side,
    )


def crf_options(background_threshold, values=flags.FLAGS):
    """Return `runs.refine.crf_options` of the flags.

    Raises:
      UserError: numbers that contradict each other, or cannot be.
    """
    from wsss_tf.runs import refine

    return refine.crf_options(
        background_threshold,
        powers=_numbers("crf_powers", "4,24", values),
        thresholds=_numbers("crf_thresholds", "0.1,0.3", values),
        odds=_numbers("crf_odds", "0.72,1.38", values),
        iterations=values.crf_iterations,
        crf_scale=values.crf_scale,
        unary_weight=values.crf_unary_weight,
        library=values.crf_library,
    )


def walk_options(background_threshold, values=flags.FLAGS, settings=AFFINITY_WALK):
    """Return `runs.infer_walk.walk_options` of the flags.

    Args:
      background_threshold, settings: as there.
      values: the flags.

    Raises:
      UserError: numbers that cannot be.
    """
    from wsss_tf.runs import infer_walk

    return infer_walk.walk_options(
        background_threshold,
        background_power=values.background_power,
        affinity_power=values.affinity_power,
        steps=values.walk_steps,
        use_crf=values.walk_crf,
        crf_scale=values.crf_scale,
        crf_iterations=values.walk_crf_iterations,
        crf_unary_weight=values.walk_crf_unary_weight,
        crf_library=values.crf_library,
        threshold=values.walk_threshold,
        odds=values.walk_odds,
        weigh_start=values.walk_weigh_start,
        settings=settings,
    )


def _numbers(name, example, values):
    texts = values[name].value
    return None if texts is None else command.parse_positive(name, texts, example)


def ir_label_options(background_threshold, values=flags.FLAGS):
    """Return `runs.ir_labels.ir_label_options` of the flags.

    Raises:
      UserError: numbers that contradict each other, or cannot be.
    """
    from wsss_tf.runs import ir_labels

    return ir_labels.ir_label_options(
        background_threshold,
        thresholds=_numbers("ir_thresholds", "0.05,0.3", values),
        odds=_numbers("ir_odds", "0.72,1.38", values),
        confidence=values.ir_confidence,
        iterations=values.crf_iterations,
        crf_scale=values.crf_scale,
        library=values.crf_library,
    )


def refuse_without(switch, names, values=flags.FLAGS):
    """Refuse flags that were given and mean nothing without another one.

    Raises:
      UserError: there is one, and the other is not set.
    """
    if values[switch].value:
        return
    for name in names:
        if values[name].present:
            raise UserError(f"--{name} means nothing without --{switch}.")


def require(*names, values=flags.FLAGS):
    """Check that flags are set.

    Raises:
      UserError: one of them is not; the flag's help says what to give.
    """
    for name in names:
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
