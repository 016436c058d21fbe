"""Train and score CPNet, its parts and its baseline on the same data, schedule and seeds.

  python scripts/ablate_cpnet.py --output=DIR \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small_supervised.gin

Tables: `components` is gin/cpnet_ade20k.gin with a part left out or put in, `weights` the same with
other weights of the affinity loss and of its parts. Runs that are finished are kept, interrupted
ones go on; the table is DIR/table.md and table.csv. --dry_run lists the runs.
"""

from ablation import Row, run
from absl import flags

from wsss_tf import command

_RECIPE = "gin/cpnet_ade20k.gin"
_NO_PRIOR = "cpnet_step.prior_weight=None"
_R50 = "dilated_resnet.depth=50"

_COMPONENTS = {
    "fcn": Row(
        "dilated FCN",
        _RECIPE,
        (
            _R50,
            "cpnet_network.context='none'",
            "cpnet_network.auxiliary=False",
            "cpnet_step.aux_weight=None",
            _NO_PRIOR,
        ),
    ),
    "aux": Row("+ auxiliary loss", _RECIPE, (_R50, "cpnet_network.context='none'", _NO_PRIOR)),
    "aggregation": Row(
        "+ aggregation module", _RECIPE, (_R50, "cpnet_network.context='aggregation'", _NO_PRIOR)
    ),
    "no_affinity": Row("+ context prior, no affinity loss", _RECIPE, (_R50, _NO_PRIOR)),
    "intra": Row(
        "+ affinity loss, intra context only", _RECIPE, (_R50, "cpnet_network.context='intra'")
    ),
    "inter": Row(
        "+ affinity loss, inter context only", _RECIPE, (_R50, "cpnet_network.context='inter'")
    ),
    "masked": Row(
        "CPNet50, ignored pixels left out of the affinity loss",
        _RECIPE,
        (_R50, "cpnet_step.masked_affinity=True"),
    ),
    "cpnet50": Row("CPNet50", _RECIPE, (_R50,), (44.46, 81.38)),
    "cpnet101": Row("CPNet101", _RECIPE, ("dilated_resnet.depth=101",), (46.27, 81.85)),
}
_WEIGHTS = {
    f"prior_{value}": Row(
        f"affinity loss times {value:g}", _RECIPE, (_R50, f"cpnet_step.prior_weight={value}")
    )
    for value in (0.1, 0.25, 0.5, 1.0, 2.0)
} | {
    "unary": Row("its unary part only", _RECIPE, (_R50, "cpnet_step.global_weight=0.0")),
    "global": Row("its global part only", _RECIPE, (_R50, "cpnet_step.unary_weight=0.0")),
}
TABLES = {"components": _COMPONENTS, "weights": _WEIGHTS}

_TABLE = flags.DEFINE_enum("table", "components", list(TABLES), "Which table.")

if __name__ == "__main__":
    command.run(lambda: run(TABLES[_TABLE.value], "ADE20K val"))
