"""The settings of a pipeline: what its gin file configures, and which binding is for what."""

import dataclasses

from wsss_tf.errors import UserError
from wsss_tf.runs import recipe as recipe_lib

# Stages that train, and what a binding for one of them alone begins with: cam/Recipe.epochs=2.
TRAINED = ("cam", "affinity", "segmentation")


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The settings of a pipeline; every field is a gin binding `Pipeline.<field>`.

    Attributes:
      cam_recipe: gin files of the network that gives class activation maps.
      affinity_recipe: of AffinityNet.
      segmentation_recipe: of the network that is trained on the pseudo labels.
      scales, flip: of the CAMs, as `infer` takes them.
      score_split: the split on which CAMs and labels are scored, a part of the one that is trained
        on; None for that one itself.
      background_threshold: score that a pixel of the CAMs must beat to be its strongest class; None
        for the CAM recipe's (`Recipe.background_threshold`). Another one here trains nothing anew.
      crf_powers: low and high background power of the dense CRF, as `infer` takes them. None for
        those of `crf_thresholds`, or else for those that follow the background threshold.
      crf_thresholds: (low, high) instead of powers. But for what the CRF changes, AffinityNet
        learns background where the strongest class scores below the low one, that class where it
        scores above the high one, nothing between; the maps' best threshold should lie there.
      crf_iterations, crf_scale, crf_unary_weight: of the dense CRF, as `infer` takes them;
        `crf_scale` also of the walk's.
      crf_processes: worker processes of the dense CRF; None for one a processor core.
      background_power: of the random walk, as `infer` takes it. None for that of `walk_threshold`,
        or else for the one that follows the background threshold.
      walk_threshold: the score that beats the walk's background score.
      affinity_power, walk_steps, walk_crf: of the random walk, as `infer` takes them.
      export_scales, export_flip: what the SavedModel computes, as `export` takes them.
      full_supervision: also train the segmentation network on the data set's own masks, to compare.
      report_images: how many images report.html shows.
    """

    cam_recipe: tuple
    affinity_recipe: tuple
    segmentation_recipe: tuple
    scales: tuple = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    score_split: str | None = None
    background_threshold: float | None = None
    crf_powers: tuple | None = None
    crf_thresholds: tuple | None = None
    crf_iterations: int = 10
    crf_scale: float = 1.0
    crf_unary_weight: float = 1.0
    crf_processes: int | None = None
    background_power: float | None = None
    walk_threshold: float | None = None
    affinity_power: float = 8.0
    walk_steps: int = 64
    walk_crf: bool = False
    export_scales: tuple = (1.0,)
    export_flip: bool = False
    full_supervision: bool = False
    report_images: int = 12


def load_pipeline(gin_files, gin_bindings):
    """Return the `Pipeline` of the first gin file.

    Args:
      gin_files: the pipeline and overlays of its recipes.
      gin_bindings: those that begin with "Pipeline." are for the pipeline.

    Raises:
      UserError: no such file, or it is no pipeline.
    """
    if not gin_files:
        raise UserError("no --gin_file; for example --gin_file=gin/pipelines/seam.gin.")
    own = [binding for binding in gin_bindings if _is_of_pipeline(binding)]
    try:
        pipeline = recipe_lib.load(gin_files[:1], own, Pipeline)
    except UserError as error:
        if "Pipeline" not in recipe_lib.parsed_config():
            raise UserError(f"--gin_file={gin_files[0]}: is no pipeline: {error}") from error
        raise
    _check_settings(pipeline)
    return pipeline


def _check_settings(pipeline):
    """Find now what a command would refuse after days."""

    def is_number(value, kind=(int, float), least=0):
        return isinstance(value, kind) and not isinstance(value, bool) and value >= least

    def are_scales(values):
        return (
            isinstance(values, (list, tuple)) and values and all(is_number(v) and v for v in values)
        )

    def are_files(values):
        return (
            isinstance(values, (list, tuple)) and values and all(isinstance(v, str) for v in values)
        )

    def are_ascending(values):
        return are_scales(values) and len(values) == 2 and values[0] < values[1]

    def is_threshold(value):
        return is_number(value) and 0 < value < 1

    def is_count(value, least=0):
        return is_number(value, int, least)

    def or_none(fits):
        return lambda value: value is None or fits(value)

    checks = {
        "cam_recipe": (are_files, "a list of gin files"),
        "affinity_recipe": (are_files, "a list of gin files"),
        "segmentation_recipe": (are_files, "a list of gin files"),
        "scales": (are_scales, "a list of positive numbers"),
        "export_scales": (are_scales, "a list of positive numbers"),
        "background_threshold": (or_none(is_threshold), "None or a number between 0 and 1"),
        "crf_powers": (or_none(are_ascending), "two positive numbers, the lower one first"),
        "crf_thresholds": (
            or_none(lambda v: are_ascending(v) and v[1] < 1),
            "two numbers between 0 and 1, the lower one first",
        ),
        "crf_iterations": (is_count, "a whole number, 0 or more"),
        "crf_scale": (lambda v: is_number(v) and v > 0, "a positive number"),
        "crf_unary_weight": (is_number, "a number, 0 or more"),
        "background_power": (or_none(is_number), "a number, 0 or more"),
        "walk_threshold": (or_none(is_threshold), "None or a number between 0 and 1"),
        "affinity_power": (is_number, "a number, 0 or more"),
        "walk_steps": (is_count, "a whole number, 0 or more"),
        "report_images": (is_count, "a whole number, 0 or more"),
        "crf_processes": (or_none(lambda v: is_count(v, 1)), "None or a number from 1 on"),
    }
    for field, (fits, wanted) in checks.items():
        value = getattr(pipeline, field)
        if not fits(value):
            raise UserError(f"Pipeline.{field} = {value!r}; give {wanted}.")
    for power, threshold in (
        ("crf_powers", "crf_thresholds"),
        ("background_power", "walk_threshold"),
    ):
        if None not in (getattr(pipeline, power), getattr(pipeline, threshold)):
            raise UserError(
                f"Pipeline.{power} and Pipeline.{threshold} are both given; set one to None."
            )


def bindings_of(name, gin_bindings):
    """Return the bindings that are for a training stage: its own without "name/", and common ones.

    Args:
      name: one of `TRAINED`.
      gin_bindings: as the user gave them.
    """
    chosen = []
    for binding in gin_bindings:
        scope, slash, rest = binding.partition("/")
        if slash and scope.strip() in TRAINED:
            if scope.strip() == name:
                chosen.append(rest)
        elif not _is_of_pipeline(binding):
            chosen.append(binding)
    return chosen


def _is_of_pipeline(binding):
    return binding.partition("=")[0].strip().split(".")[-2:-1] == ["Pipeline"]
