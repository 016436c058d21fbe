"""From image labels to a segmentation network and a SavedModel: every stage of a pipeline.

  python -m wsss_tf.pipeline --gin_file=gin/pipelines/photos.gin --data=FOLDER --run_dir=RUN

The first --gin_file is the pipeline: a list of stages and their settings. Further ones, such as
data sets, and --gin_bindings are for the recipes of all its stages that train; a binding for one of
them begins with its name, as cam/Recipe.epochs=2 does. Those of the stages themselves, as
crf_stage.powers=(4,24), and of Pipeline are for the pipeline.

--data is for pictures of your own, with image_labels.csv beside them: it stands for
--gin_file=gin/data/folder.gin, folder_source.root, Pipeline.score_split=None, and
Recipe.train_split and validation_split as they are there: the lists train and val of
ImageSets/Segmentation, or all pictures and None.

The same command again goes on where it was interrupted, skips what is up to date, and makes anew
what has other settings or data than before, and all that follows from it.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Pipeline, then overlays of its recipes.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Single settings, such as 'Recipe.batch_size=4' or 'cam/Recipe.epochs=2'."
)
_DATA = flags.DEFINE_string("data", None, "Folder of pictures with image_labels.csv, as above.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of all the stages; made if not there.")
_UNTIL = flags.DEFINE_string("until", None, "Last stage to run, such as walk; default: all.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what there is to do, and the commands.")


def main():
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: the folder that all the stages are to be kept in.")
    run_dir = pathlib.Path(_RUN_DIR.value)
    # Here, so that --help and a misspelt flag answer at once.
    import tensorflow as tf

    from wsss_tf.pipelines.plan import make_plan
    from wsss_tf.pipelines.records import run_stages
    from wsss_tf.pipelines.settings import load_pipeline
    from wsss_tf.runs import recipe as recipe_lib

    # The commands need them; this process only looks through the data.
    tf.config.set_visible_devices([], "GPU")
    settings = _GIN_FILE.value, _GIN_BINDINGS.value
    if _DATA.value is not None:
        bindings = ["Pipeline.score_split=None", *_GIN_BINDINGS.value]
        settings = recipe_lib.with_folder(_DATA.value, _GIN_FILE.value, bindings)
    plan = make_plan(load_pipeline(*settings), *settings, run_dir)
    stages, names = plan.stages, [stage.name for stage in plan.stages]
    if _UNTIL.value is not None:
        if _UNTIL.value not in names:
            raise UserError(f"--until={_UNTIL.value}: the stages are {', '.join(names)}.")
        stages = stages[: names.index(_UNTIL.value) + 1]
    run_stages(run_dir, stages, _DRY_RUN.value, plan.at_once)
    if len(stages) == len(names) and not _DRY_RUN.value:
        table = run_dir / "results.md"
        if table.is_file():
            print("\n" + table.read_text(encoding="utf-8"))
        for planned in plan.planned.values():
            for what, path in planned.made.items():
                print(f"{what}: {path}")


if __name__ == "__main__":
    command.run(main)
