"""Stages that train a network."""

import json

from wsss_tf.data.fingerprint import fingerprint
from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages.values import check, check_files


def train_stage(name, recipe, after=(), paths=None):
    """Return the stage that trains a recipe.

    Args:
      name: of the stage and its run folder, and what a binding for its recipe alone begins with:
        name/Recipe.epochs=2.
      recipe: gin files; overlays of the pipeline come after them.
      after: names of the stages whose results it is made from.
      paths: {parameter of the recipe: path below the run folder of all stages}: where these results
        are, such as {"Recipe.pseudo_labels": "affinity/pseudo_labels"}.
    """
    setting = f"{name}/train_stage"
    check_files(f"{setting}.recipe", recipe)
    check(f"{setting}.paths", paths, lambda v: v is None or isinstance(v, dict), "None or a dict")
    paths = paths or {}

    def resolve(context):
        trained = context.load(name, recipe, "Recipe.initial_weights" in paths)
        learns_from_masks = trained.recipe.predicts_masks and not trained.recipe.weakly_supervised
        if "Recipe.pseudo_labels" in paths and not learns_from_masks:
            raise UserError(f"{setting}.recipe: is no recipe that learns from masks.")
        return Planned(_stage(context, name, trained, context.train_data, after, paths))

    return Description(name, resolve, recipe=tuple(recipe))


def full_supervision_stage(name="full_supervision", of="segmentation"):
    """Return the stage that trains a network on the data set's own masks, to compare.

    Args:
      name: of the stage and its run folder.
      of: name of the stage whose recipe it is.
    """

    def resolve(context):
        trained = context.trained_by("full_supervision_stage.of", of)
        if not context.train.has_masks:
            raise UserError(
                f"Pipeline.full_supervision needs masks, but split {context.train.split!r} of "
                f"{context.train.name} has none."
            )
        context.trained[name] = trained
        return Planned(_stage(context, name, trained, fingerprint(context.train), (), {}))

    return Description(name, resolve, compares=True)


def _stage(context, name, trained, data, after, paths):
    bindings = [
        f"--gin_bindings={parameter}={_quoted(context.run_dir / path)}"
        for parameter, path in paths.items()
    ]
    run = RunFolder(name)
    made = (
        run.config,
        run.plain_config,
        run.class_names,
        run.checkpoints,
        run.tensorboard,
        run.checked_images,
        run.bad_images,
    )
    return Stage(
        name=name,
        steps=(("train", *trained.flags, *bindings, f"--run_dir={context.run_dir / name}"),),
        inputs={**trained.inputs, "data": data},
        after=tuple(after),
        outputs=tuple(map(str, made)),
        proof=str(run.network()),
    )


def _quoted(path):
    return json.dumps(str(path), ensure_ascii=False)
