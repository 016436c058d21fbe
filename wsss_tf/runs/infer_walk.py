"""The random walk from CAMs to pseudo labels, by a run of AffinityNet or IRN."""

import dataclasses

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.cam_crf import WALK_POWER
from wsss_tf.inference.dense_crf import RANDOM_WALK_CRF
from wsss_tf.inference.walk_settings import AFFINITY_WALK
from wsss_tf.runs.crf_settings import (
    followed_power,
    followed_threshold,
    scaled_crf,
    threshold_by_odds,
)


def check_folders(cam_run, affinity_run, output):
    """Check, before anything is loaded, that a walk has a network and a place for its labels.

    Args:
      cam_run: folder of the CAMs, whose pseudo labels are theirs.
      affinity_run: run folder of AffinityNet or IRN.
      output: folder for the walk's pseudo labels.

    Raises:
      UserError: there is no such run, or the walk's labels would fall on the CAMs'.
    """
    if not RunFolder(affinity_run).config.is_file():
        raise UserError(
            f"--affinity_run={affinity_run}: no config.gin in it; train gin/affinity.gin or "
            "gin/irn.gin first."
        )
    output = RunFolder(output).path
    if output.resolve() == RunFolder(cam_run).path.resolve():
        raise UserError(f"{output}: holds the labels of the CAMs; choose another --output.")


def load_affinity(run_dir):
    """Return `inference.random_walk.PictureAffinity` of a run of AffinityNet, of IRN
    `inference.boundary_walk.PictureBoundary`.

    Raises:
      UserError: it is not a run of either, or one of an earlier version.
    """
    from wsss_tf.inference.boundary_walk import PictureBoundary
    from wsss_tf.inference.random_walk import PictureAffinity
    from wsss_tf.runs.trained_network import load_network

    net = load_network(run_dir, for_inference=True)
    if "edge_logits" in net.output:
        return PictureBoundary(net)
    if "features" not in net.output:
        raise UserError(f"--affinity_run={run_dir}: is no run of gin/affinity.gin or gin/irn.gin.")
    if "affinity" not in net.output:
        raise UserError(
            f"--affinity_run={run_dir}: its network does not know the radius of its pairs, as that "
            "of an earlier version; train gin/affinity.gin again."
        )
    return PictureAffinity(net)


def walk_options(
    background_threshold,
    background_power=None,
    affinity_power=None,
    steps=None,
    use_crf=False,
    crf_scale=1.0,
    crf_iterations=1,
    crf_unary_weight=1.0,
    threshold=None,
    odds=None,
    weigh_start=True,
    crf_library=RANDOM_WALK_CRF.library,
    settings=AFFINITY_WALK,
):
    """Return the keyword arguments of `inference.random_walk.label_by_walk`.

    Args:
      background_threshold: of the maps, in (0, 1); the power or the threshold follows it where
        neither is given.
      background_power, affinity_power, steps: as in `label_by_walk`; None for those of `settings`.
      use_crf: refine by the dense CRF.
      crf_scale: divides its widths, which are for pictures of 500 pixels.
      crf_iterations, crf_unary_weight, crf_library: as in `dense_crf.CrfParameters`.
      threshold: as in `label_by_walk`.
      odds: instead of it: how many times the odds t / (1 - t) of the maps' threshold its odds are.
      weigh_start: as in `label_by_walk`.
      settings: `random_walk.WalkSettings` of the network, as `load_affinity` gives.

    Raises:
      UserError: numbers that cannot be, or contradict each other.
    """
    if odds is not None:
        if threshold is not None:
            raise UserError("--walk_odds takes the place of --walk_threshold; give one.")
        if odds <= 0:
            raise UserError(f"--walk_odds={odds:g}: give a number above 0.")
        threshold = threshold_by_odds(background_threshold, odds)
    if threshold is not None:
        if background_power is not None:
            raise UserError(
                "--walk_threshold or --walk_odds takes the place of --background_power; give one."
            )
        if not 0 < threshold < 1:
            raise UserError(f"--walk_threshold={threshold:g}: give a number between 0 and 1.")
    if background_power is None and threshold is None and settings.threshold is not None:
        threshold = followed_threshold(background_threshold, settings.threshold)
    if background_power is None:
        background_power = followed_power(background_threshold, WALK_POWER)
    return {
        "background_power": background_power,
        "affinity_power": settings.affinity_power if affinity_power is None else affinity_power,
        "steps": settings.steps if steps is None else steps,
        "crf": _crf(crf_scale, crf_iterations, crf_unary_weight, crf_library) if use_crf else None,
        "threshold": threshold,
        "weigh_start": weigh_start,
    }


def _crf(scale, iterations, unary_weight, library):
    try:
        parameters = dataclasses.replace(
            RANDOM_WALK_CRF, iterations=iterations, unary_weight=unary_weight, library=library
        )
    except ValueError as error:
        raise UserError(f"--walk_crf: {error}") from error
    return scaled_crf(parameters, scale)


def walk(cams, affinity, output, batch_size=8, overwrite=False, **options):
    """Write a pseudo label for every image of a split, and say so.

    Args:
      cams: `cam_run.CamRun`.
      affinity: as `load_affinity` gives.
      output: folder for the labels, another than the CAMs'.
      batch_size, overwrite: as in `inference.write_walk.walk_source`.
      **options: as `walk_options` gives; by default those of the network that follow the maps'
        threshold.

    Raises:
      UserError: as `inference.write_walk.walk_source`.
    """
    from wsss_tf.inference.write_walk import walk_source

    options = options or walk_options(cams.background_threshold, settings=affinity.settings)
    written, kept, lost = walk_source(
        affinity,
        cams.source,
        cams.folder,
        output,
        batch_size=batch_size,
        overwrite=overwrite,
        max_side=cams.max_side,
        **options,
    )
    labels = RunFolder(output).pseudo_labels
    print(f"random walk: {written} written, {kept} kept: {labels}")
    if lost:
        print(
            f"{len(lost)} of these labels have no pixel of a class that the CAMs have, such as "
            f"that of {lost[0]!r}; a lower threshold or a higher background power keeps more."
        )
