"""The stage that writes class activation maps."""

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.context import Description, Maps, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages.values import check_scales, check_threshold, comma


def cams_stage(
    name="cams",
    run="cam",
    scales=(0.5, 1.0, 1.5, 2.0),
    flip=True,
    background_threshold=None,
    what="CAM",
):
    """Return the stage that writes the maps of the pictures trained on, and their labels.

    Args:
      name: of the stage.
      run: name of the stage that trains their network.
      scales, flip: as `infer` takes them.
      background_threshold: score that a pixel must beat to be its strongest class; None for the
        recipe's (`Recipe.background_threshold`), or the one that `calibrate_stage` chooses. Another
        one here trains nothing anew. Later stages follow it where their own settings do not say
        otherwise.
      what: the maps' name in the results.
    """
    check_scales("cams_stage.scales", scales)
    check_threshold("cams_stage.background_threshold", background_threshold)

    def resolve(context):
        recipe = context.trained_by("cams_stage.run", run).recipe
        if recipe.predicts_masks or not recipe.weakly_supervised:
            raise UserError(f"{run}/train_stage.recipe: is no recipe of class activation maps.")
        threshold = background_threshold
        if threshold is None:
            threshold = recipe.background_threshold
        if not 0 < threshold < 1:
            raise UserError(
                f"Recipe.background_threshold = {threshold!r}; give one between 0 and 1."
            )
        folder, made = context.run_dir / run, RunFolder(run)
        sizes = (f"--scales={comma(scales)}", "--flip" if flip else "--noflip")
        on_split = (f"--run_dir={folder}", f"--split={context.train.split}")
        threshold_flag = f"--background_threshold={threshold:g}"
        stage = Stage(
            name=name,
            steps=(("infer", *on_split, *sizes, threshold_flag),),
            inputs={"flags": [*sizes, threshold_flag]},
            after=(run,),
            outputs=(str(made.cams), str(made.pseudo_labels)),
            proof=str(made.cams),
        )
        is_set = background_threshold is not None
        return Planned(stage, maps=Maps(folder, on_split, name, threshold, is_set, what))

    return Description(name, resolve)
