"""The dense CRF on the CAMs of one picture: what a worker process does. No TensorFlow."""

import math

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.files import png
from wsss_tf.files.run_folder import CRF_NAMES, RunFolder
from wsss_tf.inference.dense_crf import CAM_CRF, dense_crf, dense_crfs
from wsss_tf.inference.map_sizes import resize_maps

# SEAM's two powers of the background score, one for each of CRF_NAMES. With the low one
# the background scores more, so that what is foreground still is so for sure; with the high one
# less, and background is.
BACKGROUND_POWERS = (4.0, 24.0)
# That of its random walk, and the threshold of its maps that all three are for.
WALK_POWER = 6.0
BACKGROUND_THRESHOLD = 0.26


def threshold_of_power(background_power):
    """Return the score above which a class beats the background (1 - score) ^ power.

    Args:
      background_power: above 0; the higher, the lower the threshold.

    Returns:
      float in (0, 1): the root t of (1 - t) ^ power = t; 0.2755 for 4, 0.0939 for 24.

    Raises:
      ValueError: a power that has no such score.
    """
    if not 0 < background_power < math.inf:
        raise ValueError(f"background power {background_power}: it must be a number above 0.")
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if (1 - middle) ** background_power > middle:
            low = middle
        else:
            high = middle
    return high


def power_of_threshold(background_threshold):
    """Return the power whose background (1 - score) ^ power a class beats above a threshold.

    Args:
      background_threshold: in (0, 1).

    Returns:
      float above 0: ln t / ln(1 - t), the inverse of `threshold_of_power`; 1 for 0.5.

    Raises:
      ValueError: a threshold that no power has.
    """
    if not 0 < background_threshold < 1:
        raise ValueError(f"threshold {background_threshold}: it must lie between 0 and 1.")
    return math.log(background_threshold) / math.log1p(-background_threshold)


def power_for_maps(background_threshold, official_power):
    """Return the power that does for other maps what an official one does for SEAM's.

    Its threshold t lies beside that of the maps as the official ones lie beside 0.26: the ratio of
    the odds t / (1 - t) is the same. (The choice of odds is ours: so no threshold leaves (0, 1).)

    Args:
      background_threshold: of the maps, in (0, 1); 0.26 gives the official power back.
      official_power: for maps of threshold 0.26.

    Raises:
      ValueError: as in the functions above.
    """

    official = threshold_of_power(official_power)
    ratio = odds(official) / odds(BACKGROUND_THRESHOLD)
    return power_of_threshold(times_odds(background_threshold, ratio))


def times_odds(threshold, ratio):
    """Return the threshold whose odds t / (1 - t) are so many times those of another.

    Args:
      threshold: in (0, 1).
      ratio: above 0; 1 gives the threshold back.

    Raises:
      ValueError: the threshold lies outside.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: it must lie between 0 and 1.")
    wanted = ratio * odds(threshold)
    return wanted / (1 + wanted)


def odds(threshold):
    """Return t / (1 - t)."""
    return threshold / (1 - threshold)


def background_score(cams, background_power):
    """Return how much a pixel looks like background: (1 - strongest class) ^ power.

    Args:
      cams: [P, h, w] in [0, 1]; P may be 0, then every pixel scores 1.
      background_power: alpha in the papers.

    Returns:
      float32 [h, w] in [0, 1].
    """
    cams = np.asarray(cams, np.float32)
    return (1 - cams.max(axis=0, initial=0)) ** np.float32(background_power)


def crf_probs(cams, background_power):
    """Return the CRF's input for the classes present: float32 [h, w, P + 1], background first.

    Source: official `infer_SEAM.py`; the channels do not sum to one.
    """
    background = background_score(cams, background_power)
    return np.concatenate([background[None], np.asarray(cams, np.float32)]).transpose(1, 2, 0)


def crf_label(class_ids, cams, image, background_power, parameters=CAM_CRF):
    """Return the label of one image after the CRF, uint8 [h, w] of 0 and `class_ids`.

    Args:
      class_ids: int [P], mask values of the classes present.
      cams: [P, h, w] in [0, 1].
      image: uint8 [h, w, 3] RGB.
      background_power: as in `background_score`.
      parameters: `dense_crf.CrfParameters`.
    """
    marginals = dense_crf(crf_probs(cams, background_power), image, parameters)
    return _label(np.concatenate([[0], class_ids]), marginals)


def _label(ids, marginals):
    return ids[marginals.argmax(axis=-1)].astype(np.uint8)


def refine(run_dir, image_id, image, parameters=CAM_CRF, powers=BACKGROUND_POWERS, size=None):
    """Run the CRF on one image's CAMs and write the results into the run folder.

    Args:
      run_dir: folder with `cams/`; see `wsss_tf.files.run_folder` for what is written.
      image_id: string.
      image: uint8 [h, w, 3] RGB, which the CRF runs on.
      parameters: `dense_crf.CrfParameters`.
      powers: the low and the high background power.
      size: (H, W) of the maps, which are brought to `image` and the marginals back to them, where
        `image` is reduced; None for its own size.

    Raises:
      UserError: a broken CAM file, or one of another image size.
    """
    size = image.shape[:2] if size is None else size
    run = RunFolder(run_dir)
    class_ids, cams = run.read_cams(image_id, size)
    cams = resize_maps(cams, image.shape[:2])
    ids = np.concatenate([[0], class_ids])
    try:
        both = dense_crfs([crf_probs(cams, power) for power in powers], image, parameters)
    except ValueError as error:
        raise UserError(f"{run.cam(image_id)}: {error} Delete it and infer again.") from error
    for name, marginals in zip(CRF_NAMES, both):
        marginals = resize_maps(marginals.transpose(2, 0, 1), size).transpose(1, 2, 0)
        png.save_mask(run.crf_label(name, image_id), _label(ids, marginals))
        png.save_probabilities(run.crf(name, image_id), ids, marginals)


def is_refined(run_dir, image_id):
    """Return whether `refine` has run on an image's CAMs as they are now."""
    run = RunFolder(run_dir)
    newest_input = run.cam(image_id).stat().st_mtime_ns
    for name in CRF_NAMES:
        for path in (run.crf, run.crf_label):
            file = path(name, image_id)
            if not file.is_file() or file.stat().st_mtime_ns < newest_input:
                return False
    return True
