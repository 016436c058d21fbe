"""Numbers that the dense CRF on CAMs and the random walk share. No TensorFlow."""

import math

from wsss_tf.errors import UserError
from wsss_tf.inference.cam_crf import power_for_maps, times_odds
from wsss_tf.inference.ir_labels import threshold_for_maps


def threshold_by_odds(background_threshold, ratio):
    """Return `inference.cam_crf.times_odds` of a run's maps.

    Raises:
      UserError: their threshold is 0 or 1.
    """
    return _of_maps(times_odds, background_threshold, ratio)


def followed_power(background_threshold, official_power):
    """Return `inference.cam_crf.power_for_maps` of a run's maps.

    Raises:
      UserError: their threshold is 0 or 1.
    """
    return _of_maps(power_for_maps, background_threshold, official_power)


def followed_threshold(background_threshold, official_threshold):
    """Return `inference.ir_labels.threshold_for_maps` of a run's maps.

    Raises:
      UserError: their threshold is 0 or 1.
    """
    return _of_maps(threshold_for_maps, background_threshold, official_threshold)


def _of_maps(follow, background_threshold, number):
    try:
        return follow(background_threshold, number)
    except ValueError as error:
        raise UserError(
            f"{error} Give another --background_threshold, or the numbers that follow it: "
            "--crf_powers, --background_power, --ir_thresholds, --walk_threshold."
        ) from error


def scaled_crf(parameters, crf_scale):
    """Return `dense_crf.CrfParameters` for pictures that are `crf_scale` times smaller.

    Raises:
      UserError: it is not above 0.
    """
    if not 0 < crf_scale < math.inf:
        raise UserError(f"--crf_scale={crf_scale:g}: give a number above 0.")
    return parameters.scaled(crf_scale)
