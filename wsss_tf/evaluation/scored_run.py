"""What every kind of scoring reads from a run folder and writes into it."""

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.evaluation import report
from wsss_tf.files import run_folder
from wsss_tf.files.run_folder import RunFolder


def positions_to_score(run_dir, source):
    """Return the positions of a source that are scored, and (id, reason) of the others.

    Args:
      run_dir: run folder; its list of bad images, [id, reason] each, is left out.
      source: `data.source.Source`.

    Raises:
      UserError: that file cannot be read, or leaves nothing.
    """
    run, ids = RunFolder(run_dir), set(source.ids)
    path = run.bad_images
    skipped = sorted(pair for pair in run.read_bad_images().items() if pair[0] in ids)
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
    """Write the metrics and the report, of the split and as those of the split scored last.

    Args:
      run_dir: run folder.
      source: the source that was scored.
      metrics: dict of `metrics.mask_metrics` or `metrics.cam_metrics`.
      report_images: iterable of `report.ReportImage`.
      skipped: (id, reason) pairs.
      what: was scored, such as "CAMs", for the title.
    """
    run = RunFolder(run_dir)
    page = report.report_page(
        title=f"{run.path.resolve().name}: {what} on {source.name}, split {source.split}",
        metrics=metrics,
        class_names=source.class_names,
        report_images=report_images,
        config_text=run.config.read_text(encoding="utf-8") if run.config.is_file() else "",
        skipped=skipped,
    )
    for split in (source.split, None):
        run_folder.write_json(run.metrics(split), metrics)
        run_folder.write_text(run.report(split), page)
