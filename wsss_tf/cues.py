"""Write SEC's localisation cues for the images of a split, as CUES/<id>.png.

From the two classifiers of the paper, trained with gin/sec_foreground.gin and sec_background.gin:
  python -m wsss_tf.cues --foreground_run=RUN1 --background_run=RUN2 --split=train --output=CUES
From the score maps that wsss_tf.infer wrote for any CAM or SEAM run, calibrated or not:
  python -m wsss_tf.cues --cams=RUN/cams --gin_file=gin/sec.gin --output=CUES
From cues in the published format, one .npz of class, row and column an image:
  python -m wsss_tf.cues --rows=FOLDER --grid=41 --output=CUES

Cues lie on the grid of the network that they are for: --gin_file, which may be repeated, names the
files that SEC will be trained with, and --grid the side itself. With the two classifiers neither is
needed where the foreground network has that grid, as in the paper.

Then train SEC with --gin_bindings='sec_augmentation.cues="CUES"'. Images that have cues already are
left alone. A PNG holds 0 for background, class numbers from 1, and 255 where there is no cue.
"""

import pathlib

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.errors import UserError

_FOREGROUND_RUN = flags.DEFINE_string("foreground_run", None, "Run of gin/sec_foreground.gin.")
_BACKGROUND_RUN = flags.DEFINE_string("background_run", None, "Run of gin/sec_background.gin.")
_SPLIT = flags.DEFINE_string("split", "train", "Split of the foreground run's data set.")
_CAMS = flags.DEFINE_string("cams", None, "Folder cams/ of a run, instead of the two classifiers.")
_ROWS = flags.DEFINE_string("rows", None, "Folder of <id>.npz in the published format, instead.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.")
_GRID = flags.DEFINE_integer("grid", None, "Side of the grid of the network to train.", 1)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "Recipe and overlays of the network to train, which tell its grid."
)
_LAYER = flags.DEFINE_string(
    "layer", None, "Layer of the background network that the gradient is taken at."
)
_FOREGROUND_SHARE = flags.DEFINE_float(
    "foreground_share",
    None,
    "Share of a class's highest score that its cues exceed; default: 0.2, and with "
    "--maps_threshold what follows it.",
    0,
    1,
)
_BACKGROUND_SHARE = flags.DEFINE_float(
    "background_share", 0.1, "Share of the pixels, the least salient, that are background.", 0, 1
)
_BACKGROUND_THRESHOLD = flags.DEFINE_float(
    "background_threshold",
    None,
    "With --cams: background is where all scores are below; default: 0.05, and with "
    "--maps_threshold what follows it.",
    0,
    1,
)
_MAPS_THRESHOLD = flags.DEFINE_float(
    "maps_threshold",
    None,
    "With --cams: the score that tells classes from background best; default: what "
    "wsss_tf.calibrate has chosen for that run, if anything.",
    0,
    1,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures run together.", 1)
_NPZ = flags.DEFINE_bool("npz", False, "Also write <id>.npz in the published format.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write files that exist again.")
command_flags.define_data()
flags.adopt_module_key_flags(command_flags)  # for --help


def main():
    """Run the command."""
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    runs = _FOREGROUND_RUN.value, _BACKGROUND_RUN.value
    if sum(map(bool, (any(runs), _CAMS.value, _ROWS.value))) != 1 or any(runs) != all(runs):
        raise UserError(
            "give --foreground_run together with --background_run, or --cams, or --rows."
        )
    if _GRID.value is not None and _GIN_FILE.value:
        raise UserError("--grid and --gin_file: give one of them.")
    if _MAPS_THRESHOLD.value is not None and not _CAMS.value:
        raise UserError("--maps_threshold means nothing without --cams.")
    from wsss_tf.runs import sec_cues

    grid = (_GRID.value, _GRID.value) if _GRID.value else None
    if _GIN_FILE.value:
        grid = sec_cues.grid_of(_GIN_FILE.value)
    if grid is None and not any(runs):
        raise UserError(
            "which grid? Give the files that SEC will be trained with as --gin_file, or its side "
            "as --grid (41 in the paper)."
        )
    writer = sec_cues.CueWriter(pathlib.Path(_OUTPUT.value), _OVERWRITE.value, _NPZ.value)
    if _ROWS.value:
        sec_cues.write_from_rows(writer, _ROWS.value, grid)
    elif _CAMS.value:
        sec_cues.write_from_cams(
            writer,
            _CAMS.value,
            grid,
            foreground_share=_FOREGROUND_SHARE.value,
            background_threshold=_BACKGROUND_THRESHOLD.value,
            maps_threshold=_MAPS_THRESHOLD.value,
        )
    else:
        sec_cues.write_from_runs(
            writer,
            *runs,
            _SPLIT.value,
            grid=grid,
            layer=_LAYER.value,
            foreground_share=_FOREGROUND_SHARE.value,
            background_share=_BACKGROUND_SHARE.value,
            batch_size=_BATCH_SIZE.value,
            gin_bindings=command_flags.gin_bindings(),
        )


if __name__ == "__main__":
    command.run(main)
