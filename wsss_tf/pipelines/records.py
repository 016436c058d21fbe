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
import json
import os
import pathlib
import re
import shutil
import signal
import time
import uuid

from wsss_tf.errors import UserError
from wsss_tf.files import lock as lock_lib
from wsss_tf.files import run_folder
from wsss_tf.pipelines import commands
from wsss_tf.runs import recipe

STARTED, FINISHED, REMOVING = "started", "finished", "removing"
_TIMES = ("seconds", "seconds_missing")
_BACKBONE_OF = re.compile(r"(?:\w+[./])*(\w+_network)\.backbone = ")
_POLL_SECONDS = 0.02
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
    """Return what counts of settings as gin writes them: imports as they are now, and in order.

    A file of gin/backbone/ binds the backbone of every method's network: those that this recipe
    does not name do not count, so a new method leaves finished stages as they are.
    """
    lines = [line for line in recipe.with_moved_imports(text) if line and line[0] != "#"]
    is_import = [line.startswith(("import ", "from ")) for line in lines]
    settings = [line for line, one in zip(lines, is_import) if not one]
    named = set(re.findall(r"@(?:\w+[./])*(\w+)", "\n".join(settings)))
    settings = [
        line
        for line in settings
        if not (network := _BACKBONE_OF.match(line)) or network[1] in named
    ]
    used = "\n".join(settings)
    imports = sorted(
        line
        for line, one in zip(lines, is_import)
        if one and re.search(rf"\b{line.split()[-1].rpartition('.')[2]}\.", used)
    )
    return [*imports, *settings]


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


def run_stages(run_dir, stages, dry_run=False, at_once=1, begins=None):
    """Do what there is to do, stage after stage, or side by side.

    Args:
      run_dir: folder of all the stages, a `pathlib.Path`; made if it is not there.
      stages: `Stage`s, each behind those that it comes after.
      dry_run: only say it.
      at_once: how many stages may be at work at a time; see `_next`.
      begins: `begins(stage)` is called when a stage begins; None for nothing.

    Returns:
      Names of the stages that were (or would be) run.

    Raises:
      UserError: see `status`; or another process works on the folder.
      SystemExit: a command failed; it has said why. Those beside it have been ended, as if killed.
    """
    if dry_run:
        return _would_run(run_dir, stages)
    made, ran = {}, []
    waiting, at_work = list(stages), []  # the latter with what `_run` gives
    with locked(run_dir) as lock, contextlib.ExitStack() as ends:
        while waiting or at_work:
            while len(at_work) < at_once and (stage := _next(waiting, [one for one, _ in at_work])):
                waiting.remove(stage)
                now = status(run_dir, stage, made)
                made[stage.name] = now.made
                if now.state == FINISHED:
                    _say(f"{stage.name}: up to date.")
                    continue
                _say_begin(stage, now, "running")
                if begins:
                    begins(stage)
                ran.append(stage.name)
                is_beside = at_work or (at_once > 1 and _next(waiting, [stage]))
                work = _run(run_dir, stage, now, made, lock, at_once if is_beside else 1)
                at_work.append((stage, ends.enter_context(contextlib.closing(work))))
            at_work = [one for one in at_work if next(one[1], FINISHED) != FINISHED]
            if at_work:
                _wait()
    return ran


def _would_run(run_dir, stages):
    made, ran = {}, []
    for stage in stages:
        now = status(run_dir, stage, made)
        made[stage.name] = now.made if now.state == FINISHED else None
        if now.state == FINISHED:
            _say(f"{stage.name}: up to date.")
            continue
        _say_begin(stage, now, "to do")
        ran.append(stage.name)
        for step in stage.steps:
            if isinstance(step, tuple):
                print(commands.command_text(step))
    return ran


def _next(waiting, at_work):
    """Return the first stage that may begin, None if there is none.

    One of commands may, when all that it comes after have ended. One that does something in this
    process is alone at work, in its place.

    Args:
      waiting: `Stage`s that have not begun.
      at_work: those that have not ended.
    """

    def is_alone(stage):
        return not all(isinstance(step, tuple) for step in stage.steps)

    if any(map(is_alone, at_work)):
        return None
    before = {stage.name for stage in at_work}
    for stage in waiting:
        if is_alone(stage):
            return None if before else stage
        if not before.intersection(stage.after):
            return stage
        before.add(stage.name)
    return None


def _wait():
    """Sleep a moment. Ctrl-C is for the commands: this process reads their status."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        time.sleep(_POLL_SECONDS)
    finally:
        signal.signal(signal.SIGINT, before)


def _say_begin(stage, now, what):
    again = f", made again: {now.reason}" if now.reason else ""
    going_on = ", going on" if now.state == STARTED else ""
    _say(f"{stage.name}: {what}{going_on}{again}.")


def _say(text):
    # At once, so that it stands above what the command prints.
    print(f"=== {text}", flush=True)


def _run(run_dir, stage, now, made, lock, shares):
    """Run one stage while this generator is asked for more; at the end its token is in `made`.

    Closed before, it ends the stage as an interrupted one. `shares` is how many stages share the
    terminal and the processor.
    """
    beside = {}
    if shares > 1:
        cores = max(1, (os.cpu_count() or 1) // shares)
        beside = {"beside": f"{stage.name} | ", "cores": cores}
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
                yield from commands.run_command(step, lock, **beside)
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
    made[stage.name] = record["made"]


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
