"""Score a folder of predicted masks against a folder of ground-truth masks."""

import pathlib

import numpy as np
from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.evaluation.confusion import check_mask_values
from wsss_tf.evaluation.score import score_masks
from wsss_tf.files import images
from wsss_tf.files.text import check_one_line, read_text
from wsss_tf.masks import IGNORE


def evaluate_folders(predictions, masks, class_names, *, split=None, absent_as_zero=False):
    """Score a folder of predicted masks; files are matched by their path without `.png`.

    Args:
      predictions: folder of index PNGs; a pixel of 255 counts as missed for its true class.
      masks: folder of ground-truth index PNGs; 255 is ignored.
      class_names: K strings in mask order.
      split, absent_as_zero: as in `metrics.mask_metrics`.

    Returns:
      dict: that of `mask_metrics`, `extra_predictions` (files without a mask, not scored) and
      `unlabelled_pixels` (predicted 255 where the ground truth is known).

    Raises:
      UserError: a folder or a prediction is missing, a file is broken, of another size than its
        counterpart, or holds an index that is no class.
    """
    prediction_files = _masks_below(predictions, "predictions")
    mask_files = _masks_below(masks, "masks")
    missing = sorted(set(mask_files) - set(prediction_files))
    if missing:
        raise UserError(
            f"{len(missing)} of {len(mask_files)} masks have no prediction "
            f"(the first: {pathlib.Path(predictions) / missing[0]}.png)."
        )
    unlabelled = 0

    def pairs():
        nonlocal unlabelled
        for name in tqdm(sorted(mask_files), desc="scoring", unit="image", disable=None):
            paths = mask_files[name], prediction_files[name]
            mask, prediction = map(images.load_mask, paths)
            _check_pair(paths[0], mask, paths[1], prediction, len(class_names))
            unlabelled += np.count_nonzero((prediction == IGNORE) & (mask != IGNORE))
            yield paths[1], mask, prediction

    metrics = score_masks(pairs(), class_names, split=split, absent_as_zero=absent_as_zero)
    if metrics is None:
        raise UserError(f"--masks={masks}: every mask is all 255 (ignored); nothing to score.")
    metrics["extra_predictions"] = len(set(prediction_files) - set(mask_files))
    metrics["unlabelled_pixels"] = int(unlabelled)
    return metrics


def _masks_below(folder, flag):
    """Return {path below the folder without suffix: path} of the PNG files in it."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"--{flag}={folder}: no such folder.")
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in folder.rglob("*")
        # A leading dot marks the unfinished file of a writer that was killed.
        if path.suffix.lower() == ".png" and not path.name.startswith(".")
    }
    if not files:
        raise UserError(f"--{flag}={folder}: no PNG file in it.")
    return files


def _check_pair(mask_path, mask, prediction_path, prediction, num_classes):
    for path, pixels in [(mask_path, mask), (prediction_path, prediction)]:
        try:
            check_mask_values(pixels, num_classes)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
    if mask.shape != prediction.shape:
        (height, width), (mask_height, mask_width) = prediction.shape, mask.shape
        raise UserError(
            f"{prediction_path}: is {width}x{height} (width x height), "
            f"its mask {mask_path} is {mask_width}x{mask_height}."
        )


def read_class_names(path):
    """Return the class names, a tuple of strings, from a text file with one per line.

    Raises:
      UserError: no such file, no name, a blank line between names, a name twice or of two
        lines, over 255 names, not UTF-8.
    """
    try:
        lines = read_text(path).rstrip().split("\n")
    except OSError as error:
        raise UserError(f"--class_names={path}: cannot be read: {error}") from error
    names = tuple(line.strip() for line in lines) if any(lines) else ()
    if not 1 <= len(names) <= 255:
        raise UserError(f"--class_names={path}: 1 to 255 names are needed, it has {len(names)}.")
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(
                f"--class_names={path}: line {number} is blank; every line is one class."
            )
        check_one_line(name, f"--class_names={path}: line {number}")
        if name in names[: number - 1]:
            raise UserError(f"--class_names={path}: line {number} repeats the name {name!r}.")
    return names
