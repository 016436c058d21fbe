"""Stages that are run in order, and skipped where nothing that they were made from has changed.

RUN/stages/<name>.json says what a stage was made from (`inputs`, and in `after` the `made` of the
stages before it), and how far it has come: "started", "finished", or "removing" while the files of
an earlier time are being removed. The record is written before anything is made or removed, so
that a process killed at any moment leaves a folder that the next one knows how to go on with.

`seconds` is how long the stage has taken, all attempts together; while one is at work, and after it
was killed, it is missing. What a killed attempt took is not known: `seconds_missing` says so.

No TensorFlow here: what a stage does is a command of its own, or a function that is given.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid

from wsss_tf import command, command_server
from wsss_tf.errors import UserError
from wsss_tf.files import lock as lock_lib
from wsss_tf.files import run_folder
from wsss_tf.runs import recipe

STARTED, FINISHED, REMOVING = "started", "finished", "removing"
_TIMES = ("seconds", "seconds_missing")
_LOCK_SECONDS = 10  # a killed pipeline's last command takes a moment to end


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
      name: also of its record.
      steps: what to do, in order: a tuple of strings is the arguments of a command (`train`,
        `--run_dir=..`), anything else a function without arguments. Each may be run again where
        it was interrupted.
      inputs: what it is made from, beside earlier stages: {name: value} of JSON values.
      after: names of the stages whose results it uses.
      outputs: what it makes, as patterns below the run folder; nothing else is ever removed.
      proof: a file or folder below the run folder without which it is not finished.
      is_resumable: whether an interrupted stage may go on; otherwise it starts afresh.
    """

    name: str
    steps: tuple
    inputs: dict
    outputs: tuple
    proof: str
    after: tuple = ()
    is_resumable: bool = True


@dataclasses.dataclass(frozen=True)
class Status:
    """What there is to do for a stage: `FINISHED` nothing, `STARTED` go on, None begin.

    Attributes:
      state: one of those.
      reason: why a finished stage has to be made again, else "".
      made: the token of the time that it was made; None for a stage to begin.
    """

    state: str | None
    reason: str = ""
    made: str | None = None


# === Records ===


def record_path(run_dir, name):
    """Return the path of a stage's record."""
    return pathlib.Path(run_dir) / "stages" / f"{name}.json"


def read_record(run_dir, name):
    """Return a stage's record, a dict; None if there is none.

    Raises:
      UserError: the file is not one.
    """
    path = record_path(run_dir, name)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = {key: record[key] for key in ("state", "made", "inputs", "after")}
        # Not in records of earlier versions.
        return {**known, **{key: record[key] for key in _TIMES if key in record}}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is not the record of a stage ({error!r}); if the files of this stage may go, "
            "remove them together with it."
        ) from error


def status(run_dir, stage, made):
    """Return the `Status` of a stage.

    Args:
      run_dir: folder of all the stages, a `pathlib.Path`.
      stage: `Stage`.
      made: {name: token} of the stages before it; None as the token of one that is not finished.

    Raises:
      UserError: there are files where the stage's would be, but no record of them.
    """
    record = read_record(run_dir, stage.name)
    if record is None:
        strangers = _existing(run_dir, stage)
        if strangers:
            raise UserError(
                f"{strangers[0]}: exists, but this pipeline has not made it and will not replace "
                "it; move it away, or choose another --run_dir."
            )
        return Status(None)
    if record["state"] == REMOVING:
        return Status(None)
    reason = difference(record["inputs"], stage.inputs)
    for name in stage.after:
        if made[name] is None or record["after"].get(name) != made[name]:
            reason = reason or f"stage {name} is made anew"
    if not reason and record["state"] == FINISHED and not (run_dir / stage.proof).exists():
        reason = f"{run_dir / stage.proof} is gone"
    if reason:
        return Status(None, reason)
    if record["state"] == STARTED and not stage.is_resumable:
        return Status(None)
    return Status(record["state"], made=record["made"])


def difference(before, now):
    """Return in a few words what differs between two dicts of inputs; "" if nothing does.

    Texts of several lines are settings as gin writes them; that a module has moved is no change.
    """
    now = json.loads(json.dumps(now))  # as a record has it: lists for tuples
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
            old, new = map(_setting_lines, (old, new))
            if old == new:
                continue
        if isinstance(old, (str, int, float)) and isinstance(new, (str, int, float)):
            return f"{key}: {old} has become {new}"
        if isinstance(old, list) and isinstance(new, list):
            changed = [value for value in new if value not in old]
            gone = [value for value in old if value not in new]
            if changed or gone:
                return f"{key}: " + (f"now {changed[0]}" if changed else f"no longer {gone[0]}")
        return f"{key} has changed"
    return ""


def _setting_lines(text):
    """Return the lines of settings as gin writes them, imports as they are now and in order."""
    lines = recipe.with_moved_imports(text)
    imports = sorted(line for line in lines if line.startswith(("import ", "from ")))
    return [*imports, *(line for line in lines if line not in imports)]


def _existing(run_dir, stage):
    return sorted({path for pattern in stage.outputs for path in run_dir.glob(pattern)})


def _remove(run_dir, stage):
    """Remove what a stage has made, and its folder if that leaves it empty."""
    for path in _existing(run_dir, stage):
        if not path.parent.resolve().is_relative_to(run_dir.resolve()):
            raise UserError(f"{path}: lies outside of {run_dir}; remove it by hand.")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        if path.parent != run_dir and not path.parent.is_symlink():
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()


# === Running ===


def run_stages(run_dir, stages, dry_run=False):
    """Do what there is to do, stage after stage.

    Args:
      run_dir: folder of all the stages, a `pathlib.Path`; made if it is not there.
      stages: `Stage`s, each behind those that it comes after.
      dry_run: only say it.

    Returns:
      Names of the stages that were (or would be) run.

    Raises:
      UserError: see `status`; or another process works on the folder.
      SystemExit: a command failed; it has said why.
    """
    made, ran = {}, []
    with contextlib.nullcontext() if dry_run else locked(run_dir) as lock:
        for stage in stages:
            now = status(run_dir, stage, made)
            made[stage.name] = now.made
            if now.state == FINISHED:
                _say(f"{stage.name}: up to date.")
                continue
            ran.append(stage.name)
            again = f", made again: {now.reason}" if now.reason else ""
            going_on = ", going on" if now.state == STARTED else ""
            _say(f"{stage.name}: {'to do' if dry_run else 'running'}{going_on}{again}.")
            if dry_run:
                _say_commands(stage)
                made[stage.name] = None
            else:
                made[stage.name] = _run(run_dir, stage, now, made, lock)
    return ran


def _say(text):
    # At once, so that it stands above what the command prints.
    print(f"=== {text}", flush=True)


def _say_commands(stage):
    for step in stage.steps:
        if isinstance(step, tuple):
            print(command_text(step))


def _run(run_dir, stage, now, made, lock):
    """Run one stage and return its token."""
    record = {
        "state": STARTED,
        "made": now.made or uuid.uuid4().hex,
        "inputs": stage.inputs,
        "after": {name: made[name] for name in stage.after},
    }
    before = _times_before(run_dir, stage, now)
    path = record_path(run_dir, stage.name)
    if now.state is None:
        run_folder.write_json(path, {**record, "state": REMOVING})
        _remove(run_dir, stage)
    run_folder.write_json(path, record)
    started = time.monotonic()

    def times():
        return {
            **before,
            "seconds": round(before.get("seconds", 0) + time.monotonic() - started, 2),
        }

    try:
        for step in stage.steps:
            if isinstance(step, tuple):
                run_command(step, lock)
            else:
                step()
        if not (run_dir / stage.proof).exists():
            raise RuntimeError(f"stage {stage.name} has ended without {run_dir / stage.proof}.")
    except BaseException:
        run_folder.write_json(path, {**record, **times()})
        raise
    record = {**record, "state": FINISHED, **times()}
    run_folder.write_json(path, record)
    print(f"{stage.name}: done in {minutes_text(record)} minutes.", flush=True)
    return record["made"]


def _times_before(run_dir, stage, now):
    """Return what is known of the times of the attempts that are gone on with."""
    if now.state is None:
        return {}
    record = read_record(run_dir, stage.name)
    if "seconds" not in record:
        return {"seconds_missing": True}
    return {key: record[key] for key in _TIMES if key in record}


def minutes_text(record):
    """Return how many minutes a stage has taken, such as "6.2"; "?" where it is not known.

    Args:
      record: as `read_record` gives it; None for none.
    """
    if record is None or "seconds" not in record:
        return "?"
    more = "more than " if record.get("seconds_missing") else ""
    return f"{more}{record['seconds'] / 60:.1f}"


@contextlib.contextmanager
def locked(run_dir):
    """Hold the folder's lock; yields its file descriptor, which commands inherit, or None.

    So it is held until the last command has ended too, should this process be killed.

    Raises:
      UserError: another process has held it for seconds.
    """
    path = pathlib.Path(run_dir) / "stages" / "lock"
    with lock_lib.locked(path, f"--run_dir={run_dir}", seconds=_LOCK_SECONDS) as descriptor:
        yield descriptor


def command_line(arguments):
    """Return what is executed for a command's name and flags, strings."""
    name, *flags = arguments
    return [sys.executable, "-m", f"wsss_tf.{name}", *flags]


def command_text(arguments):
    """Return a command as it is typed."""
    return shlex.join(["python", *command_line(arguments)[1:]])


@functools.cache
def _server():
    """Return the server of this process' commands; it ends when the process does."""
    return command_server.CommandServer()


def run_command(arguments, lock):
    """Run one of the package's commands in a process of its own, with this one's terminal.

    Where there can be one, a server runs it that has imported TensorFlow.

    Args:
      arguments: its name and its flags, strings.
      lock: file descriptor to inherit; None for none.

    Raises:
      SystemExit: it failed; with its status. What a user error is it has said itself.
    """
    print(command_text(arguments), flush=True)
    # The command ends itself when this pipe does, which is when this process has ended.
    read_end, write_end = os.pipe()
    environment = {**os.environ, command.PARENT_PIPE: str(read_end)}
    try:
        inherited = (read_end,) if lock is None else (read_end, lock)
        process = _start(command_line(arguments), env=environment, pass_fds=inherited)
        # From here on Ctrl-C reaches both processes; the command says so, and this one reads its
        # status.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    finally:
        os.close(read_end)
        os.close(write_end)
    if code == 0:
        return
    if code not in (2, 130):
        why = f"was ended by signal {-code}" if code < 0 else f"has failed with status {code}"
        print(f"error: {command_text(arguments)} {why}; see above.", file=sys.stderr)
    sys.exit(128 - code if code < 0 else code)


def _start(line, **options):
    """Start a line of `command_line`; return what has `wait()` as `subprocess.Popen`."""
    if not command_server.IS_AVAILABLE:
        return subprocess.Popen(line, **options)
    _, *program = line
    return _server().start(program[1:] if program[0] == "-m" else program, **options)
