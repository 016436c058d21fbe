"""The CAMs of a split, as the dense CRF and the random walk take them up. No TensorFlow by itself.

`wsss_tf.infer` leaves a record of what it labelled beside its CAM files, see `files.cam_record`.
Where the pictures are files that is all that is needed. Where they are drawn, where the record is
missing (CAMs of an earlier version, or of Apache Beam), or where bindings say that the data set has
moved, the run's recipe is loaded, and TensorFlow with it.
"""

import dataclasses
import os

from wsss_tf.errors import UserError
from wsss_tf.files.cam_record import load_record
from wsss_tf.files.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class CamRun:
    """CAMs of a split, and what is known of them.

    Attributes:
      folder: `RunFolder` with the CAM files.
      source: the pictures, `files.cam_record.PictureFiles` or `data.source.Source`.
      background_threshold: of the maps, which the background powers follow.
      max_side: longer side, pixels, at which larger pictures are labelled; None for no limit.
      run: `RunFolder` of the run whose network gave them.
    """

    folder: RunFolder
    source: object
    background_threshold: float
    max_side: int | None
    run: RunFolder


def open_cam_run(run_dir, split, gin_bindings=(), background_threshold=None, max_side=None):
    """Return the `CamRun` of a split.

    Args:
      run_dir: folder with `cams/`: a run's, or another that inference wrote them into.
      split: its name; "all" for the pictures of a folder.
      gin_bindings: strings that override those of the run, such as the folder of the data set.
      background_threshold: of the maps; None for that which they were inferred with.
      max_side: None for that which they were inferred with, 0 for no limit.

    Raises:
      UserError: there are no such CAMs, or their pictures cannot be found.
    """
    folder = RunFolder(run_dir)
    record = load_record(folder, split)
    if record is not None and record.pictures is not None and not gin_bindings:
        _check_pictures(folder, record.pictures)
        source, known = record.pictures, record
    else:
        source, recipe = _source_of_recipe(folder, split, record, gin_bindings)
        known = recipe if record is None else record
    if background_threshold is None:
        background_threshold = known.background_threshold
    max_side = known.max_side if max_side is None else max_side or None
    run = folder if record is None or folder.config.is_file() else RunFolder(record.run_dir)
    return CamRun(folder, source, background_threshold, max_side, run)


def _check_pictures(folder, pictures):
    missing = [path for path in pictures.paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(pictures)} pictures of split {pictures.split!r} are no longer "
            f"where they were for {folder.cams} (the first: {missing[0]}); if the data set has "
            "moved, say where to with --gin_bindings."
        )


def _source_of_recipe(folder, split, record, gin_bindings):
    """Return the `Source` that the recipe of the CAMs' run has, and the recipe."""
    run_dir, bindings = folder.path, list(gin_bindings)
    if record is not None:
        bindings = [*record.gin_bindings, *bindings]
        if not folder.config.is_file():  # the CAMs have a folder of their own
            run_dir = record.run_dir
    elif not folder.config.is_file():
        raise UserError(
            f"--run_dir={run_dir}: holds no CAMs of split {split!r}, and no config.gin; check the "
            "path, or first run wsss_tf.infer."
        )
    from wsss_tf.runs.recipe import check_recorded_bindings
    from wsss_tf.runs.trained_run import open_run

    if record is not None:
        check_recorded_bindings(run_dir, record.gin_bindings)
    run = open_run(run_dir, bindings)
    if run.recipe.predicts_masks:
        raise UserError(f"--run_dir={folder.path}: its network predicts masks and gives no CAMs.")
    return run.source(folder, split), run.recipe
