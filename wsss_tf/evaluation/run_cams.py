"""Score the CAM files of a run, and write scores and pictures into the run folder."""

import pathlib
import zipfile

import numpy as np
from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.evaluation import plots, report
from wsss_tf.evaluation.metrics import cam_metrics
from wsss_tf.evaluation.scored_run import positions_to_score, spread, write_results
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, Sweep, label_pixels
from wsss_tf.files import run_folder


def evaluate_run(
    source, load, run_dir, *, background_threshold=None, absent_as_zero=False, num_report_images=24
):
    """Score the CAM files of a run; write `curves.png` and the files of `write_results` into it.

    Args:
      source: `data.source.Source` with masks and a background class; only its attributes are used.
      load: function of a position in the source to its example, of which it takes "image", uint8
        [h, w, 3], and "mask", uint8 [h, w], as NumPy arrays.
      run_dir: run folder; `cams/<id>.npz` for every id of the source, but for those listed in
        `bad_images.json`, a list of [id, reason].
      background_threshold: score at this one, in [0, 1]; None for the best of the sweep.
      absent_as_zero: as in `confusion.mean_iou`.
      num_report_images: how many images the report shows, spread evenly over the split.

    Returns:
      dict: what `metrics.json` holds, see `metrics.cam_metrics`.

    Raises:
      UserError: no masks, no background class, missing or broken CAM files, masks that do not fit.
    """
    run_dir = pathlib.Path(run_dir)
    _check_source(source)
    positions, skipped = positions_to_score(run_dir, source)
    _check_cam_files(run_dir, source, positions)

    own = [] if background_threshold is None else [background_threshold]
    thresholds = np.union1d(THRESHOLDS, np.float32(own))
    sweep = Sweep(len(source.class_names), thresholds)
    for i in tqdm(positions, desc=f"scoring {source.split}", unit="image", disable=None):
        class_ids, cams = _load_cams(run_dir, source.ids[i])
        mask = load(i)["mask"]
        try:
            sweep.update(class_ids, cams, mask)
        except ValueError as error:
            path = run_folder.cam_path(run_dir / "cams", source.ids[i])
            raise UserError(f"{path}, scored against the mask of its image: {error}") from error
    if not sweep.histogram.any():
        raise UserError(f"every mask of {source.split!r} is all 255 (ignored); nothing to score.")

    metrics = cam_metrics(
        sweep,
        source.class_names,
        split=source.split,
        background_threshold=background_threshold,
        skipped_images=len(skipped),
        absent_as_zero=absent_as_zero,
    )
    with run_folder.atomic_path(run_dir / "curves.png") as temporary:
        temporary.write_bytes(plots.curves_png({source.split: metrics["sweep"]}))
    threshold = metrics["background_threshold"]
    write_results(
        run_dir,
        source,
        metrics,
        (
            _report_image(source, load, i, run_dir, threshold)
            for i in spread(positions, num_report_images)
        ),
        skipped,
        what="CAMs",
    )
    return metrics


def _check_source(source):
    if not source.has_masks:
        raise UserError(
            f"{source.name}: split {source.split!r} has no masks to score against; "
            "give its masks folder in the recipe, or choose another --split."
        )
    if not source.has_background:
        raise UserError(
            f"{source.name}: the first class is {source.class_names[0]!r}, not 'background'; "
            "a threshold sweep needs a background class. Score predicted masks with --predictions."
        )


def _check_cam_files(run_dir, source, positions):
    folder = run_dir / "cams"
    missing = [i for i in positions if not run_folder.cam_path(folder, source.ids[i]).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(positions)} images of split {source.split!r} have no CAM file "
            f"(the first: {run_folder.cam_path(folder, source.ids[missing[0]])}); first run: "
            f"python -m wsss_tf.infer --run_dir={run_dir} --split={source.split}"
        )


def _load_cams(run_dir, image_id):
    try:
        return run_folder.load_cams(run_dir / "cams", image_id)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        path = run_folder.cam_path(run_dir / "cams", image_id)
        raise UserError(
            f"{path}: cannot be read as a CAM file: {error}; delete it and infer again."
        ) from error


def _report_image(source, load, position, run_dir, threshold):
    image_id = source.ids[position]
    example = load(position)
    class_ids, cams = _load_cams(run_dir, image_id)
    return report.ReportImage(
        image_id=image_id,
        image=example["image"],
        class_ids=class_ids,
        cams=cams,
        prediction=label_pixels(class_ids, cams, threshold),
        mask=example["mask"],
    )
