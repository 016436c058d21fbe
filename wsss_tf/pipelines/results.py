"""The scores of a pipeline's stages, and its report."""

import numpy as np
from PIL import Image

from wsss_tf.data.source import loader
from wsss_tf.evaluation import explorer, run_cams
from wsss_tf.evaluation.run_masks import score_masks
from wsss_tf.evaluation.scored_run import positions_to_score, spread
from wsss_tf.evaluation.stages_report import Shown, stages_page
from wsss_tf.files import images, run_folder
from wsss_tf.files.calibration import load_calibration
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.records import minutes_text, read_record

LABEL_SCORES = "label_scores"  # the stage, and the name of its file
# What there is in a pipeline's folder beside its run folders.
SHOWN, PICTURES = "shown", "pictures"
RESULTS, TABLE, PAGE = "results.json", "results.md", "report.html"


def _all_maps(context):
    """Return the `context.Maps` of the pipeline, in the order they are written."""
    maps = [one.maps for one in context.planned.values() if one.maps is not None]
    return list({one.run: one for one in maps}.values())  # with a chosen threshold


def _maps(context):
    """Return those that the report shows, which are written last; None if there are none."""
    maps = _all_maps(context)
    return maps[-1] if maps else None


def _folders(context, kind):
    """Return {what they are: folder} of all stages; `kind` is "scored" or "shown"."""
    return {
        what: folder
        for one in context.planned.values()
        for what, folder in getattr(one, kind).items()
    }


def score_labels(context):
    """Write label_scores.json: scores of all CAMs and labels, or why there are none.

    Also the files of `evaluation.run_cams.evaluate_run` into the CAMs' runs.

    Args:
      context: `context.Context`; of its split `score` those images are scored that have labels.
    """
    path, source = context.run_dir / f"{LABEL_SCORES}.json", context.score
    if not source.has_masks:
        why = f"Split {source.split!r} of {source.name} has no masks to score labels against."
        run_folder.write_json(path, {"unscored": why})
        return
    load, scores = loader(source), {}
    positions, skipped = positions_to_score(context.first_run, source)
    for maps in _all_maps(context):
        cams = run_cams.evaluate_run(source, load, maps.run)
        threshold = cams.pop("best_background_threshold")
        del cams["sweep"], cams["background_threshold"]
        scores[f"{maps.what}, best background threshold {threshold:g}"] = cams
    for what, folder in _folders(context, "scored").items():
        scores[what] = score_masks(source, load, folder, positions, skipped)
    run_folder.write_json(path, {"scores": scores})


# === The tables ===


def _rows(context, reference):
    """Return the rows of the table of scores, and sentences to be said below it."""
    rows, notes, mious = [], [], {}
    if LABEL_SCORES in context.planned:
        path = context.run_dir / f"{LABEL_SCORES}.json"
        labels = run_folder.read_json(path)
        rows += [_row(what, metrics) for what, metrics in labels.get("scores", {}).items()]
        notes += [labels["unscored"]] if "unscored" in labels else []
    for maps in _all_maps(context):
        chosen = load_calibration(maps.run) if maps.background_threshold is None else None
        if chosen is not None:
            notes.append(
                f"The background threshold of the {maps.what} maps, "
                f"{chosen.background_threshold:g}, was chosen by {chosen.chosen_by}."
            )
    for name, one in context.planned.items():
        if one.scores is None:
            continue
        if one.scores.path is None:
            notes.append(one.scores.note)
            continue
        metrics = run_folder.read_json(one.scores.path)
        rows.append(_row(one.scores.what, metrics))
        mious[name] = metrics["miou"]
    if reference in mious and mious[reference] > 0 and len(mious) > 1:
        first = next(iter(mious))
        notes.append(
            f"The {context.planned[first].scores.what} reaches "
            f"{100 * mious[first] / mious[reference]:.1f} % of the mean IoU of the "
            f"{context.planned[reference].scores.what}."
        )
    return rows, list(dict.fromkeys(notes))  # two networks may have the same to say


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
    parts = [_markdown(cells, left=2)] if rows else []
    return "\n\n".join([*parts, *notes]) + "\n"


def _markdown(lines, left):
    """Return lines of cells, the head first, as a table; the first `left` columns are words."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        "| "
        + " | ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        )
        + " |"
        for line in lines
    ]
    rule = [
        ("-" * width) if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    text.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(text)


def _minutes(context):
    """Return (stage, minutes as text) of the stages so far and of all together, and as numbers.

    The stage that asks is not among them: it has not ended.
    """
    records = {stage.name: read_record(context.run_dir, stage.name) for stage in context.stages}
    records = {name: one for name, one in records.items() if one and one["state"] == "finished"}
    whole = {
        "seconds": sum(one.get("seconds", 0) for one in records.values()),
        "seconds_missing": any(
            "seconds" not in one or one.get("seconds_missing") for one in records.values()
        ),
    }
    texts = [(name, minutes_text(one)) for name, one in [*records.items(), ("all", whole)]]
    numbers = {
        name: round(one["seconds"] / 60, 2) if "seconds" in one else None
        for name, one in records.items()
    }
    return texts, numbers


# === The report ===


def _shown_positions(context, count):
    positions, _ = positions_to_score(context.first_run, context.score)
    return spread(positions, count)


def write_pictures(context, count):
    """Write `count` pictures that the report shows, for the network to be run on them."""
    load = loader(context.score)
    for position in _shown_positions(context, count):
        path = context.run_dir / SHOWN / PICTURES / f"{context.score.ids[position]}.png"
        with run_folder.atomic_path(path) as temporary:
            Image.fromarray(load(position)["image"]).save(temporary)


def write_results(context, count, reference):
    """Write results.json, results.md and report.html.

    Args:
      context: `context.Context`.
      count: how many pictures the report shows.
      reference: name of the stage whose scores the first network's are compared with; None for
        none.
    """
    run_dir, source = context.run_dir, context.score
    rows, notes = _rows(context, reference)
    minutes, minutes_of = _minutes(context)
    maps, load = _maps(context), loader(source)
    page = stages_page(
        title=f"{run_dir.resolve().name}: from image labels to masks on {context.train.name}",
        rows=rows,
        notes=notes,
        minutes=minutes,
        class_names=source.class_names,
        shown=(_shown(context, maps, load, i) for i in _shown_positions(context, count)),
        about_shown=(
            f"Spread evenly over the split {source.split!r}, not chosen. The network was trained "
            "on these very pictures."
        ),
        cam_metrics=None if maps is None else _cam_metrics(maps, source.split),
    )
    text = table(rows, notes) + "\n" + _markdown([("stage", "minutes"), *minutes], left=1) + "\n"
    run_folder.write_text(run_dir / PAGE, page)
    run_folder.write_text(run_dir / TABLE, text)
    results = {"rows": rows, "notes": notes, "minutes": minutes_of}
    run_folder.write_json(run_dir / RESULTS, results)


def _cam_metrics(maps, split):
    """Return what the report's slider is made from: the scores of `score_labels`, if it has any."""
    path = RunFolder(maps.run).metrics(split)
    if path.is_file():
        metrics = run_folder.read_json(path)
        if "sweep" in metrics:
            return metrics
    threshold = maps.background_threshold
    if threshold is None:
        threshold = load_calibration(maps.run).background_threshold
    return explorer.unscored_metrics(threshold)


def _shown(context, maps, load, position):
    image_id, example = context.score.ids[position], load(position)
    height, width = example["image"].shape[:2]

    def read(folder):
        mask = images.load_mask(run_folder.mask_path(folder, image_id))
        if mask.shape == (height, width):
            return mask
        return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))

    class_ids = cams = None
    if maps is not None:
        class_ids, cams = RunFolder(maps.run).read_cams(image_id)
    return Shown(
        image_id=image_id,
        image=example["image"],
        labels={what: read(folder) for what, folder in _folders(context, "shown").items()},
        prediction=read(RunFolder(context.run_dir / SHOWN).predictions),
        mask=example.get("mask"),
        class_ids=class_ids,
        cams=cams,
    )
