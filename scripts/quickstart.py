"""Run a pipeline, and say throughout what is to come; scripts/quickstart.sh starts it.

  python scripts/quickstart.py --run_dir=RUN                      on drawn scenes
  python scripts/quickstart.py --run_dir=RUN --photos=FOLDER      on pictures of your own

The same command again goes on where it was interrupted. --dry_run says what there is to do.
"""

import json
import os
import pathlib
import time

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of all the stages; made if not there.")
_PHOTOS = flags.DEFINE_string("photos", None, "Folder of pictures with image_labels.csv.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what there is to do, and the commands.")

PHOTOS = ("gin/pipelines/photos.gin",)
SCENES = (
    "gin/pipelines/quickstart.gin",
    "gin/data/shapes.gin",
    "gin/data/few_shapes.gin",
)

# What the stages do, and their minutes of processor time on the drawn scenes, one thread each.
STAGES = {
    "baseline": ("train the CAM baseline on image labels", 0.8),
    "baseline_cams": ("its class activation maps", 0.2),
    "cam": ("train SEAM on image labels", 1.8),
    "cams": ("its class activation maps", 0.3),
    "calibrate": ("choose the score above which a pixel is an object, by colours", 0.0),
    "crf": ("dense CRF on SEAM's maps: where they are sure", 0.1),
    "affinity": ("train AffinityNet on that", 0.5),
    "walk": ("random walk by its affinities: masks", 0.2),
    "segmentation": ("train DeepLab on these masks", 1.3),
    "segmentation_scores": ("score DeepLab on pictures that it has not seen", 0.2),
    "export": ("export DeepLab as a SavedModel", 0.1),
    "label_scores": ("score maps and masks", 0.1),
    "report": ("show everything", 0.1),
}


def main():
    """Run the script."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: the folder that all the stages are to be kept in.")
    # Here, so that --help and a misspelt flag answer at once.
    from wsss_tf.pipelines.records import run_stages

    if not _PHOTOS.value:
        # The small networks gain nothing from a second thread.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    run_dir = pathlib.Path(_RUN_DIR.value)
    plan = make_photos_plan(run_dir, _PHOTOS.value) if _PHOTOS.value else make_scenes_plan(run_dir)
    print(what_is_to_come(plan.stages, with_minutes=not _PHOTOS.value), flush=True)
    run_stages(run_dir, plan.stages, _DRY_RUN.value, plan.at_once, announcer(plan.stages))
    if not _DRY_RUN.value:
        print("\n" + what_has_come(plan))


# === Before ===


def make_photos_plan(run_dir, folder):
    """Return the plan of gin/pipelines/photos.gin for a folder of pictures."""
    from wsss_tf.runs import recipe as recipe_lib

    bindings = ["Pipeline.score_split=None"]
    return _make_plan(run_dir, *recipe_lib.with_folder(folder, list(PHOTOS), bindings))


def make_scenes_plan(run_dir):
    """Return the plan for the drawn scenes."""
    return _make_plan(run_dir, list(SCENES), [])


def _make_plan(run_dir, gin_files, gin_bindings):
    import tensorflow as tf

    from wsss_tf.pipelines.plan import make_plan
    from wsss_tf.pipelines.settings import load_pipeline

    # The commands need them; this process only looks through the data.
    tf.config.set_visible_devices([], "GPU")
    pipeline = load_pipeline(gin_files, gin_bindings)
    return make_plan(pipeline, gin_files, gin_bindings, run_dir)


def what_is_to_come(stages, with_minutes):
    """Return the list of the stages as text, with the minutes that each takes or without."""
    head, lines = "What is to come:", []
    if with_minutes:
        head = f"What is to come, about {minutes_of(stages):.1f} minutes on two cores:"
    for number, stage in enumerate(stages, 1):
        what, minutes = STAGES[stage.name]
        lines.append(f"{number:4}  {what}" + (f" ({minutes:.1f})" if with_minutes else ""))
    return "\n".join([head, *lines])


def minutes_of(stages):
    """Return the minutes of the longest chain of stages of which each comes after the last."""
    ends = {}
    for stage in stages:
        begins = max((ends[name] for name in stage.after), default=0)
        ends[stage.name] = begins + STAGES[stage.name][1]
    return max(ends.values())


# === Meanwhile ===


def announcer(stages):
    """Return a function that says of a stage that begins which of how many it is."""
    started, numbers = time.monotonic(), {stage.name: i for i, stage in enumerate(stages, 1)}

    def say(stage):
        minutes = (time.monotonic() - started) / 60
        number, what = numbers[stage.name], STAGES[stage.name][0]
        print(f"{number} of {len(stages)}: {what} ({minutes:.1f} minutes so far)", flush=True)

    return say


# === After ===


def what_has_come(plan):
    """Return the scores and where to look, as text."""
    run_dir, planned = plan.run_dir, plan.planned
    rows = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))["rows"]
    # The two labels of the dense CRF are each sure of one thing only: they are in the report.
    lines = [
        f"{100 * row['miou']:8.2f}  {row['what']} ({row['images']} of {row['split']})"
        for row in rows
        if not row["what"].startswith("dense CRF")
    ]
    if lines:
        lines = ["mean IoU %, of masks that no stage has learnt from:", *lines]
    made = [f"{what}: {path}" for one in planned.values() for what, path in one.made.items()]
    made = [text for text in made if not text.startswith("report: ")]
    lines += [f"open {run_dir / 'report.html'}" + (f"   ({'; '.join(made)})" if made else "")]
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)
