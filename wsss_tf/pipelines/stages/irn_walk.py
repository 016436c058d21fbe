"""The stage that spreads class activation maps by a random walk within IRN's boundaries."""

import dataclasses

from wsss_tf.inference.ir_labels import threshold_for_maps
from wsss_tf.inference.walk_settings import IRN_WALK
from wsss_tf.pipelines.context import Description
from wsss_tf.pipelines.stages import values
from wsss_tf.pipelines.stages.walk import walk_stage


def irn_walk_stage(
    name="walk",
    maps="cams",
    irn="irn",
    threshold=None,
    affinity_power=IRN_WALK.affinity_power,
    steps=IRN_WALK.steps,
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
      irn: name of the stage that trains IRN.
      threshold: background is what stays below this share of the highest score. None for the one
        that follows the background threshold of the maps.
      affinity_power, steps, crf, crf_scale, crf_iterations, crf_unary_weight, crf_library: as in
        `walk_stage`.
    """
    values.check_threshold("irn_walk_stage.threshold", threshold)
    settings = {
        "affinity_power": affinity_power,
        "steps": steps,
        "crf": crf,
        "crf_scale": crf_scale,
        "crf_iterations": crf_iterations,
        "crf_unary_weight": crf_unary_weight,
        "crf_library": crf_library,
    }

    def resolve(context):
        chosen = threshold
        of = context.maps_of("irn_walk_stage.maps", maps)
        if chosen is None and of.background_threshold is not None:
            # Rounded: it is a flag, and a part of the record.
            chosen = round(threshold_for_maps(of.background_threshold, IRN_WALK.threshold), 4)
        walk = walk_stage(name, maps, irn, background_power=None, threshold=chosen, **settings)
        planned = walk.resolve(context)
        [labels] = planned.scored.values()
        named = {"random walk within boundaries": labels}
        return dataclasses.replace(planned, scored=named, shown=named)

    return Description(name, resolve)
