"""Train a recipe, or go on with a run that was interrupted.

  python -m wsss_tf.train --gin_file=gin/seam.gin --gin_file=gin/data/shapes.gin --run_dir=RUN
  python -m wsss_tf.train --gin_file=gin/seam.gin --data=FOLDER --run_dir=RUN

Later --gin_file override earlier ones, and --gin_bindings override them all. The same command
again resumes from the last checkpoint.

--data is for pictures of your own, with image_labels.csv beside them: it stands for
--gin_file=gin/data/folder.gin, folder_source.root, and Recipe.train_split and validation_split as
they are there: the lists train and val of ImageSets/Segmentation, or all pictures and None.

Over several hosts: the same command on each, with TF_CONFIG set. It ends with status 75 where
another host has gone; started again everywhere, it goes on.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Recipe and overlays; later ones win.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Single settings, such as 'Recipe.batch_size=4'."
)
_DATA = flags.DEFINE_string("data", None, "Folder of pictures with image_labels.csv, as above.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; made if it is not there.")
_PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps", None, "A,B: record steps A to B for TensorBoard's profile page."
)


def main():
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: the folder that the run is to be kept in.")
    profile_steps = _parse_profile_steps(_PROFILE_STEPS.value)
    # Here, so that --help and a misspelt flag answer at once.
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.training_run import train

    settings = _GIN_FILE.value, _GIN_BINDINGS.value
    if _DATA.value is not None:
        settings = recipe_lib.with_folder(_DATA.value, *settings)
    recipe = recipe_lib.load(*settings)
    train(recipe, pathlib.Path(_RUN_DIR.value), profile_steps)


def _parse_profile_steps(texts):
    """Return (first, last) of --profile_steps, None where it is not given."""
    if texts is None:
        return None
    try:
        first, last = map(int, texts)
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise UserError(
            f"--profile_steps={','.join(texts)}: give the first step and the last, such as 10,15."
        )
    return first, last


if __name__ == "__main__":
    command.run(main)
