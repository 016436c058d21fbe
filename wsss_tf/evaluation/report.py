"""`report.html`: the scores of a run and what they look like, in one self-contained file."""

import dataclasses
import html

import numpy as np

from wsss_tf.evaluation import explorer, plots
from wsss_tf.evaluation import metrics as metrics_lib
from wsss_tf.evaluation.page import cam_panel, data_uri, legend, mask_panel, page, photo, swatch

_SMALL = 180  # pixels on the longer side of pictures that several go in a row


@dataclasses.dataclass(frozen=True)
class ReportImage:
    """One image of the report's grid.

    Attributes:
      image_id: string.
      image: uint8 [h, w, 3] RGB.
      prediction: uint8 [h, w]; of CAMs, at the threshold of the report's table.
      mask: uint8 [h, w], ground truth.
      class_ids: int [P], mask values of the classes present; None where masks are predicted.
      cams: [P, h, w] in [0, 1]; None likewise.
      attention: (caption, uint8 [h, w, 3]) pairs: pictures of what the network takes to belong to
        the pixel that is marked in them.
    """

    image_id: str
    image: np.ndarray
    prediction: np.ndarray
    mask: np.ndarray
    class_ids: np.ndarray | None = None
    cams: np.ndarray | None = None
    attention: tuple = ()


def report_page(*, title, metrics, class_names, report_images, config_text="", skipped=()):
    """Return the report as one HTML page that needs no other file.

    Args:
      title: plain text.
      metrics: dict of `metrics.cam_metrics` or `metrics.mask_metrics`.
      class_names: K strings in mask order.
      report_images: iterable of `ReportImage`, drawn one after the other.
      config_text: the run's configuration, shown as it is.
      skipped: (image id, reason) pairs of the images left out of the scores.
    """
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _headline(metrics),
        _curves(metrics),
        _class_table(metrics),
        _grid(report_images, class_names, metrics),
        _skipped(skipped),
        _configuration(config_text),
    ]
    return page(title, body)


def _headline(metrics):
    split = html.escape(metrics["split"] or "unnamed")
    numbers = [
        (f"{100 * metrics['miou']:.2f} %", f"mean IoU, split {split}"),
        (f"{100 * metrics['pixel_accuracy']:.2f} %", "pixel accuracy"),
        (f"{metrics['num_images']}", "images"),
    ]
    if "sweep" in metrics:
        best = f"{metrics['best_background_threshold']:g}"
        numbers.insert(2, (best, "best background threshold"))
    tiles = "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in numbers)
    # The tiles already say the first sentence.
    notes = " ".join(html.escape(note) for note in metrics_lib.describe(metrics)[1:])
    return f'<section class="tiles">{tiles}</section>\n<p class="note">{notes}</p>'


def _curves(metrics):
    if "sweep" not in metrics:
        return ""
    light, dark = (
        data_uri(plots.curves_png({"": metrics["sweep"]}, dark), "png") for dark in (False, True)
    )
    left_out = sum(bool(point["without_hits"]) for point in metrics["sweep"])
    note = (
        f" At {left_out} of {len(metrics['sweep'])} thresholds some class has no true positive; it"
        " is left out there (metrics.json names it)."
        if left_out
        else ""
    )
    return (
        "<h2>Background threshold</h2>\n<figure class='wide'><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="mean IoU, mFN and mFP over the background threshold"></picture>'
        "<figcaption>A pixel is background where no class scores above the threshold. mFN is the"
        " mean over the foreground classes of missed over correct pixels (under-activation), mFP of"
        f" wrong over correct ones (over-activation).{note}</figcaption></figure>"
    )


def _class_table(metrics):
    rows = []
    for index, (name, value) in enumerate(metrics["iou"].items()):
        percent = "absent" if value is None else f"{100 * value:.2f}"
        width = 0 if value is None else 100 * value
        row = "<tr class='absent'>" if value is None else "<tr>"
        rows.append(
            f"{row}<td>{swatch(index)}{html.escape(name)}</td>"
            f"<td class='number'>{percent}</td>"
            f"<td class='bar'><i style='width:{width:.2f}%'></i></td></tr>"
        )
    mean = 100 * metrics["miou"]
    where = f" at threshold {metrics['background_threshold']:g}" if "sweep" in metrics else ""
    return (
        f"<h2>IoU of each class{where}</h2>\n"
        "<table><thead><tr><th>class</th><th class='number'>IoU %</th><th></th></tr></thead><tbody>"
        + "\n".join(rows)
        + f"</tbody><tfoot><tr><td>mean</td><td class='number'>{mean:.2f}</td>"
        f"<td class='bar'><i style='width:{mean:.2f}%'></i></td></tr></tfoot></table>"
    )


def _grid(report_images, class_names, metrics):
    thresholds, _ = explorer.slider_thresholds(metrics)
    cards, data = [], []
    for image in report_images:
        scores = explorer.image_scores(image.prediction, image.mask, len(class_names))
        cards.append(_card(image, class_names, scores, metrics.get("background_threshold")))
        data.append(explorer.image_data(image, scores, thresholds))
    if not cards:
        return ""
    about_cams = (
        " The CAM panel shows, at each pixel, the highest score of any class in the picture."
        if thresholds
        else ""
    )
    return (
        "<h2>Images</h2>\n"
        f"<p class='note'>Spread evenly over the split, not chosen.{about_cams} The mIoU of a"
        " picture is the mean over the classes in its ground truth or its labels.</p>\n"
        f"{explorer.controls(class_names, data, metrics)}\n"
        f"<section class='cards' id='images'>{''.join(cards)}</section>\n"
        f"{explorer.scripts(class_names, data, metrics)}"
    )


def _card(image, class_names, scores, threshold):
    panels = [photo(image.image, "image")]
    per_class, name, values = "", "prediction", [image.mask, image.prediction]
    if image.cams is not None:
        panel, per_class = _cam_panels(image, class_names)
        panels.append(panel)
        name = f"pseudo label at {threshold:g}"
        values.append(image.class_ids)
    panels += [mask_panel(image.prediction, name, "label"), mask_panel(image.mask, "ground truth")]
    score = explorer.score_text(scores)
    return (
        f"<article><h3>{html.escape(image.image_id)}<small class='score'>{score}</small></h3>"
        f"<div class='panels'>{''.join(panels)}</div>{per_class}{_attention(image.attention)}"
        f"{legend(values, class_names)}</article>\n"
    )


def _attention(pairs):
    if not pairs:
        return ""
    panels = (photo(picture, html.escape(caption), _SMALL) for caption, picture in pairs)
    return (
        "<p class='legend'>What goes with the marked pixel</p>"
        f"<div class='panels'>{''.join(panels)}</div>"
    )


def _cam_panels(image, class_names):
    """Return the panel of all CAMs of an image together, and, of several, one that unfolds each."""
    together = cam_panel(image.image, image.class_ids, image.cams, class_names)
    if len(image.class_ids) < 2:
        return together, ""
    overlays = [
        photo(plots.overlay(image.image, cam), html.escape(class_names[class_id]))
        for class_id, cam in zip(image.class_ids, image.cams)
    ]
    return together, (
        "<details><summary>CAM of each class</summary>"
        f"<div class='panels'>{''.join(overlays)}</div></details>"
    )


def _skipped(skipped):
    if not skipped:
        return "<h2>Images left out</h2>\n<p class='note'>None: all of the split are scored.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(str(image_id))}</td><td>{html.escape(str(reason))}</td></tr>"
        for image_id, reason in skipped
    )
    return (
        f"<h2>Images left out: {len(skipped)}</h2>\n"
        "<p class='note'>They cannot be read and count in no number above.</p>\n"
        "<details><summary>Which, and why</summary><table>"
        "<thead><tr><th>image</th><th>reason</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )


def _configuration(text):
    if not text:
        return ""
    return (
        "<h2>Configuration</h2>\n<details><summary>config.gin</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )
