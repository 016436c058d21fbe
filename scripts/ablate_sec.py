"""Train and score SEC with each loss left out, with other poolings, and over a sweep of the decay.

  python scripts/ablate_sec.py --cues=CUES --output=DIR \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small_sec.gin

Rows: all three losses (sec); one of them left out (no_seed, no_expand, no_constrain); the expansion
loss with maximum (max) and average (average) in place of weighted rank pooling, for present, absent
and background classes alike; and present_D, the recipe with decay D for present classes, for each
of --decays. All runs have the same cues, data, schedule and seeds. Each is scored on --split by the
mean IoU of its masks, single scale, without CRF. Runs that are finished are kept, interrupted ones
go on. Results: DIR/table.md, table.csv and table.png.
"""

import csv
import json
import pathlib
import statistics
import subprocess
import sys
import time

from absl import flags

from wsss_tf import command, run_folder
from wsss_tf import recipe as recipe_lib
from wsss_tf.errors import UserError


def _decays(value):
    names = ("present_decay", "absent_decay", "background_decay")
    return [f"sec_step.{name}={value}" for name in names]


# Row: (what it is, gin bindings).
ROWS = {
    "sec": ("seed + expand + constrain", []),
    "no_seed": ("without the seeding loss", ["sec_step.use_seed=False"]),
    "no_expand": ("without the expansion loss", ["sec_step.use_expand=False"]),
    "no_constrain": ("without the constrain loss", ["sec_step.use_constrain=False"]),
    "max": ("maximum pooling", _decays(0.0)),
    "average": ("average pooling", _decays(1.0)),
}

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table.")
_CUES = flags.DEFINE_string("cues", None, "Localisation cues, as scripts/make_sec_cues.py writes.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Rows to run.")
_DECAYS = flags.DEFINE_list("decays", [], "Decays of present classes to sweep, such as 0.9,0.99.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of weights, order and augmentation.")
_SPLIT = flags.DEFINE_string("split", "val", "Split to score on.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Overlays on gin/sec.gin.")
_GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "Settings for every row.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be run, and run nothing.")
_RUN = flags.DEFINE_string("run", None, "ROW:SEED; one run only (what the script starts).")


def main():
    """Run the script."""
    if not _OUTPUT.value or not _CUES.value:
        raise UserError("--output and --cues are both needed.")
    rows = _chosen_rows()
    output = pathlib.Path(_OUTPUT.value)
    if _RUN.value:
        row, seed = _RUN.value.rsplit(":", 1)
        _run(output / f"{row}_{seed}", rows[row][1], seed)
        return
    # Seeds outside, so that an interrupted comparison still has whole rows to compare.
    for seed in _SEEDS.value:
        for row in rows:
            if (output / f"{row}_{seed}" / "scores.json").is_file():
                continue
            if _DRY_RUN.value:
                print(f"{row}, seed {seed}: {' '.join(rows[row][1]) or 'the recipe as it is'}")
                continue
            # A process each: TensorFlow's state and memory start afresh.
            subprocess.run([sys.executable, *sys.argv, f"--run={row}:{seed}"], check=True)
    if not _DRY_RUN.value:
        _write_table(output, rows)


def _chosen_rows():
    unknown = set(_ROWS.value) - set(ROWS)
    if unknown:
        raise UserError(f"--rows: {sorted(unknown)} unknown; there are {list(ROWS)}.")
    rows = {row: ROWS[row] for row in ROWS if row in _ROWS.value}
    for text in _DECAYS.value:
        try:
            inside = 0 <= float(text) <= 1
        except ValueError:
            inside = False
        if not inside:
            raise UserError(f"--decays={text}: give numbers from 0 to 1.")
        name = f"decay {float(text):g} for present classes"
        rows[f"present_{text}"] = (name, [f"sec_step.present_decay={float(text)}"])
    return rows


def _run(run_dir, bindings, seed):
    from wsss_tf.stages import train

    start = time.time()
    cues = str(pathlib.Path(_CUES.value).resolve())
    bindings = [
        f"sec_augmentation.cues={cues!r}",
        *_GIN_BINDINGS.value,
        *bindings,
        f"Recipe.seed={seed}",
    ]
    recipe = recipe_lib.load(["gin/sec.gin", *_GIN_FILE.value], bindings)
    train(recipe, run_dir)
    seconds = time.time() - start
    scores = {"train_seconds": seconds, **_score(recipe, run_dir)}
    run_folder.write_json(run_dir / "scores.json", scores)


def _score(recipe, run_dir):
    """Return {"miou", "pixel_accuracy", "iou"} over the split, in 0..1."""
    import tensorflow as tf
    from tqdm import tqdm

    from wsss_tf import ops
    from wsss_tf.evaluation.confusion import Confusion
    from wsss_tf.evaluation.metrics import mask_metrics

    net = recipe_lib.load_network(run_dir)
    predict = tf.function(lambda x: tf.argmax(net(ops.normalize_image(x))["logits"], -1))
    source = recipe.source(split=_SPLIT.value)
    confusion = Confusion(len(source.class_names))
    for i in tqdm(range(len(source)), desc="scoring", disable=None):
        example = source.load(tf.constant(i))
        confusion.update(example["mask"].numpy(), predict(example["image"][None])[0].numpy())
    metrics = mask_metrics(
        confusion.matrix,
        source.class_names,
        num_images=confusion.num_images,
        ignored_pixels=confusion.ignored_pixels,
        split=_SPLIT.value,
    )
    return {name: metrics[name] for name in ("miou", "pixel_accuracy", "iou")}


def _write_table(output, rows):
    runs = {
        row: [
            json.loads((output / f"{row}_{seed}" / "scores.json").read_text())
            for seed in _SEEDS.value
        ]
        for row in rows
    }
    lines = [
        f"| row | mIoU, {_SPLIT.value} | pixel accuracy | seeds | minutes a run |",
        "| --- | --- | --- | --- | --- |",
    ]
    cells = [["row", "seed", "miou", "pixel_accuracy", "train_seconds"]]
    for row, (name, _) in rows.items():
        text = [name]
        for key in ("miou", "pixel_accuracy"):
            mean, spread = _mean_and_spread(runs[row], key)
            text.append(f"{mean:.2f}" + (f" ± {spread:.2f}" if len(runs[row]) > 1 else ""))
        minutes = statistics.mean(run["train_seconds"] for run in runs[row]) / 60
        lines.append("| " + " | ".join([*text, str(len(runs[row])), f"{minutes:.1f}"]) + " |")
        for seed, run in zip(_SEEDS.value, runs[row]):
            scores = (f"{run[key]:.4f}" for key in ("miou", "pixel_accuracy"))
            cells.append([row, seed, *scores, f"{run['train_seconds']:.0f}"])
    table = "\n".join(lines) + "\n"
    run_folder.write_text(output / "table.md", table)
    with run_folder.atomic_path(output / "table.csv") as temporary, temporary.open("w") as file:
        csv.writer(file).writerows(cells)
    _draw(output / "table.png", rows, runs)
    print(table, end="")


def _mean_and_spread(runs, key):
    """Return mean and standard deviation over the seeds, in percent."""
    values = [100 * run[key] for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _draw(path, rows, runs):
    """Draw one bar a row, or, if decays were swept, a curve beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = {row: _mean_and_spread(runs[row], "miou") for row in rows}
    swept = [row for row in rows if row.startswith("present_")]
    bars = [row for row in rows if row not in swept]
    parts = [part for part in (bars, swept) if part]
    figure = Figure(figsize=(5 * len(parts), 4), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axis, part in zip(axes, parts):
        means, spreads = zip(*(points[row] for row in part))
        if part is swept:
            decays = [float(row.removeprefix("present_")) for row in part]
            axis.errorbar(decays, means, spreads, marker="o", capsize=3)
            axis.set_xlabel("decay for present classes")
        else:
            axis.bar(part, means, yerr=spreads, capsize=3)
            axis.tick_params("x", rotation=30)
        axis.set_ylabel(f"mIoU on {_SPLIT.value}, %")
        axis.grid(axis="y", alpha=0.3)
    with run_folder.atomic_path(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    command.run(main)
