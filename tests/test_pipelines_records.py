"""Stages: what is skipped, made anew and gone on with, what is never removed, and being killed."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from wsss_tf import command_server
from wsss_tf.errors import UserError
from wsss_tf.pipelines import commands as commands_lib
from wsss_tf.pipelines import records as stage_lib
from wsss_tf.pipelines.records import Stage, read_record, run_stages

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A command of the package's kind that writes numbered files, those that are not there yet.
WRITER = """
import pathlib, sys, time
from absl import flags
from wsss_tf import command
from wsss_tf.errors import UserError

folder = flags.DEFINE_string("folder", None, "")
text = flags.DEFINE_string("text", "", "")
count = flags.DEFINE_integer("count", 0, "")
status = flags.DEFINE_integer("status", 0, "")
until = flags.DEFINE_string("until", None, "")

def main():
    path = pathlib.Path(folder.value)
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count.value):
        if not (path / str(i)).exists():
            half = path.with_name(f".{path.name}.{i}")  # never half a file, as all commands do
            half.write_text(text.value)
            half.replace(path / str(i))
            time.sleep(0.01)
            print(text.value, i)
    while until.value and not pathlib.Path(until.value).exists():
        time.sleep(0.01)
    if status.value == 2:
        raise UserError("this value is wrong.")
    if status.value == 9:
        import os
        os.kill(os.getpid(), 9)
    sys.exit(status.value)

command.run(main)
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Commands are the writer's, or of none: functions write to this list what they are."""
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    monkeypatch.setattr(
        commands_lib, "command_line", lambda a: [sys.executable, str(script), *a[1:]]
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return []


def chain(run_dir, log, second="x", is_resumable=True, action=None):
    """Three stages: first <- second <- third; second's only input is given."""

    def write(name, text):
        def step():
            log.append(name)
            folder = run_dir / name
            folder.mkdir(exist_ok=True)
            with (folder / "file").open("a") as file:
                file.write(text)
            if action is not None:
                action(name)

        return step

    def one(name, inputs, after, text):
        outputs, proof = (f"{name}/file", f"{name}/more"), f"{name}/file"
        return Stage(name, (write(name, text),), inputs, outputs, proof, after, is_resumable)

    return [
        one("first", {"a": 1}, (), "1"),
        one("second", {"settings": f"A = 1\nB = {second!r}"}, ("first",), second),
        one("third", {"scales": (1.0, 2.0)}, ("second",), "3"),
    ]


def texts(run_dir):
    return [(run_dir / name / "file").read_text() for name in ("first", "second", "third")]


def test_what_is_up_to_date_is_skipped(tmp_path, log, capsys):
    run = tmp_path / "run"
    assert run_stages(run, chain(run, log)) == ["first", "second", "third"] == log
    assert "third: running.\n" in capsys.readouterr().out
    assert run_stages(run, chain(run, log)) == []
    lines = ["=== first: up to date.", "=== second: up to date.", "=== third: up to date."]
    assert capsys.readouterr().out.splitlines() == lines
    assert texts(run) == ["1", "x", "3"]


def test_a_change_redoes_a_stage_and_what_follows_from_it(tmp_path, log, capsys):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "second/notes.txt").write_text("my own")
    log.clear()
    capsys.readouterr()
    assert run_stages(run, chain(run, log, second="y"), dry_run=True) == ["second", "third"]
    assert not log
    assert "to do, made again: settings: now B = 'y'." in capsys.readouterr().out
    assert run_stages(run, chain(run, log, second="y")) == ["second", "third"] == log
    assert "third: running, made again: stage second is made anew." in capsys.readouterr().out
    assert texts(run) == ["1", "y", "3"]  # the old files were not added to
    assert (run / "second/notes.txt").read_text() == "my own"
    assert run_stages(run, chain(run, log, second="y")) == []


def test_a_stage_made_anew_with_the_same_settings_counts_as_a_change(tmp_path, log):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "first/file").unlink()
    assert run_stages(run, chain(run, log)) == ["first", "second", "third"]


def test_part_of_the_stages_then_the_rest(tmp_path, log):
    run = tmp_path / "run"
    assert run_stages(run, chain(run, log)[:2]) == ["first", "second"]
    assert run_stages(run, chain(run, log)) == ["third"]
    run_stages(run, chain(run, log, second="y")[:2])
    assert run_stages(run, chain(run, log, second="y")) == ["third"]


@pytest.mark.parametrize("is_resumable", [True, False], ids=["goes on", "starts afresh"])
def test_an_interrupted_stage(tmp_path, log, is_resumable):
    run = tmp_path / "run"

    def stop(name):
        if name == "second":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, is_resumable=is_resumable, action=stop))
    assert read_record(run, "second")["state"] == "started"
    assert run_stages(run, chain(run, log, is_resumable=is_resumable)) == ["second", "third"]
    assert texts(run) == ["1", "xx" if is_resumable else "x", "3"]


def test_an_interrupted_stage_with_other_settings_starts_afresh(tmp_path, log):
    run = tmp_path / "run"

    def stop(name):
        if name == "second":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, action=stop))
    run_stages(run, chain(run, log, second="y"))
    assert texts(run) == ["1", "y", "3"]


def test_a_half_removed_stage_is_not_taken_for_finished(tmp_path, log, monkeypatch):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage_lib, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stages(run, chain(run, log, second="y"))
    # Back to the settings that the record of the finished stage had.
    assert run_stages(run, chain(run, log)) == ["second", "third"]
    assert texts(run) == ["1", "x", "3"]


def test_what_others_have_made_is_refused_and_kept(tmp_path, log):
    run = tmp_path / "run"
    (run / "second").mkdir(parents=True)
    (run / "second/file").write_text("by hand")
    with pytest.raises(UserError, match=r"second/file: exists, but this pipeline has not made it"):
        run_stages(run, chain(run, log))
    assert (run / "second/file").read_text() == "by hand"


def test_nothing_outside_of_the_run_folder_is_removed(tmp_path, log):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_stages(run, chain(run, log))
    # A folder of outputs that has been moved to another disk: the link goes, what it names stays.
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (run / "second/more").symlink_to(elsewhere)
    run_stages(run, chain(run, log, second="y"))
    assert not (run / "second/more").exists()
    assert (elsewhere / "kept").read_text() == "kept"
    # The whole folder of the stage likewise: refused.
    (run / "second/file").rename(elsewhere / "file")
    (run / "second").rmdir()
    (run / "second").symlink_to(elsewhere)
    with pytest.raises(UserError, match="lies outside"):
        run_stages(run, chain(run, log, second="z"))
    assert (elsewhere / "file").read_text() == "y"


def test_a_broken_record_is_named(tmp_path, log):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "stages/second.json").write_text("[1]")
    with pytest.raises(UserError, match=r"stages/second\.json: is not the record"):
        run_stages(run, chain(run, log))


def test_times_are_kept_and_said(tmp_path, log, capsys, monkeypatch):
    run = tmp_path / "run"
    clock = iter(range(0, 10_000, 90))
    monkeypatch.setattr(stage_lib.time, "monotonic", lambda: next(clock))
    run_stages(run, chain(run, log))
    assert "second: done in 1.5 minutes.\n" in capsys.readouterr().out
    assert read_record(run, "second")["seconds"] == 90
    run_stages(run, chain(run, log))  # what is up to date keeps its time
    assert read_record(run, "second")["seconds"] == 90

    def stop(name):
        if name == "third":
            raise KeyboardInterrupt

    # Made anew with another setting, and interrupted: both parts count.
    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, second="y", action=stop))
    assert read_record(run, "third")["seconds"] == 90
    run_stages(run, chain(run, log, second="y"))
    assert read_record(run, "third")["seconds"] == 180
    assert "third: done in 3.0 minutes.\n" in capsys.readouterr().out


def test_times_of_killed_attempts_are_not_known(tmp_path, log, capsys):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    path = stage_lib.record_path(run, "third")
    record = json.loads(path.read_text())
    # What a killed process leaves, and so did versions that measured no times.
    del record["seconds"]
    path.write_text(json.dumps({**record, "state": "started"}))
    capsys.readouterr()
    assert run_stages(run, chain(run, log)) == ["third"]
    assert "third: done in more than 0.0 minutes.\n" in capsys.readouterr().out
    path.write_text(json.dumps(record))
    assert run_stages(run, chain(run, log)) == []
    assert stage_lib.minutes_text(read_record(run, "third")) == "?"


def test_two_pipelines_do_not_share_a_folder(tmp_path, log, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(stage_lib, "_LOCK_SECONDS", 0.2)
    with stage_lib.locked(run), pytest.raises(UserError, match="is at work there"):
        run_stages(run, chain(run, log))
    assert not log


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": [1.0]}, {"a": (1.0,)}, ""),
        ({"data": "12 images, ab"}, {"data": "9 images, cd"}, "data: 12 images, ab has become 9 "),
        ({"settings": "A = 1\nB = 2"}, {"settings": "A = 1\nB = 3"}, "settings: now B = 3"),
        ({"settings": "A = 1\nB = 2"}, {"settings": "A = 1"}, "settings: no longer B = 2"),
        ({"settings": "A = (1,\n2,\n3)"}, {"settings": "A = (2,\n1,\n3)"}, "settings: now A = (2"),
        ({"settings": "A = 1\nB = 2"}, {"settings": "B = 2\nA = 1"}, "settings has changed"),
        (
            {"settings": "from wsss_tf import recipe\nimport keras\nA = 1"},
            {"settings": "import keras\nfrom wsss_tf.runs import recipe\nA = 1"},
            "",
        ),
        ({"flags": ["--a", "--b"]}, {"flags": ["--a", "--c"]}, "flags: now --c"),
        ({"flags": ["--a", "--b"]}, {"flags": ["--a"]}, "flags: no longer --b"),
        ({"flags": ["--a", "--b"]}, {"flags": ["--b", "--a"]}, "flags has changed"),
        ({"a": None}, {"a": 3}, "a has changed"),
        ({}, {"a": 3}, "a has changed"),
    ],
)
def test_what_differs_is_said(before, now, text):
    result = stage_lib.difference(before, now)
    assert result == text or (text and result.startswith(text))


_SEAM_ON_LITE = """from wsss_tf.backbones import lite
from wsss_tf.models import seam
from wsss_tf.runs import recipe

# Parameters for recipe.Recipe:
recipe.Recipe.network = @seam.seam_network

# Parameters for seam.seam_network:
seam.seam_network.backbone = @lite.lite
"""
_NEW_METHOD = """from wsss_tf.models import irn

# Parameters for irn.irn_network:
irn.irn_network.backbone = @lite.lite
"""


def test_a_method_that_joins_a_backbone_overlay_makes_nothing_anew():
    def difference(now):
        return stage_lib.difference({"settings": _SEAM_ON_LITE}, {"settings": now})

    assert difference(_NEW_METHOD + _SEAM_ON_LITE) == ""
    other = _SEAM_ON_LITE.replace("@lite.lite", "@lite.other")
    assert difference(other) == "settings: now seam.seam_network.backbone = @lite.other"
    assert "irn" in difference(_NEW_METHOD + _SEAM_ON_LITE.replace("@seam.seam", "@a/irn.irn"))


# === Commands ===


@pytest.fixture(params=["server", "python"])
def by(request, monkeypatch):
    """Who runs commands: a server, which here has not imported TensorFlow, or a Python for each."""
    if request.param == "python":
        monkeypatch.setattr(command_server, "IS_AVAILABLE", False)
        yield request.param
    elif not command_server.IS_AVAILABLE:
        pytest.skip("there is no server of commands on this system")
    else:
        with command_server.CommandServer(["wsss_tf.command"]) as server:
            monkeypatch.setattr(commands_lib, "_server", lambda: server)
            yield request.param


def command_stage(folder, *flags, name="only", after=()):
    step = ("writer", f"--folder={folder}", f"--text={name}", "--count=3", *flags)
    return Stage(name, (step,), {}, (folder.name,), folder.name, after)


@pytest.mark.parametrize(
    ("status", "code", "errors"),
    [
        (2, 2, ["error: this value is wrong."]),
        (1, 1, ["has failed with status 1; see above."]),
        (9, 137, ["was ended by signal 9; see above."]),
    ],
    ids=["user error", "bug", "killed"],
)
def test_a_command_that_fails(tmp_path, log, by, capfd, status, code, errors):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as caught:
        run_stages(run, [command_stage(run / "out", f"--status={status}")])
    assert caught.value.code == code
    out, err = capfd.readouterr()
    assert "--count=3" in out
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert [line.endswith(error) for line, error in zip(lines, errors, strict=True)] == [True]
    assert read_record(run, "only")["state"] == "started"
    assert run_stages(run, [command_stage(run / "out")]) == ["only"]
    assert read_record(run, "only")["state"] == "finished"


def test_a_command_without_a_result_is_a_bug(tmp_path, log):
    run = tmp_path / "run"
    stage = Stage("only", (lambda: None,), {}, ("out",), "out")
    with pytest.raises(RuntimeError, match="has ended without"):
        run_stages(run, [stage])


def side_by_side(run, *flags):
    """Stages of which the first two end only when both are at work, and one after each; a table."""

    def table():
        (run / "table").write_text("made")

    return [
        command_stage(run / "a", f"--until={run / 'b/2'}", name="a"),
        command_stage(run / "b", f"--until={run / 'a/2'}", *flags, name="b"),
        command_stage(run / "c", name="c", after=("b",)),
        Stage("table", (table,), {}, ("table",), "table"),
        command_stage(run / "d", name="d", after=("a",)),
    ]


def test_stages_side_by_side(tmp_path, log, by, capfd):
    run, begun = tmp_path / "run", []

    def begins(stage):
        begun.append((stage.name, {path.name for path in run.iterdir()} - {"stages"}))

    assert sorted(run_stages(run, side_by_side(run), at_once=2, begins=begins)) == [
        "a", "b", "c", "d", "table"
    ]  # fmt: skip
    assert [name for name, _ in begun] == ["a", "b", "c", "table", "d"]
    there = dict(begun)
    assert "b" in there["c"]
    # What this process does waits for all before it, and all behind wait for that.
    assert there["table"] == {"a", "b", "c"}
    assert there["d"] == {"a", "b", "c", "table"}
    out, err = capfd.readouterr()
    assert not err
    lines = out.splitlines()
    for name in "ab":
        of_one = [line for line in lines if line.startswith(f"{name} | ")]
        assert f"--text={name}" in of_one[0]
        assert of_one[1:] == [f"{name} | {name} {i}" for i in range(3)]
    assert [line for line in lines if line.startswith("d ")] == ["d 0", "d 1", "d 2"]  # alone
    assert not run_stages(run, side_by_side(run), at_once=2)
    up_to_date = [f"=== {name}: up to date." for name in ("a", "b", "c", "table", "d")]
    assert capfd.readouterr().out.splitlines() == up_to_date


def test_what_fails_ends_what_is_beside_it(tmp_path, log, by, capfd):
    run = tmp_path / "run"
    first, second, *_ = side_by_side(run, "--status=2")
    endless = dataclasses.replace(first, steps=((*first.steps[0], "--until=never"),))
    with pytest.raises(SystemExit) as caught:
        run_stages(run, [endless, second], at_once=2)
    assert caught.value.code == 2
    assert capfd.readouterr().err == "error: this value is wrong.\n"
    for name in "ab":
        record = read_record(run, name)
        assert record["state"] == "started"
        assert record["seconds"] >= 0
    with stage_lib.locked(run):  # which all that were at work held
        pass
    assert run_stages(run, side_by_side(run)[:2], at_once=2) == ["a", "b"]


def test_each_has_its_share_of_the_cores(monkeypatch):
    started = []
    monkeypatch.setattr(
        commands_lib, "_start", lambda line, env, **_: started.append(env) or FinishedCommand
    )
    name = "TF_NUM_INTRAOP_THREADS"
    monkeypatch.delenv(name, raising=False)
    for given, cores, expected in [(None, None, None), (None, 3, "3"), ("5", 3, "5")]:
        if given:
            monkeypatch.setenv(name, given)
        assert list(commands_lib.run_command(("train",), 0, cores=cores)) == []
        assert started.pop().get(name) == expected


class FinishedCommand:
    def poll():
        return 0

    wait = poll


# Killed at any moment and started again: run by a script of its own.
DRIVER = """
import functools, pathlib, sys
from wsss_tf import command, command_server
from wsss_tf.pipelines import commands as commands_lib
from wsss_tf.pipelines import records as stage_lib

here, by, version, count, at_once = pathlib.Path(sys.argv[1]), *sys.argv[2:]
del sys.argv[1:]
run = here / "run"
commands_lib.command_line = lambda a: [sys.executable, str(here / "writer.py"), *a[1:]]
if by == "python":
    command_server.IS_AVAILABLE = False
else:
    commands_lib._server = functools.cache(
        lambda: command_server.CommandServer(["wsss_tf.command"])
    )

def step(name, text):
    return ("writer", f"--folder={run / name}", f"--text={text}", f"--count={count}")

def table():
    parts = [p.read_text() for name in "abd" for p in sorted((run / name).iterdir())]
    stage_lib.run_folder.write_text(run / "table", ",".join(parts))

stages = [
    stage_lib.Stage("a", (step("a", "1"),), {}, ("a",), "a"),
    stage_lib.Stage("b", (step("b", version),), {"v": version}, ("b",), "b", ("a",)),
    stage_lib.Stage("d", (step("d", "4"),), {}, ("d",), "d"),
    stage_lib.Stage("c", (table,), {}, ("table",), "table", ("a", "b", "d")),
]
command.run(lambda: stage_lib.run_stages(run, stages, at_once=int(at_once)))
"""


def driver(folder, by, at_once, version, count=8, **options):
    (folder / "driver.py").write_text(DRIVER)
    (folder / "writer.py").write_text(WRITER)
    return subprocess.Popen(
        [sys.executable, folder / "driver.py", folder, by, version, str(count), str(at_once)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
    )


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task")
    try:
        texts = [task.read_text() for task in tasks.glob("*/children")]
    except OSError:
        return []
    children = [int(child) for text in texts for child in text.split()]
    return [*children, *(below for child in children for below in descendants(child))]


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_killed_at_any_moment_it_ends_with_the_same_table(tmp_path, by, at_once):
    rng = random.Random(0)
    run = tmp_path / "run"
    moments = [
        lambda: (run / "stages/a.json").exists(),
        lambda: (run / "a/3").exists(),
        lambda: (run / "stages/b.json").exists(),
        lambda: (run / "b/0").exists(),
    ]
    for moment in moments:
        process = driver(tmp_path, by, at_once, "2")
        deadline = time.monotonic() + 60
        while not moment() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.02 * rng.random())
        commands = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        while any(map(is_running, commands)):  # they do not outlive the pipeline
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not (run / "table").exists()
    assert driver(tmp_path, by, at_once, "2").wait(60) == 0
    assert (run / "table").read_text() == ",".join("1" * 8 + "2" * 8 + "4" * 8)
    # With another setting, killed once more while the old files go or new ones come.
    process = driver(tmp_path, by, at_once, "3")
    while "2" in json.loads((run / "stages/b.json").read_text())["inputs"]["v"]:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert driver(tmp_path, by, at_once, "3").wait(60) == 0
    assert (run / "table").read_text() == ",".join("1" * 8 + "3" * 8 + "4" * 8)


@pytest.mark.parametrize("at_once", [1, 2])
def test_ctrl_c_is_said_once_and_ends_all(tmp_path, by, at_once):
    process = driver(
        tmp_path,
        by,
        at_once,
        "1",
        count=1000,
        start_new_session=True,
        # A shell's background processes ignore it, and pytest may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    begun = [tmp_path / f"run/{name}/3" for name in "ad"[:at_once]]
    while not all(path.exists() for path in begun):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130, error
    assert error == "interrupted; run the same command again to go on.\n"
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for name in "ad"[:at_once]:
        assert read_record(tmp_path / "run", name)["state"] == "started"
