"""Train and score AffinityNet and IRN on the same CAMs, with other radii, and on other CAMs.

  python scripts/ablate_irn.py --cam_run=SEAM_RUN --plain_cam_run=IRN_CAM_RUN --output=DIR \\
      --affinity_gin_file=gin/backbone/efficientnet_lite0.gin \\
      --affinity_gin_file=gin/size/photos_affinity.gin \\
      --irn_gin_file=gin/backbone/efficientnet_lite0.gin --irn_gin_file=gin/size/photos_irn.gin

after infer, refine and ir_labels in both CAM runs, on the split that is trained on. Rows:
AffinityNet (affinitynet) and IRN (irn) on the CAMs of --cam_run; IRN with displacements
(displacement) and with each of --radii (radius_R); and the first two on the CAMs of --plain_cam_run
(affinitynet_plain, irn_plain), if it is given. Each is scored on --split by the labels of its
random walk, in which the classes walk alone: at the best share of the highest score that tells them
from background, and at the share that follows the threshold of the CAMs. Runs that are finished are
kept, interrupted ones go on. Results: DIR/table.md and DIR/table.csv. --dry_run lists the runs.
"""

import csv
import dataclasses
import pathlib
import statistics

from ablation_runs import add_scores, check_settings, read_scores, run_alone, train_once
from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.inference.walk_settings import AFFINITY_WALK, IRN_WALK
from wsss_tf.runs import recipe as recipe_lib

_CAM_RUN = flags.DEFINE_string("cam_run", None, "Run with CAMs, and what both learn from.")
_PLAIN_CAM_RUN = flags.DEFINE_string("plain_cam_run", None, "Such a run of another CAM network.")
_RADII = flags.DEFINE_list("radii", [], "Of IRN's pairs in training, such as 5,15.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table.")
_ROWS = flags.DEFINE_list("rows", None, "Rows to run, by name; all by default.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1"], "Seeds of weights, order and augmentation.")
_SPLIT = flags.DEFINE_string("split", "train", "Split to score on, one that has CAMs.")
_AFFINITY_GIN_FILE = flags.DEFINE_multi_string(
    "affinity_gin_file", [], "Overlays on gin/affinity.gin."
)
_IRN_GIN_FILE = flags.DEFINE_multi_string("irn_gin_file", [], "Overlays on gin/irn.gin.")
_GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "Settings for every row.")
_AFFINITY_WALK = flags.DEFINE_list(
    "affinity_walk",
    [f"{AFFINITY_WALK.affinity_power:g}", f"{AFFINITY_WALK.steps}"],
    "Power of affinities and number of steps of AffinityNet's walk.",
)
_IRN_WALK = flags.DEFINE_list(
    "irn_walk", [f"{IRN_WALK.affinity_power:g}", f"{IRN_WALK.steps}"], "The same of IRN's."
)
_WEIGH_START = flags.DEFINE_bool(
    "weigh_start", True, "Whether IRN's walk begins with less of a score where a boundary is."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check and list the runs, and do nothing.")
_RUN = flags.DEFINE_string("run", None, "ROW:SEED; one run only (what the script starts).")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      title: what it is.
      cam_run: folder of the CAMs.
      is_irn: whether IRN is trained, else AffinityNet.
      bindings: how its recipe is changed.
    """

    title: str
    cam_run: pathlib.Path
    is_irn: bool = True
    bindings: tuple = ()

    @property
    def files(self):
        """The gin files of its recipe."""
        if self.is_irn:
            return ["gin/irn.gin", *_IRN_GIN_FILE.value]
        return ["gin/affinity.gin", *_AFFINITY_GIN_FILE.value]

    @property
    def walk(self):
        """The power of affinities and the number of steps."""
        return _numbers("irn_walk" if self.is_irn else "affinity_walk")

    def recipe(self, seed):
        """Load its recipe."""
        inputs = "with_ir_labels" if self.is_irn else "with_crf_maps"
        bindings = [f"{inputs}.cam_run={str(self.cam_run)!r}", *self.bindings]
        return recipe_lib.load(self.files, [*bindings, *_GIN_BINDINGS.value, f"Recipe.seed={seed}"])


def main():
    """Run the script."""
    for name in ("cam_run", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    _numbers("affinity_walk"), _numbers("irn_walk")
    rows = _rows()
    names = list(rows) if _ROWS.value is None else _ROWS.value
    if unknown := set(names) - set(rows):
        raise UserError(f"--rows: {sorted(unknown)} unknown; there are {list(rows)}.")
    output = pathlib.Path(_OUTPUT.value)
    if _RUN.value:
        name, seed = _RUN.value.split(":")
        _run_one(rows[name], seed, output / f"{name}_{seed}")
        return
    # Seeds outside, so that an interrupted comparison still has whole rows to compare.
    runs = [(name, seed, output / f"{name}_{seed}") for seed in _SEEDS.value for name in names]
    for name, seed, run_dir in runs:
        rows[name].recipe(seed)  # a wrong binding is found here
        check_settings(run_dir, recipe_lib.parsed_config())
    if _DRY_RUN.value:
        for name, _, run_dir in runs:
            settings = " ".join([rows[name].files[0], *rows[name].bindings])
            print(f"{run_dir}: {'done' if _is_finished(rows[name], run_dir) else settings}")
        return
    for name, seed, run_dir in runs:
        if not _is_finished(rows[name], run_dir):
            run_alone(f"{name}:{seed}", run_dir)
    _write_table({name: rows[name] for name in names}, output)


def _rows():
    """Return {name: Row}."""
    cams = pathlib.Path(_CAM_RUN.value).resolve()
    rows = {
        "affinitynet": Row("AffinityNet", cams, is_irn=False),
        "irn": Row("IRN", cams),
        "displacement": Row(
            "IRN with displacements", cams, True, ("irn_network.displacement=True",)
        ),
    }
    for text in _RADII.value:
        if not text.isdigit() or int(text) < 2:
            raise UserError(f"--radii={text}: give whole numbers, 2 or more.")
        binding = f"irn_network.radius={int(text)}"
        rows[f"radius_{text}"] = Row(f"IRN, radius {int(text)}", cams, True, (binding,))
    if _PLAIN_CAM_RUN.value:
        plain = pathlib.Path(_PLAIN_CAM_RUN.value).resolve()
        rows["affinitynet_plain"] = Row("AffinityNet, on plain CAMs", plain, is_irn=False)
        rows["irn_plain"] = Row("IRN, on plain CAMs", plain)
    return rows


def _numbers(name):
    value = flags.FLAGS[name].value
    numbers = command.parse_positive(name, value, "10,256")
    if len(numbers) != 2 or numbers[1] != int(numbers[1]):
        raise UserError(f"--{name}={','.join(value)}: give a power and a number of steps.")
    return numbers[0], int(numbers[1])


def _key(row):
    """Return what a run's scores are kept under."""
    power, steps = row.walk
    start = "" if _WEIGH_START.value or not row.is_irn else ", whole scores at the start"
    return f"{_SPLIT.value}, power {power:g}, {steps} steps{start}"


def _is_finished(row, run_dir):
    return _key(row) in read_scores(run_dir)


def _run_one(row, seed, run_dir):
    recipe = row.recipe(seed)
    train_once(recipe, run_dir, recipe_lib.parsed_config())
    add_scores(run_dir, {_key(row): _score(row, recipe, run_dir)})


def _score(row, recipe, run_dir):
    """Return {"best", "best_threshold", "followed", "followed_threshold"} of the walk's labels."""
    import numpy as np

    from wsss_tf.data.source import loader
    from wsss_tf.evaluation.metrics import cam_metrics
    from wsss_tf.evaluation.threshold_sweep import Sweep
    from wsss_tf.files.run_folder import RunFolder
    from wsss_tf.inference.random_walk import walked_maps
    from wsss_tf.runs.cam_run import open_cam_run
    from wsss_tf.runs.crf_settings import followed_threshold
    from wsss_tf.runs.infer_walk import load_affinity

    compute = load_affinity(run_dir)
    cams = open_cam_run(row.cam_run, _SPLIT.value)
    source = recipe.true_source(_SPLIT.value)
    followed = followed_threshold(cams.background_threshold, IRN_WALK.threshold)
    thresholds = np.union1d(np.arange(2, 99) / 100, followed).astype(np.float32)
    sweep = Sweep(len(source.class_names), thresholds)
    power, steps = row.walk
    load, folder = loader(source), RunFolder(row.cam_run)
    for position, image_id in enumerate(source.ids):
        example = load(position)
        image = example["image"]
        class_ids, maps = folder.read_cams(image_id, image.shape[:2])
        [graph] = compute(image[None])
        strided = folder.read_strided_cams(image_id)
        walked = walked_maps(
            maps, image.shape[:2], graph, power, steps, strided, weigh_start=_WEIGH_START.value
        )
        sweep.update(class_ids, walked, example["mask"])
    metrics = cam_metrics(
        sweep,
        source.class_names,
        thresholds=thresholds,
        background_threshold=float(np.float32(followed)),
    )
    return {
        "best": max(point["miou"] for point in metrics["sweep"]),
        "best_threshold": metrics["best_background_threshold"],
        "followed": metrics["miou"],
        "followed_threshold": metrics["background_threshold"],
    }


def _write_table(rows, output):
    head = [
        "row",
        f"best mIoU, {_SPLIT.value}",
        "at",
        "at the CAMs' threshold",
        "at",
        "seeds",
        "minutes a run",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    cells = [["row", "seed", "best", "best_threshold", "followed", "followed_threshold"]]
    for name, row in rows.items():
        runs = [read_scores(output / f"{name}_{seed}") for seed in _SEEDS.value]
        scores = [run[_key(row)] for run in runs]
        seconds = [run["train_seconds"] for run in runs if run["train_seconds"] is not None]
        text = [row.title]
        for kind in ("best", "followed"):
            at = [score[f"{kind}_threshold"] for score in scores]
            text += [
                _percent([score[kind] for score in scores]),
                " to ".join(f"{threshold:.2f}" for threshold in sorted({min(at), max(at)})),
            ]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "–"
        lines.append("| " + " | ".join([*text, str(len(runs)), minutes]) + " |")
        for seed, score in zip(_SEEDS.value, scores):
            cells.append([name, seed, *(f"{score[key]:.4f}" for key in cells[0][2:])])
    table = "\n".join(lines) + "\n"
    run_folder.write_text(output / "table.md", table)
    with run_folder.atomic_path(output / "table.csv") as temporary, temporary.open("w") as file:
        csv.writer(file).writerows(cells)
    print(table, end="")


def _percent(values):
    """Return the mean, and for several values the standard deviation, as text."""
    percent = [100 * value for value in values]
    spread = f" ± {statistics.stdev(percent):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}"


if __name__ == "__main__":
    command.run(main)
