"""The stage that makes what IRN learns from."""

from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.cam_crf import times_odds
from wsss_tf.inference.dense_crf import LIBRARIES, require_library
from wsss_tf.inference.ir_labels import IR_THRESHOLDS, threshold_for_maps
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages import values


def ir_labels_stage(
    name="ir_labels",
    maps="cams",
    thresholds=None,
    odds=None,
    confidence=0.7,
    iterations=10,
    scale=1.0,
    library="numba",
    processes=None,
):
    """Return the stage that writes labels where two dense CRFs are sure of the maps.

    Args:
      name: of the stage.
      maps: name of the stage that writes the maps, or chooses their threshold.
      thresholds: (low, high), of background and of classes, as `ir_labels` takes them. None for
        those that follow the background threshold of the maps.
      odds: (low, high) instead: those thresholds by how many times the odds t / (1 - t) of the
        threshold of the maps theirs are.
      confidence, iterations, scale, library: as the command takes them.
      processes: worker processes; None for one a processor core.
    """
    values.check_thresholds("ir_labels_stage.thresholds", thresholds)
    values.check_two("ir_labels_stage.odds", odds)
    values.check_one_of(
        ("ir_labels_stage.thresholds", thresholds),
        ("ir_labels_stage.odds", odds),
    )
    values.check_threshold("ir_labels_stage.confidence", confidence)
    values.check_count("ir_labels_stage.iterations", iterations)
    values.check_positive("ir_labels_stage.scale", scale)
    values.check_choice("ir_labels_stage.library", library, LIBRARIES)
    if processes is not None:
        values.check_count("ir_labels_stage.processes", processes, 1)

    def resolve(context):
        require_library(library)
        of = context.maps_of("ir_labels_stage.maps", maps)
        flags = (
            *_thresholds(thresholds, odds, of.background_threshold),
            f"--ir_confidence={confidence:g}",
            f"--crf_iterations={iterations}",
            f"--crf_scale={scale:g}",
        )
        # They change nothing in what is written.
        ways = () if library == "numba" else (f"--crf_library={library}",)
        ways += () if processes is None else (f"--crf_processes={processes}",)
        written = str(RunFolder(of.run.name).ir_labels)
        stage = Stage(
            name=name,
            steps=(("ir_labels", *of.on_split, *flags, *ways),),
            inputs={"flags": flags},
            after=(of.stage,),
            outputs=(written,),
            proof=written,
        )
        shown = {"labels for IRN": RunFolder(of.run).ir_labels}
        return Planned(stage, shown=shown)

    return Description(name, resolve)


def _thresholds(thresholds, odds, of_maps):
    """Return the flag of the thresholds, at best as plain numbers; none if they just follow."""
    if thresholds is None and of_maps is None:  # it is chosen later, and the command follows it
        return () if odds is None else (f"--ir_odds={values.comma(odds)}",)
    if odds is not None:
        thresholds = [round(times_odds(of_maps, ratio), 4) for ratio in odds]
    elif thresholds is None:
        thresholds = [threshold_for_maps(of_maps, t) for t in IR_THRESHOLDS]
    return (f"--ir_thresholds={values.comma(thresholds)}",)
