"""The stage that spreads class activation maps by a random walk on AffinityNet's affinities."""

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference import cam_crf
from wsss_tf.inference.dense_crf import LIBRARIES, require_library
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages import values


def walk_stage(
    name="walk",
    maps="cams",
    affinity="affinity",
    background_power=None,
    threshold=None,
    odds=None,
    affinity_power=8.0,
    steps=64,
    weigh_start=True,
    crf=False,
    crf_scale=1.0,
    crf_iterations=1,
    crf_unary_weight=1.0,
    crf_library="numba",
):
    """Return the stage that writes the pseudo labels of the walk.

    Args:
      name: of the stage.
      maps: name of the stage that writes the maps, or chooses their threshold.
      affinity: name of the stage that trains AffinityNet or IRN.
      background_power: of the background's score, which walks beside the classes. None for the one
        that follows the background threshold of the maps.
      threshold: instead of it: the classes walk alone, and background is what stays below this
        share of the highest score.
      odds: instead of both: that share by how many times the odds t / (1 - t) of the maps'
        threshold its odds are.
      affinity_power, steps, weigh_start: as the command takes them.
      crf: refine by the dense CRF.
      crf_scale, crf_iterations, crf_unary_weight, crf_library: of that CRF, as the command takes
        them.
    """
    if background_power is not None:
        values.check_number("walk_stage.background_power", background_power)
    values.check_threshold("walk_stage.threshold", threshold)
    if odds is not None:
        values.check_positive("walk_stage.odds", odds)
    values.check_one_of(
        ("walk_stage.background_power", background_power),
        ("walk_stage.threshold", threshold),
        ("walk_stage.odds", odds),
    )
    values.check_number("walk_stage.affinity_power", affinity_power)
    values.check_count("walk_stage.steps", steps)
    values.check_positive("walk_stage.crf_scale", crf_scale)
    values.check_count("walk_stage.crf_iterations", crf_iterations)
    values.check_number("walk_stage.crf_unary_weight", crf_unary_weight)
    values.check_choice("walk_stage.crf_library", crf_library, LIBRARIES)

    refining = (
        "--walk_crf",
        f"--crf_scale={crf_scale:g}",
        f"--walk_crf_iterations={crf_iterations}",
        f"--walk_crf_unary_weight={crf_unary_weight:g}",
    )

    # It changes nothing in what is written.
    ways = () if crf_library == "numba" or not crf else (f"--crf_library={crf_library}",)

    def resolve(context):
        if crf:
            require_library(crf_library)
        of = context.maps_of("walk_stage.maps", maps)
        trained = context.trained_by("walk_stage.affinity", affinity)
        if trained.recipe.prepare_source is None:
            raise UserError(
                f"{affinity}/train_stage.recipe: is no recipe such as gin/affinity.gin or "
                "gin/irn.gin."
            )
        flags = (
            *_background(background_power, threshold, odds, of.background_threshold),
            f"--affinity_power={affinity_power:g}",
            f"--walk_steps={steps}",
            *(() if weigh_start else ("--nowalk_weigh_start",)),
            *(refining if crf else ("--nowalk_crf",)),
        )
        run, written = context.run_dir / affinity, str(RunFolder(affinity).pseudo_labels)
        affinity_run = f"--affinity_run={run}"
        stage = Stage(
            name=name,
            steps=(("walk", *of.on_split, affinity_run, *flags, *ways),),
            inputs={"flags": flags},
            after=(of.stage, affinity),
            outputs=(written,),
            proof=written,
        )
        masks = RunFolder(run).pseudo_labels
        labels, made = {"random walk": masks}, {"masks of the pictures": masks}
        return Planned(stage, scored=labels, shown=labels, made=made)

    return Description(name, resolve)


def _background(power, threshold, odds, of_maps):
    """Return the flags of `walk` that tell classes from background, at best as plain numbers."""
    if odds is not None and of_maps is not None:
        threshold = round(cam_crf.times_odds(of_maps, odds), 4)
    if threshold is not None:
        return (f"--walk_threshold={threshold:g}",)
    if odds is not None:
        return (f"--walk_odds={odds:g}",)
    if power is None and of_maps is None:
        return ()  # the command follows the threshold that was chosen
    if power is None:
        power = cam_crf.power_for_maps(of_maps, cam_crf.WALK_POWER)
    return (f"--background_power={power:g}",)
