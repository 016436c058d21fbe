"""What makes the report's images answer: controls above them, and the data that `report.js` reads.

Without JavaScript the controls stay hidden and the page shows all images, in the order of the split
and at the threshold of its table.
"""

import html
import json
import pathlib

import numpy as np

from wsss_tf.evaluation import page
from wsss_tf.evaluation.confusion import IGNORE, Confusion, class_iou
from wsss_tf.evaluation.level_maps import first_levels, level_maps, reduced
from wsss_tf.files import images

_SCRIPT = pathlib.Path(__file__).with_name("report.js")


def image_scores(prediction, mask, num_classes):
    """Return the scores of one image, in 0..1.

    Args:
      prediction, mask: uint8 [h, w].
      num_classes: K.

    Returns:
      {"miou", "accuracy", "iou"}: the mean over the classes in its mask or its prediction, the
      share of pixels labelled correctly, and {mask value: IoU} of those classes. The first two are
      None where the whole mask is ignored.
    """
    confusion = Confusion(num_classes)
    confusion.update(mask, prediction)
    iou = class_iou(confusion.matrix)
    seen = np.flatnonzero(~np.isnan(iou))
    total = confusion.matrix.sum()
    return {
        "miou": float(iou[seen].mean()) if total else None,
        "accuracy": float(np.trace(confusion.matrix) / total) if total else None,
        "iou": {int(i): float(iou[i]) for i in seen},
    }


def score_text(scores):
    """Return the line beside an image's name; `report.js` writes the same."""
    if scores["miou"] is None:
        return "no ground truth"
    right = f"{100 * scores['accuracy']:.1f} % of pixels right"
    return f"mIoU {100 * scores['miou']:.1f} · {right}"


def image_data(image, scores, thresholds):
    """Return what `report.js` has to know of an image, ready for JSON.

    Args:
      image: `report.ReportImage`.
      scores: as `image_scores` gives them.
      thresholds: float [T] that the slider has, for CAMs.
    """
    values = [image.mask, image.prediction if image.cams is None else image.class_ids]
    shown = np.unique(np.concatenate([np.ravel(part) for part in values]))
    data = {"classes": [int(i) for i in shown if i != IGNORE], "scores": scores}
    if image.cams is not None:
        # One below the other, the mask last: one picture to decode, and rows are whole maps.
        maps = [*level_maps(image.class_ids, image.cams, thresholds), image.mask]
        maps = reduced(np.stack(maps).astype(np.uint8))
        data["maps"] = {
            "ids": [int(i) for i in image.class_ids],
            "width": maps.shape[2],
            "height": maps.shape[1],
            "png": page.grey_png(maps.reshape(-1, maps.shape[2])),
        }
    return data


def unscored_metrics(background_threshold):
    """Return what stands for `metrics.cam_metrics` where CAMs have no masks to be scored against.

    Args:
      background_threshold: in (0, 1), where the slider is at first.
    """
    sweep = [{"threshold": i / 100, "miou": None} for i in range(100)]
    return {"sweep": sweep, "background_threshold": background_threshold, "miou": None}


def slider_thresholds(metrics):
    """Return the thresholds of the slider and the split's mean IoU at each; none for masks.

    Args:
      metrics: dict of `metrics.cam_metrics`, `unscored_metrics` or `metrics.mask_metrics`.

    Returns:
      (list of float, ascending; list of float in 0..1, or of None where nothing is scored).
    """
    if "sweep" not in metrics:
        return [], []
    points = {point["threshold"]: point["miou"] for point in metrics["sweep"]}
    points[metrics["background_threshold"]] = metrics["miou"]
    return sorted(points), [points[threshold] for threshold in sorted(points)]


def controls(class_names, data, metrics):
    """Return the controls above the images, as HTML.

    Args:
      class_names: K strings in mask order.
      data: list of `image_data`.
      metrics: as in `slider_thresholds`.
    """
    counts = {i: sum(i in one["classes"] for one in data) for i in range(len(class_names))}
    options = "".join(
        f'<option value="{html.escape(class_names[i])}">{html.escape(class_names[i])} ({count})'
        "</option>"
        for i, count in counts.items()
        if count
    )
    return (
        "<form class='controls' id='controls' hidden>"
        f"{_threshold_controls(metrics)}"
        "<div class='choices'>"
        f"<label>Class <select id='class'><option value=''>all ({len(data)})</option>{options}"
        "</select></label>"
        "<label>Order <select id='order'><option value='split'>as in the split</option>"
        "<option value='worst'>worst first</option><option value='best'>best first</option>"
        "</select></label>"
        "<output id='count' aria-live='polite'></output></div></form>"
    )


def _threshold_controls(metrics):
    thresholds, _ = slider_thresholds(metrics)
    if not thresholds:
        return ""
    used = thresholds.index(metrics["background_threshold"])
    score = curve = ""
    if metrics["miou"] is not None:
        score = "<p id='threshold-score' aria-live='polite'></p>"
        curve = (
            "<svg viewBox='0 0 300 84' role='img' aria-labelledby='threshold-score'>"
            "<path class='axis' d='M4 80H296'/><polyline id='curve'/>"
            "<path id='best' class='axis'/><circle id='point' r='5'/></svg>"
        )
    return (
        "<div class='threshold'><div>"
        "<label for='threshold'>Background threshold <output id='threshold-value'></output></label>"
        f"<input type='range' id='threshold' min='0' max='{len(thresholds) - 1}' value='{used}'>"
        f"{score}"
        "<label><input type='checkbox' id='overlay'> pseudo labels over the pictures</label></div>"
        f"{curve}</div>"
    )


def scripts(class_names, data, metrics):
    """Return the data and the program of the page, as HTML; arguments as in `controls`."""
    thresholds, miou = slider_thresholds(metrics)
    palette = images.palette()
    content = {
        "classes": list(class_names),
        "colours": palette[: len(class_names)].tolist(),
        "thresholds": thresholds,
        "miou": miou,
        "images": data,
    }
    if thresholds:
        content["used"] = thresholds.index(metrics["background_threshold"])
        content["firstLevels"] = first_levels(thresholds).tolist()
    # In a script element only "<" could end what is read as text.
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f"<script type='application/json' id='data'>{text}</script>\n"
        f"<script>\n{_SCRIPT.read_text(encoding='utf-8')}</script>"
    )
