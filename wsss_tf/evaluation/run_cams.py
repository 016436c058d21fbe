"""Score the CAM files of a run, and write scores and pictures into the run folder."""

from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.evaluation import plots, report
from wsss_tf.evaluation.score import score_maps
from wsss_tf.evaluation.scored_run import positions_to_score, spread, write_results
from wsss_tf.evaluation.threshold_sweep import label_pixels
from wsss_tf.files.run_folder import RunFolder, atomic_path


def evaluate_run(
    source, load, run_dir, *, background_threshold=None, absent_as_zero=False, num_report_images=24
):
    """Score the CAM files of a run; write its curves and the files of `write_results` into it.

    Args:
      source: `data.source.Source` with masks and a background class; only its attributes are used.
      load: function of a position in the source to its example, of which it takes "image", uint8
        [h, w, 3], and "mask", uint8 [h, w], as NumPy arrays.
      run_dir: run folder, with a CAM file for every id of the source but those of its bad images.
      background_threshold: score at this one, in [0, 1]; None for the best of the sweep.
      absent_as_zero: as in `confusion.mean_iou`.
      num_report_images: how many images the report shows, spread evenly over the split.

    Returns:
      dict: what `metrics.json` holds, see `metrics.cam_metrics`.

    Raises:
      UserError: no masks, no background class, missing or broken CAM files, masks that do not fit.
    """
    run = RunFolder(run_dir)
    _check_source(source)
    positions, skipped = positions_to_score(run, source)
    run.require_cams([source.ids[i] for i in positions], source.split)

    def maps():
        for i in tqdm(positions, desc=f"scoring {source.split}", unit="image", disable=None):
            image_id = source.ids[i]
            yield run.cam(image_id), *run.read_cams(image_id), load(i)["mask"]

    metrics = score_maps(
        maps(),
        source.class_names,
        split=source.split,
        background_threshold=background_threshold,
        skipped_images=len(skipped),
        absent_as_zero=absent_as_zero,
    )
    if metrics is None:
        raise UserError(f"every mask of {source.split!r} is all 255 (ignored); nothing to score.")
    with atomic_path(run.curves) as temporary:
        temporary.write_bytes(plots.curves_png({source.split: metrics["sweep"]}))
    threshold = metrics["background_threshold"]
    write_results(
        run,
        source,
        metrics,
        (
            _report_image(source, load, i, run, threshold)
            for i in spread(positions, num_report_images)
        ),
        skipped,
        what="CAMs",
    )
    return metrics


def _check_source(source):
    if not source.has_masks:
        raise UserError(
            f"{source.name}: split {source.split!r} has no masks to score against: "
            "in a folder of your own they belong into SegmentationClass. Or choose another --split."
        )
    if not source.has_background:
        raise UserError(
            f"{source.name}: the first class is {source.class_names[0]!r}, not 'background'; "
            "a threshold sweep needs a background class. Score predicted masks with --predictions."
        )


def _report_image(source, load, position, run, threshold):
    image_id = source.ids[position]
    example = load(position)
    class_ids, cams = run.read_cams(image_id)
    return report.ReportImage(
        image_id=image_id,
        image=example["image"],
        class_ids=class_ids,
        cams=cams,
        prediction=label_pixels(class_ids, cams, threshold),
        mask=example["mask"],
    )
