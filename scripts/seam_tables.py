"""What SEAM's Tables 1 to 5 and Figure 6 consist of, and how scores become those tables.

A *configuration* is trained once a seed, whatever number of tables it is in. An *evaluation* is a
way to score its network: the network output or method, "@" a single scale, "+crf" for the dense
CRF; such as "cam", "cam_rv@0.5", "gradcam++", "cam_rv+crf". Nothing here needs TensorFlow.
"""

import dataclasses
import io
import statistics

# Configuration: (what it is, gin bindings, the paper's mIoU on VOC train).
ROWS = {
    "cam": ("CAM baseline", ["seam_step.siamese=False"], 47.43),
    "er": ("+ ER", ["seam_step.use_pcm=False"], 49.90),
    "pcm": ("+ ER + PCM", ["seam_step.hard_pixel_ratio=1.0"], 55.08),
    "seam": ("+ ER + PCM + hard pixels (SEAM)", [], 55.41),
}


def _transform(rescale="1.0", flip=False, rotation="0.0", translation="0.0"):
    # All four, whatever those of the recipe are.
    values = {"rescale": rescale, "flip": flip, "rotation": rotation, "translation": translation}
    return [f"seam_step.{name}={value}" for name, value in values.items()]


# The transforms of Table 3, and the wider range of random sizes of Table 4.
_TRANSFORMS = {
    "rescale": ("rescale", _transform("{rescale}")),
    "flip": ("flip", _transform(flip=True)),
    "rotation": ("rotation", _transform(rotation="{rotation}")),
    "translation": ("translation", _transform(translation="{translation}")),
    "rescale_flip": ("rescale, flip", _transform("{rescale}", flip=True)),
    "rescale_rotation": ("rescale, rotation", _transform("{rescale}", rotation="{rotation}")),
    "rescale_translation": (
        "rescale, translation",
        _transform("{rescale}", translation="{translation}"),
    ),
    "all_transforms": ("all four", _transform("{rescale}", True, "{rotation}", "{translation}")),
}
_WIDE = "seam_augmentation.min_long_side={wide_min_long_side}"
_OTHERS = {
    **_TRANSFORMS,
    "cam_wide": ("CAM baseline, wide range", ["seam_step.siamese=False", _WIDE]),
    "seam_rate": ("SEAM, Table 4's rescale", _transform("{rate}")),
    "seam_wide": ("SEAM, Table 4's rescale, wide range", [*_transform("{rate}"), _WIDE]),
}
CONFIGURATIONS = {name: row[1] for name, row in ROWS.items()} | {
    name: bindings for name, (_, bindings) in _OTHERS.items()
}
NAMES = ("1", "2", "3", "4", "5", "figure6")
_ALL_SCALES = "all"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
      labels: what stands before it, one a column.
      configuration, evaluation: where it comes from.
      paper: the paper's mIoU in percent on VOC train; None where its text does not state it.
    """

    labels: tuple
    configuration: str
    evaluation: str
    paper: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: title, names of the label columns, and cells in the paper's order.

    If `is_pivoted`, the last label is not a column but chooses one.
    """

    title: str
    columns: tuple
    cells: tuple
    is_pivoted: bool = False


def table(name, scales, with_crf=True):
    """Return a `Table`.

    Args:
      name: one of `NAMES`.
      scales: strings, factors on the picture's size at test time.
      with_crf: False leaves the rows with the dense CRF out of Table 1.
    """
    mark = {True: "x", False: ""}
    if name == "1":
        cells, crf_paper = [], {"cam": 52.40, "seam": 56.83}
        for number, (row, (_, _, paper)) in enumerate(ROWS.items()):
            output = "cam_rv" if row in ("pcm", "seam") else "cam"
            for crf in (False, True)[: 1 + with_crf]:
                cells.append(
                    Cell(
                        (*(mark[number >= i] for i in (1, 2, 3)), mark[crf]),
                        row,
                        output + "+crf" * crf,
                        crf_paper.get(row) if crf else paper,
                    )
                )
        return Table("Parts of SEAM", ("ER", "PCM", "hard pixels", "CRF"), tuple(cells))
    if name == "2":
        titles = {"cam": "CAM", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}
        cells = [
            Cell((title,), "cam", method, 47.43 if method == "cam" else None)
            for method, title in titles.items()
        ]
        return Table("Methods on the baseline network", ("method",), tuple(cells))
    if name == "3":
        cells = [
            Cell((title,), row, "cam_rv", 55.41 if row == "rescale" else None)
            for row, (title, _) in _TRANSFORMS.items()
        ]
        return Table("The transform A of the second branch", ("transform",), tuple(cells))
    if name == "4":
        cells = (
            Cell(("CAM baseline", "recipe's"), "cam", "cam", 47.43),
            Cell(("CAM baseline", "wide"), "cam_wide", "cam"),
            Cell(("SEAM", "recipe's"), "seam_rate", "cam_rv"),
            Cell(("SEAM", "wide"), "seam_wide", "cam_rv"),
        )
        return Table("Range of random sizes in training", ("network", "range"), cells)
    cells = []
    for scale in (*scales, _ALL_SCALES):
        suffix, is_all = ("", True) if scale == _ALL_SCALES else (f"@{scale}", False)
        for row, output in (("cam", "cam"), ("seam", "cam_rv")):
            label = "CAM baseline" if row == "cam" else "SEAM"
            paper = ROWS[row][2] if is_all else None
            cells.append(Cell((scale, label), row, output + suffix, paper))
    return Table("Scales at test time", ("scale", "network"), tuple(cells), is_pivoted=True)


def bindings(configuration, **values):
    """Return the gin bindings of a configuration with its numbers filled in."""
    return [text.format(**values) for text in CONFIGURATIONS[configuration]]


def needed(tables):
    """Return {configuration: evaluations} that tables need, in order; each but once."""
    plan = {}
    for cell in (cell for one in tables for cell in one.cells):
        wanted = plan.setdefault(cell.configuration, [])
        if cell.evaluation not in wanted:
            wanted.append(cell.evaluation)
    return plan


def select(one, rows):
    """Return a table with the cells of some configurations only."""
    cells = tuple(cell for cell in one.cells if cell.configuration in rows)
    return dataclasses.replace(one, cells=cells)


def parse_evaluation(name):
    """Return (output or method, scale string or None for all, whether with the CRF)."""
    with_crf = name.endswith("+crf")
    method, _, scale = name.removesuffix("+crf").partition("@")
    return method, scale or None, with_crf


# === From scores to text ===


def percent(values):
    """Return the mean in percent, and the spread over several seeds, as text."""
    values = [100 * value for value in values if value is not None]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def values(scores, cell, key="miou"):
    """Return a cell's value for every seed that has it.

    Args:
      scores: {(configuration, seed): {evaluation: {"miou", ..}}}.
    """
    found = []
    for (configuration, _), run in scores.items():
        if configuration == cell.configuration and run.get(cell.evaluation):
            found.append(run[cell.evaluation].get(key))
    return found


def _paper(cell):
    return "-" if cell.paper is None else f"{cell.paper:.2f}"


def markdown(one, scores, split):
    """Return a table as Markdown: mIoU in percent, mean ± standard deviation over seeds."""
    if one.is_pivoted:
        header = list(one.columns[:-1])
        groups = dict.fromkeys(cell.labels[-1] for cell in one.cells)
        for group in groups:
            header += [f"{group}, {split}", f"paper, {group} (VOC train)"]
        lines = {}
        for cell in one.cells:
            line = lines.setdefault(cell.labels[:-1], {})
            line[cell.labels[-1]] = [percent(values(scores, cell)), _paper(cell)]
        body = [
            [*labels, *(text for group in groups for text in line.get(group, ["-", "-"]))]
            for labels, line in lines.items()
        ]
    else:
        header = [*one.columns, f"mIoU, {split}", "paper (VOC train)", "seeds"]
        body = [
            [
                *cell.labels,
                percent(values(scores, cell)),
                _paper(cell),
                str(len(values(scores, cell))),
            ]
            for cell in one.cells
        ]
    return _markdown(header, body)


def outputs_markdown(scores, split, rows):
    """Return the runs of Table 1 with both outputs of the network and the time they took."""
    header = ["row", f"raw CAM, {split}", f"through the PCM, {split}", "seeds", "minutes a run"]
    body = []
    for row in (row for row in ROWS if row in rows):
        runs = [run for (name, _), run in scores.items() if name == row]
        seconds = [run["train_seconds"] for run in runs if run.get("train_seconds")]
        both = [percent(values(scores, Cell((), row, output))) for output in ("cam", "cam_rv")]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else "-"
        body.append([ROWS[row][0], *both, str(len(runs)), minutes])
    return _markdown(header, body)


def crf_markdown(one, scores, split):
    """Return Table 1's scores with the CRF at each background power, or "" if there are none."""
    lines, powers = [], set()
    for cell in (cell for cell in one.cells if parse_evaluation(cell.evaluation)[2]):
        found = values(scores, cell, "sweep")
        by_power = {}
        for point in (point for sweep in found for point in sweep):
            by_power.setdefault(point["threshold"], []).append(point["miou"])
        powers |= by_power.keys()
        lines.append((ROWS[cell.configuration][0], by_power))
    if not powers:
        return ""
    order = sorted(powers)
    header = [f"with the CRF, {split}", *(f"power {power:g}" for power in order)]
    body = [[title, *(percent(known.get(power, [])) for power in order)] for title, known in lines]
    return "\n" + _markdown(header, body)


def _markdown(header, body):
    lines = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def csv_rows(one, scores):
    """Return a table's numbers one a line: every cell and seed, with a header; mIoU in 0..1."""
    keys = ("miou", "threshold", "mfn", "mfp")
    lines = [[*one.columns, "configuration", "evaluation", "seed", *keys, "paper_percent"]]
    for cell in one.cells:
        for (configuration, seed), run in scores.items():
            if configuration == cell.configuration and run.get(cell.evaluation):
                found = [run[cell.evaluation].get(key) for key in keys]
                numbers = ["" if value is None else f"{value:.4f}" for value in found]
                paper = "" if cell.paper is None else f"{cell.paper:.2f}"
                name = [configuration, cell.evaluation, seed]
                lines.append([*cell.labels, *name, *numbers, paper])
    return lines


def figure6_png(one, scores):
    """Draw mFN and mFP over the scales of Table 5's cells, a line a network.

    Returns:
      bytes: a PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    names = {"mfn": "mFN, under-activation", "mfp": "mFP, over-activation"}
    for axes, (key, title) in zip(figure.subplots(1, 2), names.items()):
        for group, colour in zip(dict.fromkeys(c.labels[-1] for c in one.cells), ("C1", "C0")):
            cells = [c for c in one.cells if c.labels[-1] == group and "@" in c.evaluation]
            points = []
            for cell in cells:
                found = [value for value in values(scores, cell, key) if value is not None]
                if found:
                    spread = statistics.stdev(found) if len(found) > 1 else 0
                    points.append((float(cell.labels[0]), statistics.mean(found), spread))
            if points:
                x, y, error = zip(*points)
                axes.errorbar(x, y, error, fmt="o-", color=colour, capsize=3, label=group)
        axes.set(title=f"{title} (lower is better)", xlabel="scale of the picture", ylim=(0, None))
        scales = sorted({x for line in axes.containers for x in line.lines[0].get_xdata()})
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# === What is left to do ===


def expected_seconds(configuration, evaluations, known):
    """Return the expected (training, scoring) seconds of a run; None for what nobody measured.

    Args:
      configuration: to be trained.
      evaluations: still to be done.
      known: {(configuration, seed): scores} of runs that have at least been trained; their
        "train_seconds" and each evaluation's "seconds" count. The same configuration is the
        best guide, else those that are like it in having one branch or two, else any.
    """

    def is_single(name):
        return "seam_step.siamese=False" in CONFIGURATIONS[name]

    def mean(get):
        alike = is_single(configuration)
        tests = (
            lambda name: name == configuration,
            lambda name: is_single(name) == alike,
            lambda name: True,
        )
        for test in tests:
            found = [get(run) for (name, _), run in known.items() if test(name) and get(run)]
            if found:
                return statistics.mean(found)
        return None

    scoring = [mean(lambda run, e=e: (run.get(e) or {}).get("seconds")) for e in evaluations]
    return mean(lambda run: run.get("train_seconds")), (
        None if any(seconds is None for seconds in scoring) else sum(scoring)
    )
