"""The report of a pipeline: its table of scores, and pictures through all its stages."""

import dataclasses
import html

import numpy as np

from wsss_tf.evaluation import page


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture and what the stages have made of it.

    Attributes:
      image_id: string.
      image: uint8 [h, w, 3] RGB.
      class_ids: int [P], mask values of the classes present.
      cams: [P, h, w] in [0, 1].
      labels: {what it is: uint8 [h, w]}, in the order to be shown: labels of the stages, the
        network's prediction, and the mask where there is one.
    """

    image_id: str
    image: np.ndarray
    class_ids: np.ndarray
    cams: np.ndarray
    labels: dict


def stages_page(*, title, rows, notes, class_names, shown, about_shown):
    """Return the report as one HTML page that needs no other file.

    Args:
      title: plain text.
      rows: list of {"what", "split", "images", "miou"}, `miou` in 0..1 or None.
      notes: plain sentences below the table.
      class_names: K strings in mask order.
      shown: iterable of `Shown`, drawn one after the other.
      about_shown: plain text: which pictures these are.
    """
    articles = [_article(one, class_names) for one in shown]
    body = [f"<h1>{html.escape(title)}</h1>", _table(rows)]
    body += [f"<p class='note'>{html.escape(note)}</p>" for note in notes]
    if articles:
        body += [
            "<h2>Through the stages</h2>",
            f"<p class='note'>{html.escape(about_shown)} The CAM panel shows, at each pixel, the "
            "highest score of any class in the picture.</p>",
            f"<section class='rows'>{''.join(articles)}</section>",
        ]
    return page.page(title, body)


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


def _article(one, class_names):
    panels = [
        page.photo(one.image, "image"),
        page.cam_panel(one.image, one.class_ids, one.cams, class_names),
        *(page.mask_panel(label, html.escape(what)) for what, label in one.labels.items()),
    ]
    return (
        f"<article><h3>{html.escape(one.image_id)}</h3>"
        f"<div class='panels'>{''.join(panels)}</div>"
        f"{page.legend(one.labels.values(), class_names)}</article>\n"
    )
