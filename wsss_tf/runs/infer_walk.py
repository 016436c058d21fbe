"""The random walk from CAMs to pseudo labels, by a run of AffinityNet."""

import pathlib

from absl import flags

from wsss_tf.errors import UserError
from wsss_tf.runs import infer_cams

# Of the CAMs' own files, where --output is for the walk's labels.
CAM_FOLDER = "cam_stage"
_RANDOM_WALK = flags.DEFINE_bool(
    "random_walk", False, "Spread the CAMs by a random walk: pseudo_labels/ of --affinity_run."
)
_AFFINITY_RUN = flags.DEFINE_string(
    "affinity_run", None, "Run of gin/affinity.gin; with --random_walk --output replaces it."
)
_BACKGROUND_POWER = flags.DEFINE_float(
    "background_power",
    None,
    "Random walk: power of the background score (1 - strongest class); 6 for maps whose threshold "
    "is 0.26.",
    0,
)
_AFFINITY_POWER = flags.DEFINE_float("affinity_power", 8, "Random walk: power of affinities.", 0)
_WALK_STEPS = flags.DEFINE_integer("walk_steps", 64, "Random walk: number of steps.", 0)
_WALK_CRF = flags.DEFINE_bool("walk_crf", False, "Random walk: refine by one CRF iteration.")


def is_wanted():
    """Return whether the command asks for it."""
    return _RANDOM_WALK.value


def affinity_run():
    """Return the run folder of AffinityNet, checked to be there.

    Raises:
      UserError: it is not, or only one of the two flags is given.
    """
    if _RANDOM_WALK.value != bool(_AFFINITY_RUN.value):
        raise UserError("--random_walk and --affinity_run=RUN go together.")
    if not _RANDOM_WALK.value:
        return None
    run = pathlib.Path(_AFFINITY_RUN.value)
    if not (run / "config.gin").is_file():
        raise UserError(f"--affinity_run={run}: no config.gin in it; train gin/affinity.gin first.")
    return run


def check_output(run_dir, output):
    """Check that the walk's labels do not fall on the CAMs'.

    Raises:
      UserError: they would.
    """
    if output.resolve() == pathlib.Path(run_dir).resolve():
        raise UserError(f"{output}: holds the labels of the CAMs; choose another --output.")


def load_affinity(run):
    """Return `inference.random_walk.PictureAffinity` of a run; None for None.

    Raises:
      UserError: it is not a run of gin/affinity.gin, or one of an earlier version.
    """
    if run is None:
        return None
    from wsss_tf.inference.random_walk import PictureAffinity
    from wsss_tf.runs import recipe as recipe_lib

    net = recipe_lib.load_network(run)
    if "features" not in net.output:
        raise UserError(f"--affinity_run={run}: is no run of gin/affinity.gin.")
    if "affinity" not in net.output:
        raise UserError(
            f"--affinity_run={run}: its network does not know the radius of its pairs, as that of "
            "an earlier version; train gin/affinity.gin again."
        )
    return PictureAffinity(net)


def options(recipe):
    """Return the keyword arguments of `inference.random_walk.label_by_walk` that flags set.

    Args:
      recipe: of the run that the maps are from.
    """
    from wsss_tf.inference.cam_crf import WALK_POWER
    from wsss_tf.inference.dense_crf import RANDOM_WALK_CRF

    power = _BACKGROUND_POWER.value
    return {
        "background_power": infer_cams.followed_power(recipe, WALK_POWER)
        if power is None
        else power,
        "affinity_power": _AFFINITY_POWER.value,
        "steps": _WALK_STEPS.value,
        "crf": infer_cams.scaled_crf(RANDOM_WALK_CRF) if _WALK_CRF.value else None,
    }


def run(affinity, walk_options, source, cam_run, output, **work):
    """Write `pseudo_labels/<id>.png` below `output` for every image of a source.

    `walk_options` is what `options` gives; `work` is `batch_size`, `overwrite` and `max_side`.
    """
    from wsss_tf.inference.write_walk import walk_source

    written, kept = walk_source(
        affinity,
        source,
        cam_run,
        output,
        **walk_options,
        **work,
    )
    print(f"random walk: {written} written, {kept} kept: {output / 'pseudo_labels'}")
