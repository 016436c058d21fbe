"""`report.html`: the scores of a run and what they look like, in one self-contained file."""

import base64
import dataclasses
import html
import io
import string

import numpy as np
from PIL import Image

from wsss_tf import images
from wsss_tf.evaluation import metrics as metrics_lib
from wsss_tf.evaluation import plots
from wsss_tf.evaluation.confusion import IGNORE
from wsss_tf.run_folder import write_text

_THUMBNAIL = 360  # pixels on the longer side: four across fill a wide screen


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
    """

    image_id: str
    image: np.ndarray
    prediction: np.ndarray
    mask: np.ndarray
    class_ids: np.ndarray | None = None
    cams: np.ndarray | None = None


def write_report(path, **contents):
    """Write the report, atomically; `contents` are the arguments of `report_page`."""
    write_text(path, report_page(**contents))


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
        _grid(report_images, class_names, metrics.get("background_threshold")),
        _skipped(skipped),
        _configuration(config_text),
    ]
    return page(title, body)


def page(title, body):
    """Return a page of the report's looks.

    Args:
      title: plain text.
      body: strings of HTML.
    """
    return string.Template(_PAGE).substitute(title=html.escape(title), body="\n".join(body))


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
        _data_uri(plots.curves_png({"": metrics["sweep"]}, dark), "png") for dark in (False, True)
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
            f"{row}<td>{_swatch(index)}{html.escape(name)}</td>"
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


def _grid(report_images, class_names, threshold):
    cards = [_card(image, class_names, threshold) for image in report_images]
    if not cards:
        return ""
    about_cams = (
        ""
        if threshold is None
        else " The CAM panel shows, at each pixel, the highest score of any class in the picture."
    )
    return (
        "<h2>Images</h2>\n"
        f"<p class='note'>Spread evenly over the split, not chosen.{about_cams}</p>\n"
        f"<section class='cards'>{''.join(cards)}</section>"
    )


def _card(image, class_names, threshold):
    panels = [photo(image.image, "image")]
    per_class, name = "", "prediction"
    if image.cams is not None:
        panel, per_class = _cam_panels(image, class_names)
        panels.append(panel)
        name = f"pseudo label at {threshold:g}"
    panels += [mask_panel(image.prediction, name), mask_panel(image.mask, "ground truth")]
    valid = image.mask != IGNORE
    right = np.mean(image.prediction[valid] == image.mask[valid]) if valid.any() else np.nan
    score = "no ground truth" if np.isnan(right) else f"{100 * right:.1f} % of pixels right"
    return (
        f"<article><h3>{html.escape(image.image_id)}<small>{score}</small></h3>"
        f"<div class='panels'>{''.join(panels)}</div>{per_class}"
        f"{legend([image.mask, image.prediction], class_names)}</article>\n"
    )


def legend(masks, class_names):
    """Return the names and colours of all classes in some masks, as HTML."""
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    names = {value: "ignored" if value == IGNORE else class_names[value] for value in values}
    spans = (f"<span>{_swatch(value)}{html.escape(name)}</span>" for value, name in names.items())
    return f"<p class='legend'>{''.join(spans)}</p>"


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


def cam_panel(image, class_ids, cams, class_names):
    """Return a picture under the strongest of its CAMs, as HTML; arguments as in `ReportImage`."""
    strongest = cams.max(axis=0) if len(class_ids) else np.zeros(image.shape[:2])
    present = ", ".join(html.escape(class_names[i]) for i in class_ids) or "no class"
    return photo(plots.overlay(image, strongest), f"CAM: {present}")


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


def _swatch(value):
    red, green, blue = images.palette()[value]
    return f"<i class='swatch' style='background:rgb({red},{green},{blue})'></i>"


def photo(pixels, caption):
    """Return a picture, uint8 [h, w, 3], with a caption of HTML below, as HTML."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BICUBIC)
    return _figure(_encoded(picture, "jpeg", quality=85), caption)


def mask_panel(mask, caption):
    """Return a mask, uint8 [h, w], in its colours, with a caption of HTML below, as HTML."""
    picture = Image.fromarray(plots.colour_mask(mask))
    scale = min(1, _THUMBNAIL / max(picture.size))
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize(size, Image.Resampling.NEAREST)
    # An adaptive palette of at most 256 colours loses nothing: a mask has no more.
    return _figure(_encoded(picture.quantize(256), "png", optimize=True), caption)


def _figure(uri, caption):
    picture = f'<img src="{uri}" alt="" loading="lazy">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return _data_uri(buffer.getvalue(), kind)


def _data_uri(data, kind):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --page: #f5f6f8; --card: #ffffff; --text: #20252d; --soft: #606a79; --line: #e3e6ea;
  --accent: #3b7dd8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #13161b; --card: #1b1f26; --text: #e3e7ee; --soft: #929bab; --line: #2c323b;
    --accent: #5b96e6; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.25rem; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.75rem; }
h3 { font-size: 0.9rem; margin: 0 0 0.6rem; display: flex; justify-content: space-between;
  gap: 1rem; overflow-wrap: anywhere; }
small, .note, .absent, figcaption, .legend, .tiles span { color: var(--soft); }
small { font-weight: 400; white-space: nowrap; }
.note { margin: 0.9rem 0 1rem; max-width: 75ch; }
.tiles { display: grid; gap: 0.75rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.tiles div, article, .wide, table, pre { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.tiles div { padding: 0.9rem 1.1rem; }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles span { font-size: 0.85rem; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; border-radius: 6px; }
figcaption { font-size: 0.8rem; line-height: 1.35; margin-top: 0.3rem; }
.wide { padding: 1rem; }
.wide figcaption { font-size: 0.85rem; padding: 0 0.25rem; max-width: 100ch; }
table { border-collapse: separate; border-spacing: 0; width: 100%; max-width: 46rem;
  padding: 0.4rem 0; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.28rem 1rem; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
tfoot td { font-weight: 600; border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { width: 50%; }
.bar i { display: block; height: 0.55rem; border-radius: 3px; background: var(--accent); }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 3px;
  margin-right: 0.5em;  box-shadow: 0 0 0 1px var(--line); }
.cards { display: grid; gap: 0.9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); }
article { padding: 0.9rem 1rem; }
.panels { display: grid; gap: 0.6rem; grid-template-columns: repeat(4, 1fr); }
.rows { display: grid; gap: 0.9rem; }
.rows .panels { grid-template-columns: repeat(6, 1fr); }
@media (max-width: 520px) {
  .panels, .rows .panels { grid-template-columns: repeat(2, 1fr); }
}
.legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; font-size: 0.8rem;
  margin: 0.6rem 0 0; }
details { font-size: 0.85rem; margin-top: 0.6rem; }
summary { cursor: pointer; color: var(--accent); margin-bottom: 0.5rem; }
pre { padding: 1rem; overflow-x: auto;
  font: 0.8rem/1.5 ui-monospace, SFMono-Regular, "DejaVu Sans Mono", monospace; }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
"""
