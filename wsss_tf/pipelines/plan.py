"""The stages that follow from a pipeline's list, its recipes and its data."""

import functools

from wsss_tf.errors import UserError
from wsss_tf.pipelines.context import Context, Description
from wsss_tf.pipelines.settings import bindings_of
from wsss_tf.pipelines.stages.values import check_count


def make_plan(pipeline, gin_files, gin_bindings, run_dir):
    """Return the `Context` of a pipeline whose stages are all ready to be run.

    Every recipe is read and the data set looked through, so that what is wrong with the last stage
    is said before the first begins.

    Args:
      pipeline: `settings.Pipeline`.
      gin_files: the first is the pipeline's own, the others are overlays of every recipe.
      gin_bindings: as the user gave them.
      run_dir: folder of all the stages, a `pathlib.Path`.

    Raises:
      UserError: whatever is wrong with the list, with recipes or data.
    """
    _check_list(pipeline.stages)
    check_count("Pipeline.at_once", pipeline.at_once, 1)
    trained = tuple(one.name for one in pipeline.stages if one.recipe)
    context = Context(
        run_dir=run_dir,
        overlays=tuple(gin_files[1:]),
        bindings=functools.partial(bindings_of, trained=trained, gin_bindings=gin_bindings),
        score_split=pipeline.score_split,
        full_supervision=pipeline.full_supervision,
        at_once=pipeline.at_once,
    )
    if pipeline.full_supervision and not any(one.compares for one in pipeline.stages):
        raise UserError("Pipeline.full_supervision: this pipeline has no such stage.")
    for one in pipeline.stages:
        if one.compares and not pipeline.full_supervision:
            continue
        planned = one.resolve(context)
        if planned.stage is not None:
            _check_after(planned.stage, context)
        context.planned[one.name] = planned
    _ = context.score  # which says what is wrong with it
    return context


def _check_list(stages):
    if not isinstance(stages, (list, tuple)) or not stages:
        raise UserError(f"Pipeline.stages = {stages!r}; give a list of stages.")
    names = []
    for one in stages:
        if not isinstance(one, Description):
            raise UserError(
                f"Pipeline.stages: {one!r} is no stage; each is called, as @crf.crf_stage() is."
            )
        if one.name in names:
            raise UserError(
                f"Pipeline.stages: two stages have the name {one.name!r}; give one another .name."
            )
        names.append(one.name)
    if not stages[0].recipe:
        raise UserError(f"Pipeline.stages: the first, {names[0]!r}, trains no recipe.")


def _check_after(stage, context):
    before = [one.name for one in context.stages]
    for name in stage.after:
        if name not in before:
            raise UserError(
                f"stage {stage.name}: comes after {name!r}, which is no stage before it; those are "
                f"{', '.join(before) or 'none'}."
            )
