"""Train and score what SEAM's Tables 1 to 5 and Figure 6 compare, with equal data and schedule.

  python scripts/ablate_seam.py --output=DIR --tables=1,2,3,4,5,figure6 \\
      --gin_file=gin/data/shapes.gin --gin_file=gin/size/small_shapes.gin

1: parts of SEAM, with and without the dense CRF; 2: CAM, Grad-CAM and Grad-CAM++ on the baseline;
3: transforms; 4: range of random sizes; 5: scales at test time; figure6: mFN and mFP over those.
Everything is scored on --split, multi-scale and with flip, at the best background threshold (with
the CRF, at the best of --crf_powers; which one suits differs between methods, so Table 1 comes with
the scores at each).

A configuration is trained once a seed, in a process of its own, however many tables it is in.
Runs that are finished are kept, interrupted ones go on. DIR gets table<N>.md, .csv and plots, and
tensorboard/ for TensorBoard's HParams page. --dry_run says what is left to do, and how long it
takes by the time of earlier runs.
"""

import csv
import json
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import seam_tables
from ablation_runs import add_scores, check_settings, read_scores, run_alone, train_once
from absl import flags
from seam_tables import ROWS

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.trained_network import load_network

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the tables.")
_TABLES = flags.DEFINE_list("tables", ["1"], f"Which: {', '.join(seam_tables.NAMES)}.")
_ROWS = flags.DEFINE_list("rows", None, "Only these configurations; default: what tables need.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of weights, order and augmentation.")
_SPLIT = flags.DEFINE_string("split", "val", "Split to score on.")
_SCALES = flags.DEFINE_list("scales", ["0.5", "1", "1.5", "2"], "Scales at test time.")
_RESCALE = flags.DEFINE_float("rescale", 0.3, "Table 3: factor on height and width.")
_ROTATION = flags.DEFINE_float("rotation", 20, "Table 3: largest angle, degrees.")
_TRANSLATION = flags.DEFINE_float(
    "translation", 15, "Table 3: largest shift, pixels (of 448 in the paper)."
)
_RATE = flags.DEFINE_float(
    "rate", 0.5, "Table 4: SEAM's rescale, and how far down its wide range goes."
)
_CRF = flags.DEFINE_bool("crf", True, "Table 1: score with the dense CRF too, if it is installed.")
_CRF_POWERS = flags.DEFINE_list("crf_powers", ["4", "24"], "Background powers before the CRF.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Overlays on gin/seam.gin.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Settings for every run, such as Recipe.epochs=2."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what there is to do.")
_RUN = flags.DEFINE_string("run", None, "CONFIGURATION:SEED; one run (what the script starts).")


def main():
    """Run the script."""
    tables, plan, same = _plan()
    output = pathlib.Path(_OUTPUT.value)
    for seed in _SEEDS.value:
        for name in plan:
            check_settings(output / f"{name}_{seed}", _settings(name, seed))
    if _RUN.value:
        name, seed = _RUN.value.split(":")
        _run(output / f"{name}_{seed}", name, seed, plan[name])
        return
    if _DRY_RUN.value:
        _say_what_is_left(output, plan)
        return
    # Seeds outside, so that an interrupted comparison still has whole rows to compare.
    for seed in _SEEDS.value:
        for name, evaluations in plan.items():
            run_dir = output / f"{name}_{seed}"
            if _left(run_dir, evaluations):
                run_alone(f"{name}:{seed}", run_dir)
    _write_tables(output, tables, same)


# === What there is to do ===


def _plan():
    """Return ({name: table}, {configuration: evaluations}, {configuration: the one it equals})."""
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    unknown = set(_TABLES.value) - set(seam_tables.NAMES)
    if unknown:
        raise UserError(f"--tables: {sorted(unknown)} unknown; there are {seam_tables.NAMES}.")
    command.parse_scales(_SCALES.value)
    _crf_powers()
    tables = {name: seam_tables.table(name, _SCALES.value, _CRF.value) for name in _TABLES.value}
    if _ROWS.value is not None:
        known = [*seam_tables.needed(tables.values())]
        unknown = set(_ROWS.value) - set(known)
        if unknown:
            raise UserError(f"--rows: {sorted(unknown)} unknown; these tables have {known}.")
        tables = {name: seam_tables.select(one, _ROWS.value) for name, one in tables.items()}
    needed = seam_tables.needed(tables.values())
    if "1" in tables:  # both outputs of every network are compared there
        for name in (name for name in ROWS if name in needed):
            for evaluation in ("cam", "cam_rv"):
                if evaluation not in needed[name]:
                    needed[name].append(evaluation)
    # Overlays may make two configurations the same.
    texts, plan, same = {}, {}, {}
    for name, evaluations in needed.items():
        original = texts.setdefault(_settings(name, "0"), name)
        same[name] = original
        wanted = plan.setdefault(original, [])
        wanted += [evaluation for evaluation in evaluations if evaluation not in wanted]
    return tables, plan, same


def _load_recipe(name, seed):
    files = ["gin/seam.gin", *_GIN_FILE.value]
    wide = 0
    if any("wide_min" in text for text in seam_tables.CONFIGURATIONS[name]):
        import gin

        recipe_lib.load(files, _GIN_BINDINGS.value)
        wide = round(_RATE.value * gin.query_parameter("seam_augmentation.min_long_side"))
    own = seam_tables.bindings(
        name,
        rescale=_RESCALE.value,
        rotation=_ROTATION.value,
        translation=_TRANSLATION.value,
        rate=_RATE.value,
        wide_min_long_side=wide,
    )
    return recipe_lib.load(files, [*_GIN_BINDINGS.value, *own, f"Recipe.seed={seed}"])


def _settings(name, seed):
    """Return all that is set for a run, as text; equal text is an equal run."""
    _load_recipe(name, seed)
    return recipe_lib.parsed_config()


def _left(run_dir, evaluations):
    """Return what is left of a run: "training" and names of evaluations.

    An evaluation on another split, at other scales or with other CRF powers does not count.
    """
    scores = read_scores(run_dir)

    def is_there(evaluation):
        return _scored_on(evaluation).items() <= scores.get(evaluation, {}).items()

    left = [] if "train_seconds" in scores else ["training"]
    return left + [evaluation for evaluation in evaluations if not is_there(evaluation)]


def _scored_on(evaluation):
    """Return what a score depends on besides the run, as scores.json holds it."""
    _, scale, with_crf = seam_tables.parse_evaluation(evaluation)
    scales = command.parse_scales(_SCALES.value) if scale is None else [float(scale)]
    return {
        "split": _SPLIT.value,
        "scales": list(scales),
        **({"crf_powers": list(_crf_powers())} if with_crf else {}),
    }


def _crf_powers():
    return command.parse_positive("crf_powers", _CRF_POWERS.value, "4,24")


def _say_what_is_left(output, plan):
    known = {}
    for path in sorted(output.glob("*_*/scores.json")):
        name, _, seed = path.parent.name.rpartition("_")
        if name in seam_tables.CONFIGURATIONS:
            known[name, seed] = read_scores(path.parent)
    total, is_whole = 0.0, True
    for seed in _SEEDS.value:
        for name, evaluations in plan.items():
            left = _left(output / f"{name}_{seed}", evaluations)
            scoring = [step for step in left if step != "training"]
            training, scored = seam_tables.expected_seconds(name, scoring, known)
            parts = ([training] if "training" in left else []) + ([scored] if scoring else [])
            is_whole &= None not in parts
            total += sum(seconds for seconds in parts if seconds is not None)
            time_text = "time not known" if None in parts else f"about {sum(parts) / 60:.1f} min"
            state = f"to do: {', '.join(left)} ({time_text})" if left else "finished"
            print(f"{name}_{seed}: {state}")
    more = "" if is_whole else ", and what nobody has measured here yet"
    print(f"in all about {total / 60:.1f} min{more}.")


# === One run ===


def _run(run_dir, name, seed, evaluations):
    recipe = _load_recipe(name, seed)
    settings = recipe_lib.parsed_config()
    source = recipe.source(split=_SPLIT.value)
    if not source.has_masks:
        raise UserError(f"--split={_SPLIT.value}: there are no masks to score against.")
    train_once(recipe, run_dir, settings)
    net = load_network(run_dir)
    for evaluation in _left(run_dir, evaluations):
        start = time.time()
        scores = score(net, source, evaluation, command.parse_scales(_SCALES.value), _crf_powers())
        scores |= {"seconds": time.time() - start, **_scored_on(evaluation)}
        add_scores(run_dir, {evaluation: scores})
    _write_hparams(run_dir, name, seed, settings)


def score(net, source, evaluation, scales, crf_powers):
    """Score a network on a source.

    Args:
      net: network with SEAM's outputs.
      source: `data.source.Source` with masks.
      evaluation: as in `seam_tables`.
      scales: the scales that "all" are.
      crf_powers: background powers to try before the CRF.

    Returns:
      {"miou", "threshold", "mfn", "mfp"} at the best threshold, and the whole "sweep"; with the
      CRF {"miou", "threshold"}, the latter being the best background power, and "sweep" of all.
    """
    import numpy as np
    from tqdm import tqdm

    from wsss_tf.data.source import loader
    from wsss_tf.evaluation.confusion import Confusion, mean_iou
    from wsss_tf.evaluation.score import score_maps
    from wsss_tf.inference.cam_crf import crf_label
    from wsss_tf.inference.grad_cam import METHODS, GradCam
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam

    method, scale, with_crf = seam_tables.parse_evaluation(evaluation)
    scales = scales if scale is None else (float(scale),)
    compute = (GradCam if method in METHODS else MultiScaleCam)(net, method, scales)
    names, load = source.class_names, loader(source)

    def maps():
        for i in tqdm(range(len(source)), desc=f"scoring {evaluation}", disable=None):
            example = load(i)
            present = np.flatnonzero(source.labels[i])
            outputs = compute(example["image"][None], source.labels[i][None])
            cams = outputs["cams"].numpy()[0].transpose(2, 0, 1)[present]
            yield source.ids[i], example, present + 1, cams

    if with_crf:
        # All powers in one pass: the CAMs are computed once.
        confusions = {power: Confusion(len(names)) for power in crf_powers}
        for _, example, class_ids, cams in maps():
            for power, confusion in confusions.items():
                label = crf_label(class_ids, cams, example["image"], power)
                confusion.update(example["mask"], label)
        points = [
            {"threshold": power, "miou": float(mean_iou(confusion.matrix))}
            for power, confusion in confusions.items()
        ]
    else:
        metrics = score_maps(
            ((image_id, *cams, example["mask"]) for image_id, example, *cams in maps()), names
        )
        if metrics is None:
            raise UserError(f"every mask of {source.split!r} is all 255 (ignored).")
        points = [
            {key: point[key] for key in ("threshold", "miou", "mfn", "mfp")}
            for point in metrics["sweep"]
        ]
    return {**max(points, key=lambda point: point["miou"]), "sweep": points}


def _write_hparams(run_dir, name, seed, settings):
    """Write what TensorBoard's HParams page compares: settings and scores of this run."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    chosen = re.findall(
        r"^(?:\w+\.)?((?:seam_step|seam_augmentation|Recipe)\.\w+) = ([-\d.e]+|True|False)$",
        settings,
        re.MULTILINE,
    )
    values = {key: json.loads(text.lower()) for key, text in chosen}
    folder = run_dir.parent / "tensorboard" / run_dir.name
    shutil.rmtree(folder, ignore_errors=True)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        hp.hparams({"configuration": name, **values}, trial_id=run_dir.name)
        for evaluation, scores in read_scores(run_dir).items():
            if isinstance(scores, dict):
                tf.summary.scalar(f"miou/{evaluation}", scores["miou"], step=0)
    writer.close()


# === Tables ===


def _write_tables(output, tables, same):
    runs = {}
    for seed in _SEEDS.value:
        for name, original in same.items():
            runs[name, seed] = read_scores(output / f"{original}_{seed}")
    for name, one in tables.items():
        stem = name if name == "figure6" else f"table{name}"
        text = f"{one.title}\n\n{seam_tables.markdown(one, runs, _SPLIT.value)}"
        if name == "1":
            text += "\n" + seam_tables.outputs_markdown(runs, _SPLIT.value, list(same))
            text += seam_tables.crf_markdown(one, runs, _SPLIT.value)
            _write_curves(output / f"{stem}.png", one, runs)
        if name == "figure6":
            with run_folder.atomic_path(output / f"{stem}.png") as temporary:
                temporary.write_bytes(seam_tables.figure6_png(one, runs))
        run_folder.write_text(output / f"{stem}.md", text)
        with run_folder.atomic_path(output / f"{stem}.csv") as path, path.open("w") as file:
            csv.writer(file).writerows(seam_tables.csv_rows(one, runs))
        print(f"Table {name}: {text}" if name != "figure6" else f"Figure 6: {text}")


def _write_curves(path, one, runs):
    """Draw mIoU, mFN and mFP over the threshold, of the first seed's run of each row."""
    from wsss_tf.evaluation.plots import curves_png

    curves = {}
    for cell in one.cells:
        run = runs[cell.configuration, _SEEDS.value[0]].get(cell.evaluation, {})
        if "sweep" in run and "+crf" not in cell.evaluation:
            curves[ROWS[cell.configuration][0]] = run["sweep"]
    if curves:
        with run_folder.atomic_path(path) as temporary:
            temporary.write_bytes(curves_png(curves))


if __name__ == "__main__":
    command.run(main)
