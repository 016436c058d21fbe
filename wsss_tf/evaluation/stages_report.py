"""The report of a pipeline: its table of scores, and pictures through all its stages."""

import dataclasses
import html

import numpy as np

from wsss_tf.evaluation import explorer, page
from wsss_tf.evaluation.confusion import IGNORE
from wsss_tf.evaluation.report import ReportImage
from wsss_tf.evaluation.threshold_sweep import label_pixels


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture and what the stages have made of it.

    Attributes:
      image_id: string.
      image: uint8 [h, w, 3] RGB.
      labels: {what it is: uint8 [h, w]}, of the stages, in the order to be shown.
      prediction: uint8 [h, w], of the trained network.
      mask: uint8 [h, w], ground truth; None where there is none.
      class_ids: int [P], mask values of the classes present; None where no stage writes CAMs.
      cams: [P, h, w] in [0, 1]; None likewise.
    """

    image_id: str
    image: np.ndarray
    labels: dict
    prediction: np.ndarray
    mask: np.ndarray | None = None
    class_ids: np.ndarray | None = None
    cams: np.ndarray | None = None


def stages_page(*, title, rows, notes, minutes, class_names, shown, about_shown, cam_metrics=None):
    """Return the report as one HTML page that needs no other file.

    Args:
      title: plain text.
      rows: list of {"what", "split", "images", "miou"}, `miou` in 0..1 or None.
      notes: plain sentences below the table.
      minutes: (stage, how long it took, plain text) pairs.
      class_names: K strings in mask order.
      shown: iterable of `Shown`, drawn one after the other.
      about_shown: plain text: which pictures these are.
      cam_metrics: dict of `metrics.cam_metrics` or `explorer.unscored_metrics`: what the slider is
        made from; None where no stage writes CAMs.
    """
    metrics = cam_metrics or {}
    thresholds, _ = explorer.slider_thresholds(metrics)
    articles, data = [], []
    for one in shown:
        image = _report_image(one, metrics.get("background_threshold"))
        scores = explorer.image_scores(image.prediction, image.mask, len(class_names))
        articles.append(_article(one, image, class_names, scores, metrics))
        data.append(explorer.image_data(image, scores, thresholds))
    body = [f"<h1>{html.escape(title)}</h1>", _table(rows)]
    body += [f"<p class='note'>{html.escape(note)}</p>" for note in notes]
    if articles:
        body += [
            "<h2>Through the stages</h2>",
            f"<p class='note'>{html.escape(about_shown)} {_about(thresholds)}</p>",
            explorer.controls(class_names, data, metrics),
            f"<section class='rows' id='images'>{''.join(articles)}</section>",
            explorer.scripts(class_names, data, metrics),
        ]
    body += [_minutes(minutes)]
    return page.page(title, body)


def _about(thresholds):
    if not thresholds:
        return "The score beside a picture's name is that of the trained network."
    return (
        "The CAM panel shows, at each pixel, the highest score of any class in the picture; the "
        "pseudo label beside it follows the threshold, and so does the score beside the picture's "
        "name. The other panels are what the later stages have made at their own settings."
    )


def _report_image(one, threshold):
    """Return what the controls know of a picture: its CAMs, or else the network's prediction."""
    has_cams = one.cams is not None
    return ReportImage(
        image_id=one.image_id,
        image=one.image,
        prediction=label_pixels(one.class_ids, one.cams, threshold) if has_cams else one.prediction,
        mask=np.full(one.image.shape[:2], IGNORE, np.uint8) if one.mask is None else one.mask,
        class_ids=one.class_ids,
        cams=one.cams,
    )


def _table(rows):
    lines = []
    for row in rows:
        miou = row["miou"]
        percent = "-" if miou is None else f"{100 * miou:.2f}"
        width = 0 if miou is None else 100 * miou
        lines.append(
            f"<tr><td>{html.escape(row['what'])}</td><td>{html.escape(row['split'])}</td>"
            f"<td class='number'>{percent}</td>"
            f"<td class='bar'><i style='width:{width:.2f}%'></i></td></tr>"
        )
    head = "<th>what</th><th>split</th><th class='number'>mIoU %</th><th></th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _minutes(minutes):
    lines = (
        f"<tr><td>{html.escape(stage)}</td><td class='number'>{html.escape(text)}</td></tr>"
        for stage, text in minutes
    )
    head = "<th>stage</th><th class='number'>minutes</th>"
    return (
        "<h2>How long it took</h2>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _article(one, image, class_names, scores, metrics):
    panels, values = [page.photo(one.image, "image")], [*one.labels.values(), one.prediction]
    if one.cams is not None:
        label = f"pseudo label at {metrics['background_threshold']:g}"
        panels.append(page.cam_panel(one.image, one.class_ids, one.cams, class_names))
        panels.append(page.mask_panel(image.prediction, label, "label"))
        values.append(one.class_ids)
    panels += [page.mask_panel(label, html.escape(what)) for what, label in one.labels.items()]
    panels.append(page.mask_panel(one.prediction, "trained network"))
    if one.mask is not None:
        panels.append(page.mask_panel(one.mask, "mask"))
        values.append(one.mask)
    score = explorer.score_text(scores)
    return (
        f"<article><h3>{html.escape(one.image_id)}<small class='score'>{score}</small></h3>"
        f"<div class='panels'>{''.join(panels)}</div>"
        f"{page.legend(values, class_names)}</article>\n"
    )
