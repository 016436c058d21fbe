"""Stages that predict masks with a trained network."""

from wsss_tf.data.fingerprint import fingerprint
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.context import Description, Planned, Scores
from wsss_tf.pipelines.records import Stage


def scores_stage(run="segmentation", name=None, what="network", compares=False):
    """Return the stage that predicts the validation split of a recipe, and scores it.

    Nothing is done where the recipe has no such split, nothing is scored where that has no masks.

    Args:
      run: name of the stage that trains the network.
      name: of the stage; None for "<run>_scores".
      what: the network's name in the results.
      compares: whether the network is there to compare with only.
    """
    name = name or f"{run}_scores"

    def resolve(context):
        trained = context.trained_by(f"{name}: scores_stage.run", run)
        split = trained.recipe.validation_split
        if split is None:
            note = "The recipe has no validation split to score the network on."
            return Planned(None, scores=Scores(what, None, note))
        source = trained.true_source(split)
        on_split = (f"--run_dir={context.run_dir / run}", f"--split={split}")
        made = RunFolder(run)
        if source.has_masks:
            scores = Scores(what, context.run_dir / made.metrics(split))
        else:
            note = f"Split {split!r} of {source.name} has no masks to score the network against."
            scores = Scores(what, None, note)
        stage = Stage(
            name=name,
            steps=(("infer", *on_split), *([("evaluate", *on_split)] if source.has_masks else [])),
            inputs={"data": fingerprint(source)},
            after=(run,),
            # Scores and reports are written over, also those that were made by hand.
            outputs=(str(made.predictions),),
            proof=str(made.metrics(split) if source.has_masks else made.predictions),
        )
        return Planned(stage, scores=scores)

    return Description(name, resolve, compares=compares)


def masks_stage(run="segmentation", name="masks", what="network, on the pictures it has learnt"):
    """Return the stage that predicts the pictures that a network was trained on.

    Args:
      run: name of the stage that trains the network.
      name: of the stage and its folder.
      what: the masks' name in the results.
    """

    def resolve(context):
        context.trained_by("masks_stage.run", run)
        folder = context.run_dir / name
        command = (
            "infer",
            f"--run_dir={context.run_dir / run}",
            f"--split={context.train.split}",
            f"--output={folder}",
        )
        made = RunFolder(name)
        stage = Stage(
            name=name,
            steps=(command,),
            inputs={"data": context.train_data},
            after=(run,),
            outputs=tuple(map(str, (made.predictions, made.checked_images, made.bad_images))),
            proof=str(made.predictions),
        )
        masks = RunFolder(folder).predictions
        return Planned(stage, scored={what: masks}, made={"masks of the pictures": masks})

    return Description(name, resolve)
