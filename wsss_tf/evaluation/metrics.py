"""The contents of `metrics.json`, and their form on a terminal."""

import numpy as np

from wsss_tf.evaluation.confusion import class_iou, mean_iou, pixel_accuracy
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS


def mask_metrics(
    matrix,
    class_names,
    *,
    num_images,
    ignored_pixels,
    split=None,
    skipped_images=0,
    absent_as_zero=False,
):
    """Return the metrics of hard predictions, ready for JSON.

    Args:
      matrix: confusion matrix, integers [K, K] or [K, K + 1].
      class_names: K distinct strings in mask order.
      num_images: images counted in `matrix`.
      ignored_pixels: pixels whose ground truth is 255.
      split: name of the split that the images are; None if it is not known.
      skipped_images: images left out because they cannot be read.
      absent_as_zero: count a class in neither masks nor predictions as 0 in the mean.

    Returns:
      dict: `split`, `num_images`, `skipped_images`, `miou`, `pixel_accuracy` (both 0..1), `iou`
      (class name to value; None for an absent class that is left out), `absent_classes`,
      `absent_as_zero`, `ignored_pixels`, `known_pixels` (the others), `true_classes` (names that
      the masks show).

    Raises:
      ValueError: the names are not K distinct ones, or there is no pixel to score.
    """
    if len(class_names) != len(matrix) or len(set(class_names)) != len(class_names):
        raise ValueError(f"{len(matrix)} distinct class names are needed, not {class_names}.")
    iou = class_iou(matrix)
    absent = np.isnan(iou)
    absent_value = 0.0 if absent_as_zero else None
    return {
        "split": split,
        "num_images": int(num_images),
        "skipped_images": int(skipped_images),
        "miou": float(mean_iou(matrix, absent_as_zero)),
        "pixel_accuracy": float(pixel_accuracy(matrix)),
        "iou": {
            name: absent_value if gone else float(value)
            for name, value, gone in zip(class_names, iou, absent)
        },
        "absent_classes": [name for name, gone in zip(class_names, absent) if gone],
        "absent_as_zero": bool(absent_as_zero),
        "ignored_pixels": int(ignored_pixels),
        "known_pixels": int(matrix.sum()),
        "true_classes": [name for name, row in zip(class_names, matrix) if row.any()],
    }


def cam_metrics(
    sweep,
    class_names,
    *,
    split=None,
    thresholds=THRESHOLDS,
    background_threshold=None,
    skipped_images=0,
    absent_as_zero=False,
):
    """Return the metrics of class activation maps, ready for JSON.

    Args:
      sweep: `threshold_sweep.Sweep` with the counts of all images.
      class_names, split, skipped_images, absent_as_zero: as in `mask_metrics`.
      thresholds: float [T], those of the sweep to list and to choose the best from.
      background_threshold: one of the sweep's, to score at; None for the best of `thresholds`.

    Returns:
      dict: that of `mask_metrics` at the threshold, and `background_threshold` (the one that
      `miou` and `iou` are for), `best_background_threshold`, and `sweep`, a list of {`threshold`,
      `miou`, `mfn`, `mfp`, `without_hits`}; `mfn` and `mfp` leave out the classes named in
      `without_hits`, and are None where that leaves none.

    Raises:
      ValueError: as `mask_metrics`, or a threshold was not swept.
    """
    swept = sweep.result(class_names, absent_as_zero, thresholds)
    best = float(swept.thresholds[swept.best])
    chosen = best if background_threshold is None else background_threshold
    at_chosen = sweep.result(class_names, absent_as_zero, [chosen])
    metrics = mask_metrics(
        at_chosen.confusion[0],
        class_names,
        num_images=sweep.num_images,
        ignored_pixels=sweep.ignored_pixels,
        split=split,
        skipped_images=skipped_images,
        absent_as_zero=absent_as_zero,
    )
    metrics["background_threshold"] = float(at_chosen.thresholds[0])
    metrics["best_background_threshold"] = best
    metrics["sweep"] = [
        {
            "threshold": float(swept.thresholds[i]),
            "miou": float(swept.miou[i]),
            "mfn": _or_none(swept.mfn[i]),
            "mfp": _or_none(swept.mfp[i]),
            "without_hits": list(swept.without_hits[i]),
        }
        for i in range(swept.thresholds.size)
    ]
    return metrics


def _or_none(value):
    """Return a float, or None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)


def print_table(metrics, file=None):
    """Print the metrics as aligned text: IoU per class and the means, in percent.

    Args:
      metrics: dict of `mask_metrics` or `cam_metrics`.
      file: text stream; None for standard output.
    """
    print(format_table(metrics), file=file)


def format_table(metrics):
    """Return what `print_table` prints, without a newline at the end."""
    rows = [
        (name, "absent" if value is None else f"{100 * value:.2f}")
        for name, value in metrics["iou"].items()
    ]
    means = [
        ("mean IoU", f"{100 * metrics['miou']:.2f}"),
        ("pixel accuracy", f"{100 * metrics['pixel_accuracy']:.2f}"),
    ]
    width = max(len(name) for name, _ in rows + means)
    line = "-" * (width + 9)
    lines = [f"{name:<{width}}  {value:>7}" for name, value in rows]
    lines = [f"{'class':<{width}}  {'IoU %':>7}", line, *lines, line]
    lines += [f"{name:<{width}}  {value:>7}" for name, value in means]
    return "\n".join([*lines, "", *describe(metrics)])


def describe(metrics):
    """Return sentences that say what was measured: split, images, threshold, what is missing."""
    split = f"split {metrics['split']!r}" if metrics["split"] else "no split named"
    sentences = [f"{metrics['num_images']} images, {split}."]
    if metrics["skipped_images"]:
        sentences.append(f"{metrics['skipped_images']} unreadable images left out.")
    if "sweep" in metrics:
        best = metrics["best_background_threshold"]
        best_miou = max(point["miou"] for point in metrics["sweep"])
        sentences.append(f"Best background threshold {best:g}: mean IoU {100 * best_miou:.2f}.")
        if best == metrics["sweep"][-1]["threshold"]:
            sentences.append("That is the highest one tried; calibrate --masks tries higher ones.")
        if metrics["background_threshold"] != best:
            used = metrics["background_threshold"]
            sentences.append(f"The table is for background threshold {used:g}, as asked.")
    if metrics["absent_classes"]:
        how = "count as 0 in" if metrics["absent_as_zero"] else "are left out of"
        names = ", ".join(metrics["absent_classes"])
        sentences.append(f"In neither masks nor predictions, so they {how} the mean: {names}.")
    if metrics["ignored_pixels"]:
        share = metrics["ignored_pixels"] / (metrics["ignored_pixels"] + metrics["known_pixels"])
        sentences.append(f"Ignored, as their mask is 255: {100 * share:.1f} % of the pixels.")
        if len(metrics["true_classes"]) == 1 < len(metrics["iou"]):
            [name] = metrics["true_classes"]
            sentences.append(
                f"Beside 255 the masks hold {name} only: if 255 is meant as a class, write its "
                "number for it."
            )
    return sentences
