"""The settings of a pipeline: what its gin file configures, and which binding is for what."""

import dataclasses
import re

from wsss_tf.errors import UserError
from wsss_tf.runs import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The settings of a pipeline; every field is a gin binding `Pipeline.<field>`.

    Attributes:
      stages: `context.Description`s in the order to be run, as the factories of
        `pipelines.stages` return them. Their settings are bindings of these factories:
        `crf_stage.powers`, or `cam/train_stage.recipe` where there are several of one kind.
      score_split: the split on which labels are scored, a part of the one that is trained on; None
        for that one itself.
      full_supervision: also train on the data set's own masks, to compare.
      at_once: how many stages may be at work at a time: those whose `after` allows it then run side
        by side, each with its share of the processor cores. For processors; one GPU has no room.
    """

    stages: tuple
    score_split: str | None = None
    full_supervision: bool = False
    at_once: int = 1


# Bindings of Pipeline from before stages had settings of their own, and what they are now.
_MOVED = {
    "cam_recipe": "cam/train_stage.recipe",
    "affinity_recipe": "affinity/train_stage.recipe",
    "segmentation_recipe": "segmentation/train_stage.recipe",
    "scales": "cams_stage.scales",
    "flip": "cams_stage.flip",
    "background_threshold": "cams_stage.background_threshold",
    "crf_powers": "crf_stage.powers",
    "crf_thresholds": "crf_stage.thresholds",
    "crf_iterations": "crf_stage.iterations",
    "crf_scale": "crf_stage.scale and walk_stage.crf_scale",
    "crf_unary_weight": "crf_stage.unary_weight",
    "crf_processes": "crf_stage.processes",
    "background_power": "walk_stage.background_power",
    "walk_threshold": "walk_stage.threshold",
    "affinity_power": "walk_stage.affinity_power",
    "walk_steps": "walk_stage.steps",
    "walk_crf": "walk_stage.crf",
    "export_scales": "export_stage.scales",
    "export_flip": "export_stage.flip",
    "report_images": "report_stage.images",
}


def load_pipeline(gin_files, gin_bindings):
    """Return the `Pipeline` of the first gin file.

    Args:
      gin_files: the pipeline and overlays of its recipes.
      gin_bindings: those of `Pipeline` and of its stages are for the pipeline.

    Raises:
      UserError: no such file, it is no pipeline, or a setting has a value that cannot be.
    """
    if not gin_files:
        raise UserError("no --gin_file; for example --gin_file=gin/pipelines/seam.gin.")
    own = [binding for binding in gin_bindings if _is_of_pipeline(binding)]
    try:
        return recipe_lib.load(gin_files[:1], own, Pipeline)
    except UserError as error:
        moved = re.search(r"Pipeline' doesn't have a parameter named '(\w+)'", str(error))
        if moved and moved[1] in _MOVED:
            raise UserError(
                f"Pipeline.{moved[1]} is a setting of its stage now: {_MOVED[moved[1]]} (in a gin "
                "file after an import such as those of gin/pipelines/seam.gin)."
            ) from error
        if "Pipeline" not in recipe_lib.parsed_config():
            raise UserError(f"--gin_file={gin_files[0]}: is no pipeline: {error}") from error
        raise


def bindings_of(name, trained, gin_bindings):
    """Return the bindings that are for a training stage: its own without "name/", and common ones.

    Args:
      name: of the stage.
      trained: names of all the stages that train.
      gin_bindings: as the user gave them.
    """
    chosen = []
    for binding in gin_bindings:
        if _is_of_pipeline(binding):
            continue
        scope, slash, rest = binding.partition("/")
        if slash and scope.strip() in trained:
            if scope.strip() == name:
                chosen.append(rest)
        else:
            chosen.append(binding)
    return chosen


def _is_of_pipeline(binding):
    """Return whether a binding is of `Pipeline` or of a stage, whose names end in "_stage"."""
    parameter = binding.partition("=")[0].strip().rpartition("/")[2]
    configurable = "".join(parameter.split(".")[-2:-1])
    return configurable == "Pipeline" or configurable.endswith("_stage")
