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
    iterations=10,
    scale=1.0,
    unary_weight=1.0,
    library="numba",
    processes=None,
):
    """Return the stage that writes the CRF's marginals and labels, with two background powers.

    Args:
      name: of the stage.
      maps: name of the stage that writes the maps.
      powers: low and high background power, as `refine` takes them. None for those of `thresholds`,
        or else for those that follow the background threshold of the maps.
      thresholds: (low, high) instead of powers. But for what the CRF changes, AffinityNet learns
        background where the strongest class scores below the low one, that class where it scores
        above the high one, nothing between; the maps' best threshold should lie there.
      iterations, scale, unary_weight, library: of the CRF, as `refine` takes them.
      processes: worker processes; None for one a processor core.
    """
    values.check_powers("crf_stage.powers", powers)
    values.check_thresholds("crf_stage.thresholds", thresholds)
    values.check_one_of(("crf_stage.powers", powers), ("crf_stage.thresholds", thresholds))
    values.check_count("crf_stage.iterations", iterations)
    values.check_positive("crf_stage.scale", scale)
    values.check_number("crf_stage.unary_weight", unary_weight)
    values.check_choice("crf_stage.library", library, LIBRARIES)
    if processes is not None:
        values.check_count("crf_stage.processes", processes, 1)

    def resolve(context):
        require_library(library)
        of = context.maps_of("crf_stage.maps", maps)
        chosen = _powers(powers, thresholds, of.background_threshold)
        flags = (
            f"--crf_powers={values.comma(chosen)}",
            f"--crf_iterations={iterations}",
            f"--crf_unary_weight={unary_weight:g}",
            f"--crf_scale={scale:g}",
        )
        # They change nothing in what is written.
        ways = () if library == "numba" else (f"--crf_library={library}",)
        ways += () if processes is None else (f"--crf_processes={processes}",)
        labels = {
            f"dense CRF, background power {power:.3g}": RunFolder(of.run).crf_labels(low_or_high)
            for low_or_high, power in zip(CRF_NAMES, chosen)
        }
        made = RunFolder(of.run.name)
        stage = Stage(
            name=name,
            steps=(("refine", *of.on_split, *flags, *ways),),
            inputs={"flags": flags},
            after=(maps,),
            outputs=tuple(
                str(folder(low_or_high))
                for folder in (made.crf_maps, made.crf_labels)
                for low_or_high in CRF_NAMES
            ),
            proof=str(made.crf_labels(CRF_NAMES[-1])),
        )
        return Planned(stage, scored=labels, shown=labels)

    return Description(name, resolve)


def _powers(powers, thresholds, background_threshold):
    if powers is not None:
        return tuple(powers)
    if thresholds is not None:
        # The low power's background scores more: a class must beat the high threshold.
        low, high = thresholds
        return cam_crf.power_of_threshold(high), cam_crf.power_of_threshold(low)
    return tuple(
        cam_crf.power_for_maps(background_threshold, power) for power in cam_crf.BACKGROUND_POWERS
    )
