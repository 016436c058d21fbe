"""The stage that runs the dense CRF on class activation maps."""

from wsss_tf.files.run_folder import CRF_NAMES, RunFolder
from wsss_tf.inference import cam_crf
from wsss_tf.inference.dense_crf import LIBRARIES, require_library
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages import values


def crf_stage(
    name="crf",
    maps="cams",
    powers=None,
    thresholds=None,
    odds=None,
    iterations=10,
    scale=1.0,
    unary_weight=1.0,
    library="numba",
    processes=None,
):
    """Return the stage that writes the CRF's marginals and labels, with two background powers.

    Args:
      name: of the stage.
      maps: name of the stage that writes the maps, or chooses their threshold.
      powers: low and high background power, as `refine` takes them. None for those of `thresholds`
        or `odds`, or else for those that follow the background threshold of the maps.
      thresholds: (low, high) instead of powers. But for what the CRF changes, AffinityNet learns
        background where the strongest class scores below the low one, that class where it scores
        above the high one, nothing between; the maps' best threshold should lie there.
      odds: (low, high) instead of both: those thresholds by how many times the odds t / (1 - t) of
        the maps' threshold theirs are.
      iterations, scale, unary_weight, library: of the CRF, as `refine` takes them.
      processes: worker processes; None for one a processor core.
    """
    values.check_two("crf_stage.powers", powers)
    values.check_thresholds("crf_stage.thresholds", thresholds)
    values.check_two("crf_stage.odds", odds)
    values.check_one_of(
        ("crf_stage.powers", powers),
        ("crf_stage.thresholds", thresholds),
        ("crf_stage.odds", odds),
    )
    values.check_count("crf_stage.iterations", iterations)
    values.check_positive("crf_stage.scale", scale)
    values.check_number("crf_stage.unary_weight", unary_weight)
    values.check_choice("crf_stage.library", library, LIBRARIES)
    if processes is not None:
        values.check_count("crf_stage.processes", processes, 1)

    def resolve(context):
        require_library(library)
        of = context.maps_of("crf_stage.maps", maps)
        chosen = _powers(powers, thresholds, odds, of.background_threshold)
        flags = (
            *_background(chosen, odds),
            f"--crf_iterations={iterations}",
            f"--crf_unary_weight={unary_weight:g}",
            f"--crf_scale={scale:g}",
        )
        # They change nothing in what is written.
        ways = () if library == "numba" else (f"--crf_library={library}",)
        ways += () if processes is None else (f"--crf_processes={processes}",)
        names = ("sure of objects", "sure of background")
        if chosen is not None:
            names = (f"background power {power:.3g}" for power in chosen)
        labels = {
            f"dense CRF, {name}": RunFolder(of.run).crf_labels(low_or_high)
            for name, low_or_high in zip(names, CRF_NAMES)
        }
        made = RunFolder(of.run.name)
        stage = Stage(
            name=name,
            steps=(("refine", *of.on_split, *flags, *ways),),
            inputs={"flags": flags},
            after=(of.stage,),
            outputs=tuple(
                str(folder(low_or_high))
                for folder in (made.crf_maps, made.crf_labels)
                for low_or_high in CRF_NAMES
            ),
            proof=str(made.crf_labels(CRF_NAMES[-1])),
        )
        return Planned(stage, scored=labels, shown=labels)

    return Description(name, resolve)


def _background(powers, odds):
    """Return the flags of `refine` for known powers, or for those that follow the maps."""
    if powers is not None:
        return (f"--crf_powers={values.comma(powers)}",)
    return () if odds is None else (f"--crf_odds={values.comma(odds)}",)


def _powers(powers, thresholds, odds, background_threshold):
    """Return the two powers; None where the threshold that they follow is chosen later."""
    if powers is not None:
        return tuple(powers)
    if thresholds is None and background_threshold is None:
        return None
    if odds is not None:
        thresholds = [cam_crf.times_odds(background_threshold, ratio) for ratio in odds]
    if thresholds is not None:
        # The low power's background scores more: a class must beat the high threshold.
        low, high = thresholds
        return cam_crf.power_of_threshold(high), cam_crf.power_of_threshold(low)
    return tuple(
        cam_crf.power_for_maps(background_threshold, power) for power in cam_crf.BACKGROUND_POWERS
    )
