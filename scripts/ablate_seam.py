"""Train and score the rows of SEAM's Table 1 on the same data, schedule and seeds.

  python scripts/ablate_seam.py --output=DIR \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small.gin

The rows are the CAM baseline, + equivariance loss (ER), + pixel correlation module (PCM), and
+ hard pixel mining, which is SEAM. Each run is scored on --split at the best background threshold
for both of its outputs: the raw CAM, and the CAM through the PCM (untrained in the first two rows).
Runs that are finished are kept, interrupted ones go on; the table is DIR/table.md and table.csv.
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

# Row: (what it is, gin bindings, the paper's mIoU on VOC train).
ROWS = {
    "cam": ("CAM baseline", ["seam_step.siamese=False"], 47.43),
    "er": ("+ ER", ["seam_step.use_pcm=False"], 49.90),
    "pcm": ("+ ER + PCM", ["seam_step.hard_pixel_ratio=1.0"], 55.08),
    "seam": ("+ ER + PCM + hard pixels (SEAM)", [], 55.41),
}
OUTPUTS = ("cam", "cam_rv")

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Rows to run.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of weights, order and augmentation.")
_SPLIT = flags.DEFINE_string("split", "val", "Split to score on.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Overlays on gin/seam.gin.")
_GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "Settings for every row.")
_RUN = flags.DEFINE_string("run", None, "ROW:SEED; one run only (what the script starts).")


def main():
    """Run the script."""
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    unknown = set(_ROWS.value) - set(ROWS)
    if unknown:
        raise UserError(f"--rows: {sorted(unknown)} unknown; there are {list(ROWS)}.")
    output = pathlib.Path(_OUTPUT.value)
    if _RUN.value:
        row, seed = _RUN.value.split(":")
        _run(output / f"{row}_{seed}", row, seed)
        return
    # Seeds outside, so that an interrupted comparison still has whole rows to compare.
    for seed in _SEEDS.value:
        for row in _ROWS.value:
            if not (output / f"{row}_{seed}" / "scores.json").is_file():
                # A process each: TensorFlow's state and memory start afresh.
                subprocess.run([sys.executable, *sys.argv, f"--run={row}:{seed}"], check=True)
    _write_table(output)


def _run(run_dir, row, seed):
    from wsss_tf.stages import train

    start = time.time()
    bindings = [*_GIN_BINDINGS.value, *ROWS[row][1], f"Recipe.seed={seed}"]
    recipe = recipe_lib.load(["gin/seam.gin", *_GIN_FILE.value], bindings)
    train(recipe, run_dir)
    seconds = time.time() - start
    scores = {"train_seconds": seconds, **_score(recipe, run_dir)}
    run_folder.write_json(run_dir / "scores.json", scores)


def _score(recipe, run_dir):
    """Return {output: {"miou", "threshold"}}, multi-scale and with flip, over the split."""
    import numpy as np
    import tensorflow as tf
    from tqdm import tqdm

    from wsss_tf.evaluation.threshold_sweep import Sweep
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam

    net = recipe_lib.load_network(run_dir)
    source = recipe.source(split=_SPLIT.value)
    scores = {}
    for output in OUTPUTS:
        compute = MultiScaleCam(net, output)
        sweep = Sweep(len(source.class_names))
        for i in tqdm(range(len(source)), desc=f"scoring {output}", disable=None):
            example = source.load(tf.constant(i))
            present = np.flatnonzero(source.labels[i])
            cams = compute(example["image"][None])["cams"].numpy()[0].transpose(2, 0, 1)[present]
            sweep.update(present + 1, cams, example["mask"].numpy())
        result = sweep.result(source.class_names)
        scores[output] = {
            "miou": float(result.miou[result.best]),
            "threshold": float(result.thresholds[result.best]),
            "mfn": float(result.mfn[result.best]),
            "mfp": float(result.mfp[result.best]),
        }
    return scores


def _write_table(output):
    lines = [
        f"| row | raw CAM, {_SPLIT.value} | through the PCM, {_SPLIT.value} | seeds "
        "| minutes a run | paper (VOC train) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    cells = [["row", "seed", "output", "miou", "threshold", "mfn", "mfp", "train_seconds"]]
    for row in _ROWS.value:
        files = [output / f"{row}_{seed}" / "scores.json" for seed in _SEEDS.value]
        runs = [json.loads(path.read_text()) for path in files]
        text = [ROWS[row][0]]
        for name in OUTPUTS:
            values = [100 * run[name]["miou"] for run in runs]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            text.append(f"{statistics.mean(values):.2f}{spread}")
        minutes = statistics.mean(run["train_seconds"] for run in runs) / 60
        text += [str(len(runs)), f"{minutes:.1f}", f"{ROWS[row][2]:.2f}"]
        lines.append("| " + " | ".join(text) + " |")
        for seed, run in zip(_SEEDS.value, runs):
            for name in OUTPUTS:
                values = (f"{run[name][key]:.4f}" for key in ("miou", "threshold", "mfn", "mfp"))
                cells.append([row, seed, name, *values, f"{run['train_seconds']:.0f}"])
    table = "\n".join(lines) + "\n"
    run_folder.write_text(output / "table.md", table)
    with run_folder.atomic_path(output / "table.csv") as temporary, temporary.open("w") as file:
        csv.writer(file).writerows(cells)
    print(table, end="")


if __name__ == "__main__":
    command.run(main)
