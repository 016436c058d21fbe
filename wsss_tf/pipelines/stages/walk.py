"""The stage that spreads class activation maps by a random walk on AffinityNet's affinities."""

from wsss_tf.errors import UserError
from wsss_tf.inference import cam_crf
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages import values


def walk_stage(
    name="walk",
    maps="cams",
    affinity="affinity",
    background_power=None,
    threshold=None,
    affinity_power=8.0,
    steps=64,
    crf=False,
    crf_scale=1.0,
):
    """Return the stage that writes the pseudo labels of the walk.

    Args:
      name: of the stage.
      maps: name of the stage that writes the maps.
      affinity: name of the stage that trains AffinityNet.
      background_power: of the walk, as `infer` takes it. None for that of `threshold`, or else for
        the one that follows the background threshold of the maps.
      threshold: the score that beats the walk's background score.
      affinity_power, steps: as `infer` takes them.
      crf: refine by one iteration of the dense CRF.
      crf_scale: divides its widths.
    """
    if background_power is not None:
        values.check_number("walk_stage.background_power", background_power)
    values.check_threshold("walk_stage.threshold", threshold)
    values.check_one_of(
        ("walk_stage.background_power", background_power), ("walk_stage.threshold", threshold)
    )
    values.check_number("walk_stage.affinity_power", affinity_power)
    values.check_count("walk_stage.steps", steps)
    values.check_positive("walk_stage.crf_scale", crf_scale)

    def resolve(context):
        of = context.maps_of("walk_stage.maps", maps)
        trained = context.trained_by("walk_stage.affinity", affinity)
        if trained.recipe.prepare_source is None:
            raise UserError(
                f"{affinity}/train_stage.recipe: is no recipe such as gin/affinity.gin."
            )
        power = _power(background_power, threshold, of.background_threshold)
        flags = (
            f"--background_power={power:g}",
            f"--affinity_power={affinity_power:g}",
            f"--walk_steps={steps}",
            *(("--walk_crf", f"--crf_scale={crf_scale:g}") if crf else ("--nowalk_crf",)),
        )
        run = context.run_dir / affinity
        affinity_run = f"--affinity_run={run}"
        stage = Stage(
            name=name,
            steps=(("infer", *of.on_split, *of.sizes, "--random_walk", affinity_run, *flags),),
            inputs={"flags": flags},
            after=(maps, affinity),
            outputs=(f"{affinity}/pseudo_labels",),
            proof=f"{affinity}/pseudo_labels",
        )
        labels = {"random walk": run / "pseudo_labels"}
        made = {"masks of the pictures": run / "pseudo_labels"}
        return Planned(stage, scored=labels, shown=labels, made=made)

    return Description(name, resolve)


def _power(background_power, threshold, background_threshold):
    if background_power is not None:
        return background_power
    if threshold is not None:
        return cam_crf.power_of_threshold(threshold)
    return cam_crf.power_for_maps(background_threshold, cam_crf.WALK_POWER)
