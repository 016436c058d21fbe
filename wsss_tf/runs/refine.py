"""The dense CRF on the CAMs of a split. No TensorFlow by itself."""

import dataclasses

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import CRF_NAMES
from wsss_tf.inference.cam_crf import BACKGROUND_POWERS, power_of_threshold
from wsss_tf.inference.dense_crf import CAM_CRF
from wsss_tf.inference.write_crf import crf_source
from wsss_tf.runs.crf_settings import followed_power, scaled_crf, threshold_by_odds


def crf_options(
    background_threshold,
    powers=None,
    thresholds=None,
    odds=None,
    iterations=CAM_CRF.iterations,
    crf_scale=1.0,
    unary_weight=CAM_CRF.unary_weight,
    library=CAM_CRF.library,
):
    """Return `powers` and `parameters` of `inference.write_crf.crf_source`.

    Args:
      background_threshold: of the maps, in (0, 1); the powers follow it where they are not given.
      powers: low and high power of the background score.
      thresholds: instead of them: below the first score a pixel is taken for background, above the
        second for its strongest class.
      odds: instead of them: these two scores by how many times the odds t / (1 - t) of the maps'
        threshold theirs are.
      iterations: of the CRF.
      crf_scale: divides its widths, which are for pictures of 500 pixels.
      unary_weight: how much the maps count against its kernels.
      library: as in `dense_crf.CrfParameters`.

    Raises:
      UserError: numbers that contradict each other, or cannot be.
    """
    parameters = dataclasses.replace(
        scaled_crf(CAM_CRF, crf_scale),
        iterations=iterations,
        unary_weight=unary_weight,
        library=library,
    )
    return {
        "powers": _powers(background_threshold, powers, thresholds, odds),
        "parameters": parameters,
    }


def _powers(background_threshold, powers, thresholds, odds):
    if sum(given is not None for given in (powers, thresholds, odds)) > 1:
        raise UserError("give one of --crf_powers, --crf_thresholds and --crf_odds.")
    if powers is not None:
        return _two_ascending("crf_powers", powers)
    if odds is not None:
        ratios = _two_ascending("crf_odds", odds)
        thresholds = [threshold_by_odds(background_threshold, ratio) for ratio in ratios]
    if thresholds is None:
        return tuple(followed_power(background_threshold, power) for power in BACKGROUND_POWERS)
    low, high = _two_ascending("crf_thresholds", thresholds)
    if high >= 1:
        raise UserError(f"--crf_thresholds={low:g},{high:g}: scores lie below 1.")
    return power_of_threshold(high), power_of_threshold(low)


def _two_ascending(name, numbers):
    if len(numbers) != 2 or not 0 < numbers[0] < numbers[1]:
        given = ",".join(f"{number:g}" for number in numbers)
        raise UserError(f"--{name}={given}: give two numbers, the lower one first.")
    return tuple(numbers)


def refine(cams, processes=None, overwrite=False, **options):
    """Write CRF marginals and labels for every image of a split beside its CAMs, and say so.

    Args:
      cams: `cam_run.CamRun`.
      processes, overwrite: as in `inference.write_crf.crf_source`.
      **options: as `crf_options` gives; by default those that follow the maps' threshold.

    Raises:
      UserError: as `inference.write_crf.crf_source`.
    """
    options = options or crf_options(cams.background_threshold)
    written, kept = crf_source(
        cams.source,
        cams.folder,
        processes,
        overwrite=overwrite,
        max_side=cams.max_side,
        **options,
    )
    low, high = CRF_NAMES
    print(f"dense CRF: {written} written, {kept} kept: {cams.folder.path / low}, {high}")
