"""Train and score SEC with each loss left out, with other poolings, and over a sweep of the decay.

  python scripts/ablate_sec.py --cues=CUES --output=DIR \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small_sec.gin

Rows: all three losses (sec); one of them left out (no_seed, no_expand, no_constrain); the expansion
loss with maximum (max) and average (average) in place of weighted rank pooling, for present, absent
and background classes alike; and present_D, the recipe with decay D for present classes, for each
of --decays. All runs have the same cues, data, schedule and seeds. Each is scored on --split by the
mean IoU of its masks, single scale, without the CRF and after it (--nopostprocess leaves that out).
Runs that are finished are kept, interrupted ones go on. Results: DIR/table.md, table.csv and
table.png. --dry_run lists the runs.
"""

import dataclasses
import io
import pathlib

from ablation import Row, mean_and_spread, run
from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RECIPE = "gin/sec.gin"


def _decays(value):
    names = ("present_decay", "absent_decay", "background_decay")
    return tuple(f"sec_step.{name}={value}" for name in names)


ROWS = {
    "sec": Row("seed + expand + constrain", _RECIPE),
    "no_seed": Row("without the seeding loss", _RECIPE, ("sec_step.use_seed=False",)),
    "no_expand": Row("without the expansion loss", _RECIPE, ("sec_step.use_expand=False",)),
    "no_constrain": Row("without the constrain loss", _RECIPE, ("sec_step.use_constrain=False",)),
    "max": Row("maximum pooling", _RECIPE, _decays(0.0)),
    "average": Row("average pooling", _RECIPE, _decays(1.0)),
}

_CUES = flags.DEFINE_string("cues", None, "Localisation cues, as wsss_tf.cues writes.")
_DECAYS = flags.DEFINE_list("decays", [], "Decays of present classes to sweep, such as 0.9,0.99.")


def main():
    """Run the script."""
    if not _CUES.value:
        raise UserError("--cues is missing.")
    cues = str(pathlib.Path(_CUES.value).resolve())
    rows, swept = (
        {
            name: dataclasses.replace(row, inputs=(f"sec_augmentation.cues={cues!r}",))
            for name, row in some.items()
        }
        for some in (ROWS, _swept_rows())
    )
    run(rows, more_rows=swept, draw=_draw)


def _swept_rows():
    rows = {}
    for text in _DECAYS.value:
        try:
            inside = 0 <= float(text) <= 1
        except ValueError:
            inside = False
        if not inside:
            raise UserError(f"--decays={text}: give numbers from 0 to 1.")
        title = f"decay {float(text):g} for present classes"
        binding = f"sec_step.present_decay={float(text)}"
        rows[f"present_{text}"] = Row(title, _RECIPE, (binding,))
    return rows


def _draw(scored, split):
    """Draw one bar a row and, if decays were swept, a curve beside them, as bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    swept = [row for row in scored if row.startswith("present_")]
    bars = [row for row in scored if row not in swept]
    outputs = {"logits": "without the CRF", "postprocessed": "with the CRF"}
    parts = [part for part in (bars, swept) if part]
    figure = Figure(figsize=(5 * len(parts), 4), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axis, part in zip(axes, parts):
        for number, (output, label) in enumerate(outputs.items()):
            points = [mean_and_spread(scored[row], output, "miou") for row in part]
            if None in points:
                continue
            means, spreads = zip(*points)
            if part is swept:
                decays = [float(row.removeprefix("present_")) for row in part]
                axis.errorbar(decays, means, spreads, marker="o", capsize=3, label=label)
                axis.set_xlabel("decay for present classes")
            else:
                places = [place + 0.4 * (number - 0.5) for place in range(len(part))]
                axis.bar(places, means, 0.38, yerr=spreads, capsize=3, label=label)
                axis.set_xticks(range(len(part)), part, rotation=30)
        axis.set_ylabel(f"mIoU on {split}, %")
        axis.grid(axis="y", alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


if __name__ == "__main__":
    command.run(main)
