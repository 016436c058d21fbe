"""What the ablations of mask-predicting networks share: rows of a table, a process for each run.

Not a script of its own: `ablate_cpnet.py`, `ablate_sanet.py` and `ablate_sec.py` give the rows.
"""

import csv
import dataclasses
import pathlib
import statistics

from ablation_runs import add_scores, check_settings, read_scores, run_alone, train_once
from absl import flags

from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.trained_network import load_network


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      title: what it is.
      recipe: gin file that it changes.
      bindings: how.
      paper: (mIoU, pixel accuracy) as the paper states them, percent; None where it does not.
      inputs: further bindings, such as files, that are not what makes the row another one.
    """

    title: str
    recipe: str
    bindings: tuple = ()
    paper: tuple = (None, None)
    inputs: tuple = ()


_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table.")
_ROWS = flags.DEFINE_list("rows", None, "Rows to run, by name; all by default.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of weights, order and augmentation.")
_SPLIT = flags.DEFINE_string("split", "val", "Split to score on.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Overlays on each row's recipe.")
_GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "Settings for every row.")
_POSTPROCESS = flags.DEFINE_bool(
    "postprocess",
    True,
    "Score with the recipe's postprocess (such as a CRF) as well, if it has one.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check and list the runs, and do nothing.")
_RUN = flags.DEFINE_string("run", None, "ROW:SEED; one run only (what the script starts).")


# What is scored, and the head of its column.
_OUTPUTS = {
    "logits": "mIoU",
    "dense_logits": "mIoU of the dense prediction",
    "postprocessed": "mIoU after the postprocess",
}


def run(rows, paper_split=None, more_rows=None, draw=None):
    """Train and score the rows, those runs that are not finished, and write the table.

    Args:
      rows: {name: `Row`}, to choose from with --rows.
      paper_split: what the papers' figures are for, for the table's head; None for a table
        without them.
      more_rows: {name: `Row`} that are run whatever --rows says.
      draw: function of ({name: scores of its runs}, split) to the PNG `table.png`; None for none.

    Raises:
      UserError: a flag is wrong, or a row's settings are.
    """
    names = list(rows) if _ROWS.value is None else _ROWS.value
    if unknown := set(names) - set(rows):
        raise UserError(f"--rows: {sorted(unknown)} unknown; there are {list(rows)}.")
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    names = [*names, *(more_rows or {})]
    rows = {**rows, **(more_rows or {})}
    output = pathlib.Path(_OUTPUT.value)
    if _RUN.value:
        name, seed = _RUN.value.split(":")
        _run_one(rows[name], seed, output / f"{name}_{seed}")
        return
    # Seeds outside, so that an interrupted comparison still has whole rows to compare.
    runs = [(name, seed, output / f"{name}_{seed}") for seed in _SEEDS.value for name in names]
    for name, seed, run_dir in runs:
        _load(rows[name], seed)  # a wrong binding is found here
        check_settings(run_dir, recipe_lib.parsed_config())
    if _DRY_RUN.value:
        for name, _, run_dir in runs:
            settings = " ".join(rows[name].bindings) or "the recipe's"
            print(f"{run_dir}: {'done' if _is_finished(run_dir) else settings}")
        return
    for name, seed, run_dir in runs:
        if not _is_finished(run_dir):
            run_alone(f"{name}:{seed}", run_dir)
    rows = {name: rows[name] for name in names}
    scored = {name: [_scores(output / f"{name}_{seed}") for seed in _SEEDS.value] for name in rows}
    _write_table(rows, scored, output, paper_split)
    if draw is not None:
        with run_folder.atomic_path(output / "table.png") as temporary:
            temporary.write_bytes(draw(scored, _SPLIT.value))


def _load(row, seed):
    bindings = [*row.inputs, *row.bindings, *_GIN_BINDINGS.value, f"Recipe.seed={seed}"]
    return recipe_lib.load([row.recipe, *_GIN_FILE.value], bindings)


def _scores(run_dir):
    """Return a run's "train_seconds" and what `_score` returned for the split."""
    scores = read_scores(run_dir)
    return {"train_seconds": scores.get("train_seconds"), **scores.get(_SPLIT.value, {})}


def _is_finished(run_dir):
    return {"logits", *(["postprocessed"] if _POSTPROCESS.value else [])} <= _scores(run_dir).keys()


def _run_one(row, seed, run_dir):
    recipe = _load(row, seed)
    train_once(recipe, run_dir, recipe_lib.parsed_config())
    add_scores(run_dir, {_SPLIT.value: _score(recipe, run_dir)})


def _score(recipe, run_dir):
    """Return {output: {"miou", "pixel_accuracy"}} over the split, as the recipe infers.

    Outputs are those of `_OUTPUTS` that there are; "postprocessed" is None for a recipe that has
    no postprocess.
    """
    import keras

    from wsss_tf.runs.training_run import make_postprocess, make_predictor
    from wsss_tf.runs.validation import make_mask_validation

    net = load_network(run_dir)
    source = recipe.true_source(_SPLIT.value)

    def predictor(output):
        return make_predictor(recipe, keras.Model(net.input, {"logits": net.output[output]}))

    predictors = {
        name: predictor(name) for name in ("logits", "dense_logits") if name in net.output
    }
    postprocess = make_postprocess(recipe) if _POSTPROCESS.value else None
    if postprocess is not None:
        predictors["postprocessed"] = _after(predictors["logits"], postprocess)
    scores = {
        name: make_mask_validation(source, predict, len(source))()[0]
        for name, predict in predictors.items()
    }
    return {"postprocessed": None, **scores} if _POSTPROCESS.value else scores


def _after(predict, postprocess):
    """Return the function of one picture, [1, H, W, 3], to postprocessed probabilities."""
    import tensorflow as tf

    def predict_and_postprocess(pictures):
        [probabilities] = predict(pictures).numpy()
        return tf.convert_to_tensor(postprocess(probabilities, pictures[0]))[None]

    return predict_and_postprocess


def _write_table(rows, scored, output, paper_split):
    more = [
        output
        for output in _OUTPUTS
        if output != "logits" and any(run.get(output) for runs in scored.values() for run in runs)
    ]
    head = ["row", f"mIoU, {_SPLIT.value}", "pixel accuracy"]
    head += [_OUTPUTS[output] for output in more]
    head += ["seeds", "minutes a run"]
    if paper_split is not None:
        head += [f"paper mIoU ({paper_split})", "paper pixel accuracy"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    cells = [["row", "seed", "output", "miou", "pixel_accuracy", "train_seconds"]]
    for name, row in rows.items():
        runs = scored[name]
        text = [
            row.title,
            _percent(runs, "logits", "miou"),
            _percent(runs, "logits", "pixel_accuracy"),
        ]
        text += [_percent(runs, output, "miou") for output in more]
        seconds = [run["train_seconds"] for run in runs if run["train_seconds"] is not None]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "–"
        text += [str(len(runs)), minutes]
        if paper_split is not None:
            text += ["–" if value is None else f"{value:.2f}" for value in row.paper]
        lines.append("| " + " | ".join(text) + " |")
        for seed, run in zip(_SEEDS.value, runs):
            for kind in _OUTPUTS:
                if run.get(kind):
                    values = [f"{run[kind][key]:.4f}" for key in ("miou", "pixel_accuracy")]
                    time = run["train_seconds"]
                    cells.append([name, seed, kind, *values, "" if time is None else f"{time:.0f}"])
    table = "\n".join(lines) + "\n"
    run_folder.write_text(output / "table.md", table)
    with run_folder.atomic_path(output / "table.csv") as temporary, temporary.open("w") as file:
        csv.writer(file).writerows(cells)
    print(table, end="")


def mean_and_spread(runs, output, key):
    """Return mean and standard deviation (0 of one run) of a score, percent; None for no value.

    Args:
      runs: list of what `scores.json` holds, one a seed.
      output: a key of `_OUTPUTS`.
      key: "miou" or "pixel_accuracy".
    """
    values = [100 * run[output][key] for run in runs if run.get(output)]
    if not values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _percent(runs, output, key):
    """Return the mean, and for several runs the standard deviation, as text; – for no value."""
    found = mean_and_spread(runs, output, key)
    if found is None:
        return "–"
    return f"{found[0]:.2f}" + (f" ± {found[1]:.2f}" if len(runs) > 1 else "")
