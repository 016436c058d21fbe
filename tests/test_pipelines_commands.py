"""Commands as steps of stages: side by side, failing, killed at any moment and gone on with."""

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
from writer_command import ROOT, WRITER, use_writer

from wsss_tf import command_server
from wsss_tf.pipelines import commands as commands_lib
from wsss_tf.pipelines import records as stage_lib
from wsss_tf.pipelines.records import Stage, read_record, run_stages


@pytest.fixture(autouse=True)
def _written(tmp_path, monkeypatch):
    use_writer(tmp_path, monkeypatch)


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
def test_a_command_that_fails(tmp_path, by, capfd, status, code, errors):
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


def test_stages_side_by_side(tmp_path, by, capfd):
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


def test_what_fails_ends_what_is_beside_it(tmp_path, by, capfd):
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
