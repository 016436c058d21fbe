"""Train and score SANet and its baselines, or its loss weights, on the same data and seeds.

  python scripts/ablate_sanet.py --table=modules --output=DIR \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small_supervised.gin

Tables: `modules` is the paper's table 3 (FCN, FCN-SE, SANet; 20 epochs), `alpha` and `beta` are the
sweeps of its figure 4 (weights of the categorical and of the dense loss), `losses` has each of the
two on and off, `choices` compares what the paper leaves open. Runs that are finished are kept,
interrupted ones go on; the table is DIR/table.md and table.csv. --dry_run lists the runs.
"""

from ablation import Row, run
from absl import flags

from wsss_tf import command

_SANET, _FCN = "gin/sanet_pascal_context.gin", "gin/fcn.gin"
_EPOCHS = "Recipe.epochs=20"
_SE = "Recipe.network=@fcn_se_network"


def _depth(depth):
    return f"dilated_resnet.depth={depth}"


def _sweep(name, weight, figure):
    """Return a row for each value of a loss weight, with the mIoU that figure 4 shows."""
    return {
        f"{name}_{value}": Row(
            f"{name} = {value}",
            _SANET,
            (_EPOCHS, _depth(50), f"sanet_step.{weight}={value}"),
            (miou, None),
        )
        for value, miou in figure.items()
    }


TABLES = {
    "modules": {
        "fcn50": Row("FCN50", _FCN, (_EPOCHS, _depth(50)), (44.9, 76.2)),
        "fcn101": Row("FCN101", _FCN, (_EPOCHS, _depth(101)), (45.6, 76.7)),
        "se50": Row("FCN50-SE", _FCN, (_EPOCHS, _depth(50), _SE), (44.6, 76.0)),
        "se101": Row("FCN101-SE", _FCN, (_EPOCHS, _depth(101), _SE), (45.7, 76.6)),
        "sanet50": Row("SANet50", _SANET, (_EPOCHS, _depth(50)), (49.0, 78.9)),
        "sanet101": Row("SANet101", _SANET, (_EPOCHS, _depth(101)), (50.1, 79.2)),
    },
    # Read off the figure, within 0.1.
    "alpha": _sweep(
        "alpha",
        "cat_weight",
        {0.0: 47.7, 0.1: 48.7, 0.2: 49.0, 0.4: 48.8, 0.6: 48.6, 0.8: 48.3, 1.0: 47.9},
    ),
    "beta": _sweep("beta", "den_weight", {0.2: 48.3, 0.4: 48.6, 0.6: 48.6, 0.8: 49.0, 1.0: 48.8}),
    "losses": {
        name: Row(title, _SANET, (_EPOCHS, _depth(50), *(f"sanet_step.{x}=None" for x in without)))
        for name, title, without in (
            ("mask", "mask loss", ("cat_weight", "den_weight")),
            ("mask_cat", "+ categorical loss", ("den_weight",)),
            ("mask_den", "+ dense loss", ("cat_weight",)),
            ("all", "+ both", ()),
        )
    },
    "choices": {
        "relu": Row("attention ends in ReLU", _SANET, (_EPOCHS, _depth(50))),
        "sigmoid": Row(
            "attention ends in a sigmoid",
            _SANET,
            (_EPOCHS, _depth(50), "sanet_network.attn_activation='sigmoid'"),
        ),
        "mid4": Row(
            "4 channels between the attention convolutions",
            _SANET,
            (_EPOCHS, _depth(50), "sanet_network.mid_filters=4"),
        ),
        "cat_sum": Row(
            "categorical loss summed over the classes",
            _SANET,
            (_EPOCHS, _depth(50), "sanet_step.cat_reduction='sum'"),
        ),
    },
}

_TABLE = flags.DEFINE_enum("table", "modules", list(TABLES), "Which table.")

if __name__ == "__main__":
    command.run(lambda: run(TABLES[_TABLE.value], "PASCAL-Context val, 20 epochs"))
