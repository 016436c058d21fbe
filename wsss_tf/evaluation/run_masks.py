"""Score the predicted masks of a run, and write the scores and pictures into the run folder."""

import pathlib

from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.evaluation import report, score
from wsss_tf.evaluation.scored_run import positions_to_score, spread, write_results
from wsss_tf.files import images
from wsss_tf.files.run_folder import RunFolder, mask_path


def evaluate_run(
    source, load, run_dir, *, absent_as_zero=False, num_report_images=24, draw_attention=None
):
    """Score `predictions/<id>.png` of a run; write the files of `write_results` into it.

    Args:
      source: `data.source.Source` with masks; a background class is not needed. Only its attributes
        are used.
      load, run_dir, absent_as_zero, num_report_images: as in `run_cams.evaluate_run`.
      draw_attention: function of (image, mask) to the `attention` of a `report.ReportImage`; None
        shows none.

    Returns:
      dict: what `metrics.json` holds, see `metrics.mask_metrics`.

    Raises:
      UserError: no masks, missing or broken predictions, masks that do not fit.
    """
    run = RunFolder(run_dir)
    positions, skipped = positions_to_score(run, source)
    metrics = score_masks(
        source, load, run.predictions, positions, skipped, absent_as_zero=absent_as_zero
    )

    def report_image(position):
        example = load(position)
        return report.ReportImage(
            image_id=source.ids[position],
            image=example["image"],
            prediction=images.load_mask(run.prediction(source.ids[position])),
            mask=example["mask"],
            attention=()
            if draw_attention is None
            else draw_attention(example["image"], example["mask"]),
        )

    shown = (report_image(i) for i in spread(positions, num_report_images))
    write_results(run, source, metrics, shown, skipped, what="predictions")
    return metrics


def score_masks(source, load, folder, positions, skipped=(), *, absent_as_zero=False):
    """Score `folder/<id>.png` against the masks of a source.

    Args:
      source, load: as in `evaluate_run`.
      folder: of palette or grey PNGs, in a run folder.
      positions: those in the source to score.
      skipped: (id, reason) pairs of the others.
      absent_as_zero: as in `confusion.mean_iou`.

    Returns:
      dict of `metrics.mask_metrics`.

    Raises:
      UserError: no masks, missing or broken predictions, masks that do not fit.
    """
    if not source.has_masks:
        raise UserError(
            f"{source.name}: split {source.split!r} has no masks to score against: "
            "in a folder of your own they belong into SegmentationClass. Or choose another --split."
        )
    folder = pathlib.Path(folder)
    missing = [i for i in positions if not mask_path(folder, source.ids[i]).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(positions)} images of split {source.split!r} have no "
            f"prediction (the first: {mask_path(folder, source.ids[missing[0]])}); first run: "
            f"python -m wsss_tf.infer --run_dir={folder.parent} --split={source.split}"
        )

    def masks():
        for i in tqdm(positions, desc=f"scoring {source.split}", unit="image", disable=None):
            path = mask_path(folder, source.ids[i])
            yield path, load(i)["mask"], images.load_mask(path)

    metrics = score.score_masks(
        masks(),
        source.class_names,
        split=source.split,
        skipped_images=len(skipped),
        absent_as_zero=absent_as_zero,
    )
    if metrics is None:
        raise UserError(f"every mask of {source.split!r} is all 255 (ignored); nothing to score.")
    return metrics
