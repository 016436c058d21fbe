"""The quickstart: its arguments, what it sets out to do, and what it says."""

import functools
import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_scripts_networks import load_script

from wsss_tf.pipelines.records import Stage, run_stages

ROOT = pathlib.Path(__file__).resolve().parent.parent

# In the place of the one that installs: says what it is asked for, and echoes what Python is given.
ENVIRONMENT = """
python=echo
make_environment() { echo "environment: $*"; }
"""


@pytest.fixture
def quickstart(tmp_path):
    """Return a function that runs quickstart.sh in a repository without anything to install."""
    folder = tmp_path / "the repository/scripts"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/quickstart.sh", folder)
    (folder / "environment.sh").write_text(ENVIRONMENT)

    def run(*arguments):
        line = ["bash", folder / "quickstart.sh", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_arguments(quickstart, tmp_path):
    (tmp_path / "my pictures").mkdir()
    (tmp_path / "my pictures/image_labels.csv").touch()
    pictures = f"--photos={tmp_path}/my pictures"
    script = "scripts/quickstart.py"
    for arguments, extra, line in [
        ([], "", f"{script} --run_dir=runs/quickstart"),
        (["out"], "", f"{script} --run_dir={tmp_path}/out"),
        (["--dry_run", "/out"], "", f"{script} --dry_run --run_dir=/out"),
        (["--photos=my pictures"], "photos", f"{script} {pictures} --run_dir=runs/photos"),
        ([pictures, "a b"], "photos", f"{script} {pictures} --run_dir={tmp_path}/a b"),
    ]:
        result = quickstart(*arguments)
        assert result.stdout.splitlines() == [f"environment: {extra}", line], result.stderr
        assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--photo=here"], "--photo=here"),
        (["--photos"], "--photos=FOLDER"),
        (["--photos="], "--photos=FOLDER"),
        (["--photos=nowhere"], "nowhere: no image_labels.csv"),
        (["out", "more"], "more"),
        ([""], "empty"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_installed(quickstart, arguments, error):
    result = quickstart(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert error in line


def test_help(quickstart):
    result = quickstart("--help")
    assert result.returncode == 0
    assert "scripts/quickstart.sh [--dry_run] --photos=FOLDER [OUT]" in result.stdout
    assert not [line for line in result.stdout.splitlines() if line.startswith(("#", "set"))]


@pytest.fixture(scope="module")
def script():
    return load_script("quickstart")


def test_the_baseline_differs_from_seam_in_method_only(script, tmp_path):
    plan = script.make_scenes_plan(tmp_path)
    # Only photographs' thresholds are chosen.
    own = [name for name in script.STAGES if name != "calibrate"]
    assert [stage.name for stage in plan.stages] == own
    # Neither waits for the other.
    assert plan.at_once == 2
    in_turn = sum(minutes for _, minutes in script.STAGES.values())
    aside = sum(script.STAGES[name][1] for name in ("baseline", "baseline_cams"))
    assert script.minutes_of(plan.stages) <= in_turn - aside
    baseline, seam = plan.trained["baseline"], plan.trained["cam"]
    assert (baseline.files[0], seam.files[0]) == ("gin/cam.gin", "gin/seam.gin")
    assert baseline.files[1:] == seam.files[1:]
    assert len({(one.recipe.source, one.recipe.train_split) for one in plan.trained.values()}) == 1
    assert not any(one.recipe.validation_images for one in plan.trained.values())
    [[maps]], [[seam_maps]] = (
        [stage.steps for stage in plan.stages if stage.name == name]
        for name in ("baseline_cams", "cams")
    )
    assert [flag.replace("/baseline", "/cam") for flag in maps] == list(seam_maps)


def test_scores_of_the_report_are_said_at_the_end(script, tmp_path):
    plan = script.make_scenes_plan(tmp_path)
    # As `pipelines.results` writes it.
    rows = [
        {"what": what, "split": split, "images": 9, "miou": miou}
        for what, split, miou in [
            ("SEAM", "train", 0.5),
            ("dense CRF, background power 4", "train", 0.4),
            ("network trained on pseudo labels", "val", 0.75),
        ]
    ]
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    text = script.what_has_come(plan)
    assert "   50.00  SEAM (9 of train)\n   75.00  network trained on pseudo labels (9 of v" in text
    assert "dense CRF" not in text
    assert f"open {tmp_path}/report.html" in text


def test_photos_of_ones_own(script, tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        picture = rng.integers(0, 255, (40, 52, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "image_labels.csv").write_text("image,labels\na,cat\nb,dog\n")
    plan = script.make_photos_plan(tmp_path / "run", tmp_path)
    names = [stage.name for stage in plan.stages]
    assert set(names) < set(script.STAGES)
    assert (names[0], names[-1]) == ("cam", "report")
    assert plan.train.class_names == ("background", "cat", "dog")
    results = {"rows": []}  # there are no masks to score against
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text(json.dumps(results))
    run = tmp_path / "run"
    assert script.what_has_come(plan) == (
        f"open {run}/report.html"
        f"   (masks of the pictures: {run}/affinity/pseudo_labels; SavedModel: {run}/export)"
    )


def test_what_is_to_come_is_said_at_the_start_and_with_each_stage(script, tmp_path, capsys):
    done = []
    stages = [
        Stage(name, (functools.partial(done.append, name),), {}, (), "stages", after)
        for name, after in [("baseline", ()), ("cam", ()), ("report", ("baseline", "cam"))]
    ]
    # The two trainings are side by side.
    minutes = script.STAGES["cam"][1] + script.STAGES["report"][1]
    assert script.minutes_of(stages) == pytest.approx(minutes)
    lines = script.what_is_to_come(stages, with_minutes=True).splitlines()
    assert "minutes on two cores" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    run_stages(tmp_path, stages, begins=script.announcer(stages))
    assert done == ["baseline", "cam", "report"]
    said = [line for line in capsys.readouterr().out.splitlines() if " of 3: " in line]
    what = [script.STAGES[name][0] for name in done]
    minutes = "(0.0 minutes so far)"
    assert said == [f"{i} of 3: {text} {minutes}" for i, text in enumerate(what, 1)]
    # The next time they are known for what they are.
    run_stages(tmp_path, stages, begins=script.announcer(stages))
    assert len(done) == 3
