"""The scores of a pipeline's stages, and its report."""

import json

from PIL import Image

from wsss_tf.data.source import loader
from wsss_tf.evaluation import run_cams
from wsss_tf.evaluation.run_masks import score_masks
from wsss_tf.evaluation.scored_run import positions_to_score, spread
from wsss_tf.evaluation.stages_report import Shown, stages_page
from wsss_tf.files import images, run_folder

_WALK = "random walk"


def _label_folders(plan, run_dir):
    """Return {what they are: folder} of the labels that the stages have made."""
    folders = {
        f"dense CRF, background power {power:.3g}": run_dir / "cam" / f"{name}_labels"
        for name, power in zip(run_folder.CRF_NAMES, plan.crf_powers)
    }
    return {**folders, _WALK: run_dir / "affinity" / "pseudo_labels"}


def score_labels(plan, run_dir):
    """Write label_scores.json: scores of CAMs and labels, or why there are none.

    Also the files of `evaluation.run_cams.evaluate_run` into the CAMs' run.

    Args:
      plan: `plan.Plan`; of its split `score` those images are scored that have labels.
      run_dir: folder of all the stages, a `pathlib.Path`.
    """
    path, source = run_dir / "label_scores.json", plan.score
    if not source.has_masks:
        why = f"Split {source.split!r} of {source.name} has no masks to score labels against."
        run_folder.write_json(path, {"unscored": why})
        return
    load = loader(source)
    positions, skipped = positions_to_score(run_dir / "cam", source)
    cams = run_cams.evaluate_run(source, load, run_dir / "cam")
    threshold = cams.pop("best_background_threshold")
    del cams["sweep"], cams["background_threshold"]
    scores = {f"CAM, best background threshold {threshold:g}": cams}
    for what, folder in _label_folders(plan, run_dir).items():
        scores[what] = score_masks(source, load, folder, positions, skipped)
    run_folder.write_json(path, {"scores": scores})


# === The table ===


def _rows(plan, run_dir):
    """Return the rows of the table, and sentences to be said below it."""
    labels = json.loads((run_dir / "label_scores.json").read_text(encoding="utf-8"))
    notes = [labels["unscored"]] if "unscored" in labels else []
    rows = [_row(what, metrics) for what, metrics in labels.get("scores", {}).items()]
    mious = []
    for name, on in (("segmentation", "pseudo labels"), ("full_supervision", "masks")):
        if name == "full_supervision" and not plan.full_supervision:
            continue
        if plan.val is None:
            notes.append("The recipe has no validation split to score the network on.")
            break
        if not plan.val.has_masks:
            split, data = plan.val.split, plan.val.name
            notes.append(f"Split {split!r} of {data} has no masks to score the network against.")
            break
        path = run_dir / name / f"metrics_{plan.val.split}.json"
        metrics = json.loads(path.read_text(encoding="utf-8"))
        rows.append(_row(f"network trained on {on}", metrics))
        mious.append(metrics["miou"])
    if len(mious) == 2 and mious[1] > 0:
        notes.append(
            f"Trained on pseudo labels the network reaches {100 * mious[0] / mious[1]:.1f} % of "
            "the mean IoU that it has trained on masks."
        )
    return rows, notes


def _row(what, metrics):
    return {
        "what": what,
        "split": metrics["split"],
        "images": metrics["num_images"],
        "miou": metrics["miou"],
        "pixel_accuracy": metrics["pixel_accuracy"],
        "iou": metrics["iou"],
    }


def table(rows, notes):
    """Return rows and notes as Markdown whose columns are aligned."""
    cells = [("", "split", "images", "mIoU %")]
    cells += [
        (row["what"], row["split"], str(row["images"]), f"{100 * row['miou']:.2f}") for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        )
        + " |"
        for line in cells
    ]
    rule = [("-" * width) if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    parts = ["\n".join(lines)] if rows else []
    return "\n\n".join([*parts, *notes]) + "\n"


# === The report ===


def _shown_positions(plan, run_dir):
    positions, _ = positions_to_score(run_dir / "cam", plan.score)
    return spread(positions, plan.report_images)


def write_pictures(plan, run_dir):
    """Write the pictures that the report shows, for the network to be run on them."""
    load = loader(plan.score)
    for position in _shown_positions(plan, run_dir):
        path = run_dir / "shown" / "pictures" / f"{plan.score.ids[position]}.png"
        with run_folder.atomic_path(path) as temporary:
            Image.fromarray(load(position)["image"]).save(temporary)


def write_results(plan, run_dir):
    """Write results.json, results.md and report.html."""
    rows, notes = _rows(plan, run_dir)
    load = loader(plan.score)
    page = stages_page(
        title=f"{run_dir.resolve().name}: from image labels to masks on {plan.train.name}",
        rows=rows,
        notes=notes,
        class_names=plan.score.class_names,
        shown=(_shown(plan, load, i, run_dir) for i in _shown_positions(plan, run_dir)),
        about_shown=(
            f"Spread evenly over the split {plan.score.split!r}, not chosen. The network was "
            "trained on the pseudo labels of these very pictures."
        ),
    )
    run_folder.write_text(run_dir / "report.html", page)
    run_folder.write_text(run_dir / "results.md", table(rows, notes))
    run_folder.write_json(run_dir / "results.json", {"rows": rows, "notes": notes})


def _shown(plan, load, position, run_dir):
    image_id, example = plan.score.ids[position], load(position)
    class_ids, cams = run_folder.load_cams(run_dir / "cam" / "cams", image_id)
    folders = {
        **_label_folders(plan, run_dir),
        "trained network": run_dir / "shown" / "predictions",
    }
    paths = {what: folder / f"{image_id}.png" for what, folder in folders.items()}
    labels = {what: images.load_mask(path) for what, path in paths.items()}
    if "mask" in example:
        labels["mask"] = example["mask"]
    return Shown(image_id, example["image"], class_ids, cams, labels)
