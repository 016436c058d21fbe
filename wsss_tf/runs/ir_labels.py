"""Labels for IRN from the CAMs of a split. No TensorFlow by itself."""

import dataclasses

from wsss_tf.errors import UserError
from wsss_tf.inference.ir_labels import (
    IR_CRF,
    IR_THRESHOLDS,
    IrSettings,
    ir_label_source,
)
from wsss_tf.runs.crf_settings import followed_threshold, scaled_crf, threshold_by_odds


def ir_label_options(
    background_threshold,
    thresholds=None,
    odds=None,
    confidence=IrSettings.confidence,
    iterations=IR_CRF.iterations,
    crf_scale=1.0,
    library=IR_CRF.library,
):
    """Return `settings` and `parameters` of `inference.ir_labels.ir_label_source`.

    Args:
      background_threshold: of the maps, in (0, 1), which the thresholds follow.
      thresholds: of background and of classes; None for those that follow.
      odds: instead of them: how many times the odds t / (1 - t) of the maps' threshold theirs are.
      confidence: as in `inference.ir_labels.IrSettings`.
      iterations, library: as in `dense_crf.CrfParameters`.
      crf_scale: divides its widths, which are for pictures of 500 pixels.

    Raises:
      UserError: numbers that contradict each other, or cannot be.
    """
    parameters = dataclasses.replace(
        scaled_crf(IR_CRF, crf_scale), iterations=iterations, library=library
    )
    if odds is not None:
        if thresholds is not None:
            raise UserError("--ir_odds takes the place of --ir_thresholds; give one.")
        thresholds = tuple(threshold_by_odds(background_threshold, ratio) for ratio in odds)
    elif thresholds is None:
        thresholds = tuple(followed_threshold(background_threshold, t) for t in IR_THRESHOLDS)
    if len(thresholds) != 2 or not 0 < thresholds[0] <= thresholds[1] < 1:
        name, numbers = ("odds", odds) if odds is not None else ("thresholds", thresholds)
        given = ",".join(f"{number:g}" for number in numbers)
        kind = "ratios" if odds is not None else "scores below 1"
        raise UserError(f"--ir_{name}={given}: give two {kind}, that of the background first.")
    if not 0 < confidence < 1:
        raise UserError(f"--ir_confidence={confidence:g}: give a number between 0 and 1.")
    return {"settings": IrSettings(tuple(thresholds), confidence), "parameters": parameters}


def write_ir_labels(cams, processes=None, overwrite=False, **options):
    """Write a label for every image of a split beside its CAMs, and say so.

    Args:
      cams: `cam_run.CamRun`.
      processes, overwrite: as in `inference.ir_labels.ir_label_source`.
      **options: as `ir_label_options` gives.

    Raises:
      UserError: as `inference.ir_labels.ir_label_source`.
    """
    written, kept = ir_label_source(
        cams.source, cams.folder, processes, overwrite=overwrite, max_side=cams.max_side, **options
    )
    print(f"labels for IRN: {written} written, {kept} kept: {cams.folder.ir_labels}")
