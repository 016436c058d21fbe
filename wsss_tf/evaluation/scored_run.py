"""What every kind of scoring reads from a run folder and writes into it."""

import json

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.evaluation import report
from wsss_tf.files import run_folder


def positions_to_score(run_dir, source):
    """Return the positions of a source that are scored, and (id, reason) of the others.

    Args:
      run_dir: run folder, a `pathlib.Path`; `bad_images.json` in it lists images left out, as
        [id, reason].
      source: `data.source.Source`.

    Raises:
      UserError: that file cannot be read, or leaves nothing.
    """
    path = run_dir / "bad_images.json"
    skipped = []
    if path.is_file():
        try:
            pairs = [(str(image_id), str(why)) for image_id, why in json.loads(path.read_text())]
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not a list of [id, reason]: {error}; delete it.") from error
        ids = set(source.ids)
        skipped = sorted(pair for pair in dict(pairs).items() if pair[0] in ids)
    skipped_ids = {image_id for image_id, _ in skipped}
    positions = [i for i, image_id in enumerate(source.ids) if image_id not in skipped_ids]
    if not positions:
        raise UserError(f"{path} lists all images of {source.split!r}.")
    return positions, skipped


def spread(positions, count):
    """Return at most `count` of the positions, spread evenly."""
    chosen = np.linspace(0, len(positions) - 1, min(count, len(positions)))
    return [positions[round(j)] for j in chosen]


def write_results(run_dir, source, metrics, report_images, skipped, what):
    """Write `metrics.json` and `report.html`, and both again under the split's name.

    The files without a split in their names are those of the split scored last.

    Args:
      run_dir: run folder, a `pathlib.Path`.
      source: the source that was scored.
      metrics: dict of `metrics.mask_metrics` or `metrics.cam_metrics`.
      report_images: iterable of `report.ReportImage`.
      skipped: (id, reason) pairs.
      what: was scored, such as "CAMs", for the title.
    """
    config = run_dir / "config.gin"
    page = report.report_page(
        title=f"{run_dir.resolve().name}: {what} on {source.name}, split {source.split}",
        metrics=metrics,
        class_names=source.class_names,
        report_images=report_images,
        config_text=config.read_text(encoding="utf-8") if config.is_file() else "",
        skipped=skipped,
    )
    for ending in (f"_{source.split}", ""):
        run_folder.write_json(run_dir / f"metrics{ending}.json", metrics)
        run_folder.write_text(run_dir / f"report{ending}.html", page)
