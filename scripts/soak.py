"""Kill commands at random moments, fill disks, send garbage; and see whether anything is lost.

  python scripts/soak.py --output=FOLDER [--kills=100] [--requests=20000] [--rows=kills,disk]

Each command is run once to its end, and once with kills (SIGKILL) at random moments of it, gone on
with each time. What both leave is compared bit for bit, and after each kill every file there must
be whole. The networks and scenes are those of tests/data/tiny*.gin, so that a command takes
seconds: this is about files, not about scores. Prints a table, which it also writes as
FOLDER/soak.md; exit status 1 if anything was lost.

rows: kills, pipeline, two (processes on a folder), disk (a file system that fills up; needs the
right to mount one), requests (garbage among pictures, and the memory they take), memory (of
training).
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile

from absl import flags

from wsss_tf import command, command_server
from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import write_text

ROWS = ("kills", "pipeline", "two", "disk", "requests", "memory")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table; made afresh.")
_KILLS = flags.DEFINE_integer("kills", 100, "Kills altogether, over all commands.", 1)
_REQUESTS = flags.DEFINE_integer("requests", 20000, "Requests to an exported model.", 100)
_STEPS = flags.DEFINE_integer("steps", 5000, "Training steps for the row of memory.", 20)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the garbage.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Which of them.")

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_DATA = _ROOT / "tests/data"
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'tests'}"}
_LINE = re.compile(r"^error: ", re.MULTILINE)


@dataclasses.dataclass
class Table:
    """What was tried, and what came of it."""

    rows: list = dataclasses.field(default_factory=list)
    lost: int = 0

    def add(self, what, tried, result, lost=0):
        """Add a row, and say so."""
        self.rows.append((what, tried, result, lost))
        self.lost += lost
        print(f"{what}: {tried}; {result}; lost {lost}", flush=True)

    def text(self):
        """Return it in Markdown."""
        lines = ["| what | tried | result | lost |", "| --- | --- | --- | ---: |"]
        return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in self.rows)])


class Commands:
    """Starts commands of the package, where it can be in forks of a process with TensorFlow."""

    def __init__(self):
        is_available = command_server.IS_AVAILABLE
        self._server = command_server.CommandServer(env=_ENVIRONMENT) if is_available else None

    def start(self, line, output=subprocess.DEVNULL):
        """Start a command; return what has `wait()` as `subprocess.Popen`."""
        name, *arguments = line
        options = {"cwd": _ROOT, "env": _ENVIRONMENT, "stdout": output, "stderr": output}
        if self._server is None:
            return subprocess.Popen(
                [sys.executable, "-m", f"wsss_tf.{name}", *arguments], **options
            )
        return self._server.start([f"wsss_tf.{name}", *arguments], **options)

    def run(self, line, log):
        """Run a command to its end; return its status and what it said."""
        with open(log, "wb") as file:
            status = self.start(line, file).wait()
        return status, pathlib.Path(log).read_text(errors="replace")

    def ok(self, line, log):
        """Run one that must succeed."""
        status, said = self.run(line, log)
        if status:
            raise UserError(f"{' '.join(line)} ended with {status}, see {log}: {said[-300:]}")


# === What is compared ===


def contents(folder):
    """Return {name: what must be the same} of a folder's files; times and event files are not."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = set(name.split("/"))
        if not path.is_file() or parts & {".locks", "tensorboard", "stages", "checked_images.json"}:
            continue
        if path.suffix == ".keras":
            found[name] = _keras_weights(path)
        elif path.suffix in (".png", ".csv", ".txt") or name.startswith(("metrics", "crf", "cams")):
            found[name] = path.read_bytes()
    return found


def _keras_weights(path):
    from wsss_tf.training.networks import load_network

    return tuple(value.tobytes() for value in load_network(path).get_weights())


def half_files(folder):
    """Return the files of a folder that are not whole; hidden ones may be."""
    import numpy as np
    from PIL import Image

    bad = []
    for path in pathlib.Path(folder).rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        try:
            if path.suffix in (".png", ".jpg"):
                with Image.open(path) as picture:
                    picture.load()
            elif path.suffix == ".npz":
                with np.load(path) as arrays:
                    dict(arrays)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        raise ValueError("a check sum")
            elif path.suffix in (".gin", ".html") and not path.stat().st_size:
                raise ValueError("empty")
        except Exception as error:  # whatever is wrong with it
            bad.append(f"{path}: {error}")
    return bad


def differences(one, other):
    """Return the names of what differs between two folders."""
    one, other = contents(one), contents(other)
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


# === The rows ===


def chain(run):
    """Return the commands, by name, that make a whole run below a folder."""
    cam, affinity = run / "cam", run / "affinity"
    return {
        "train": ("train", "--gin_file=gin/seam.gin", f"--gin_file={_DATA / 'tiny.gin'}",
                  "--gin_bindings=Recipe.epochs=4", f"--run_dir={cam}"),
        "infer": ("infer", f"--run_dir={cam}", "--split=train"),
        "refine": ("refine", f"--run_dir={cam}", "--split=train", "--crf_processes=1"),
        "affinity": ("train", "--gin_file=gin/affinity.gin",
                     f"--gin_file={_DATA / 'tiny_affinity.gin'}",
                     f"--gin_bindings=with_crf_maps.run={str(cam)!r}", f"--run_dir={affinity}"),
        "walk": ("walk", f"--run_dir={cam}", f"--affinity_run={affinity}", "--split=train"),
        "evaluate": ("evaluate", f"--run_dir={cam}", "--split=train"),
        "export": ("export", f"--run_dir={cam}", f"--output={run / 'model'}", "--version=1"),
    }  # fmt: skip


def kill_rows(table, commands, folder, rng, kills):
    """Kill each command of the chain so many times, and compare what it then makes."""
    reference, killed = folder / "whole", folder / "killed"
    lines, log = chain(reference), folder / "log.txt"
    for share, (name, line) in enumerate(lines.items()):
        started = time.monotonic()
        commands.ok(line, log)
        seconds = time.monotonic() - started
        wanted = (kills + len(lines) - 1 - share) // len(lines)
        _kill_row(table, commands, killed, reference, name, seconds, wanted, rng, log)


def _kill_row(table, commands, killed, reference, name, seconds, wanted, rng, log):
    line = chain(killed)[name]
    before = killed.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    killed.mkdir(parents=True, exist_ok=True)
    shutil.copytree(killed, before, symlinks=True)
    done = runs = lost = half = 0
    while done < wanted:
        # Some kills in one run, then to its end; and again from the start.
        for _ in range(min(wanted - done, rng.randint(1, 3))):
            process = commands.start(line)
            time.sleep(rng.uniform(0.05, 1.1) * seconds)
            done += process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, 9)
            process.wait()
            half += len(half_files(killed))
        if _exported(name, killed):
            shutil.rmtree(killed / "model")  # a version is never written twice
        commands.ok(line, log)
        runs += 1
        wrong = differences(reference, killed) + left_overs(killed)
        if wrong:
            print(f"{name}: {wrong[:5]}", flush=True)
        lost += len(wrong)
        if done < wanted:
            shutil.rmtree(killed)
            shutil.copytree(before, killed, symlinks=True)
    result = f"{runs} runs gone on with to the end, {half} half files, {lost} differences"
    table.add(name, f"{done} kills within {seconds:.1f} s", result, lost + half)


def _exported(name, killed):
    return name == "export" and (killed / "model/1").exists()


def left_overs(folder):
    """Return what killed processes have left that a whole run should have removed."""
    found = [*folder.rglob(".wsss_tf-*"), *folder.rglob("step-*_temp"), *folder.rglob(".1.*")]
    return [f"{path}: left over" for path in found]


def pipeline_row(table, commands, folder, rng, kills):
    """Kill the whole pipeline at random moments."""
    log = folder / "log.txt"

    def line(run):
        return ("pipeline", f"--gin_file={_DATA / 'tiny_pipeline.gin'}", f"--run_dir={run}")

    started = time.monotonic()
    commands.ok(line(folder / "pipeline"), log)
    seconds = time.monotonic() - started
    run, done, half = folder / "pipeline_killed", 0, 0
    for _ in range(4 * kills):
        if done == kills:
            break
        process = commands.start(line(run))
        time.sleep(rng.uniform(0.02, 0.5) * seconds)
        done += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, 9)
        process.wait()
        time.sleep(1)  # its last command ends with it
        half += len(half_files(run)) if run.exists() else 0
    commands.ok(line(run), log)
    wrong = differences(folder / "pipeline", run)
    if wrong:
        print(f"pipeline: {wrong[:5]}", flush=True)
    result = f"1 run gone on with to the end, {half} half files, {len(wrong)} differences"
    table.add("pipeline", f"{done} kills within {seconds:.0f} s", result, len(wrong) + half)


def two_row(table, commands, folder):
    """Start the same training twice, and inferences of one split and of two."""
    run = folder / "two"
    lines = chain(run)

    def both(*pair):
        logs = [folder / f"two_{i}.txt" for i in range(2)]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(log, "wb")) for log in logs]
            processes = [commands.start(line, file) for line, file in zip(pair, files)]
            statuses = sorted(process.wait() for process in processes)
        return statuses, "".join(log.read_text(errors="replace") for log in logs)

    statuses, said = both(lines["train"], lines["train"])
    fine = statuses == [0, 2] and "is at work there" in said
    table.add("two trainings", "1 folder", f"statuses {statuses}", int(not fine))
    other = ("infer", f"--run_dir={run / 'cam'}", "--split=val")
    statuses, said = both(lines["infer"], lines["infer"])
    fine = statuses == [0, 2] and "is at work there" in said
    table.add("two inferences", "1 split", f"statuses {statuses}", int(not fine))
    statuses, said = both((*lines["infer"], "--overwrite"), other)
    table.add("two inferences", "2 splits", f"statuses {statuses}", int(statuses != [0, 0]))
    whole = folder / "whole"
    if whole.exists():
        wrong = [
            name for name in differences(whole / "cam", run / "cam")
            if name.endswith(".keras") or (name.startswith("cams/") and "train" in name)
        ]  # fmt: skip
        table.add("two, compared", "network and maps", f"{len(wrong)} differences", len(wrong))


def disk_row(table, commands, folder):
    """Have a file system fill up at several sizes; each time there is room, the command goes on."""
    disk, log = folder / "disk", folder / "log.txt"
    disk.mkdir()

    def mount(size, *more):
        line = ["mount", "-t", "tmpfs", "-o", ",".join([*more, f"size={size}k"]), "tmpfs", disk]
        return subprocess.run(line, capture_output=True).returncode == 0

    if not mount(100):
        table.add("full disk", "0 sizes", "not tried: no right to mount a file system")
        return
    tried = full = lost = 0
    try:
        lines = chain(disk)
        for name, line in lines.items():
            for more in (4, 40, 150):
                used = (shutil.disk_usage(disk).used + 1023) // 1024
                mount(used + more, "remount")
                status, said = commands.run(line, log)
                tried += 1
                if status:
                    full += 1
                    one_line = len(_LINE.findall(said)) == 1 and "Traceback" not in said
                    lost += not (status == 2 and one_line and "No space left" in said)
            mount(10**5, "remount")
            if name != "export" or not (disk / "model/1").exists():
                commands.ok(line, log)
        whole = folder / "whole"
        if whole.exists():
            wrong = differences(whole, disk)
            if wrong:
                print(f"full disk: {wrong[:5]}", flush=True)
            lost += len(wrong)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    table.add("full disk", f"{tried} runs", f"{full} ended in a line, all went on", lost)


def request_row(table, commands, folder, rng, count):
    """Send pictures and garbage to an exported model, and look at the memory."""
    import numpy as np
    import tensorflow as tf

    run = folder / "served"
    lines = chain(run)
    for name in ("train", "export"):
        commands.ok(lines[name], folder / "log.txt")
    model = tf.saved_model.load(run / "model/1")
    serve = model.signatures["serving_default"]
    noise = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    good = [tf.io.encode_jpeg(noise).numpy(), tf.io.encode_png(noise).numpy()]
    first = [serve(tf.constant([one]))["mask_bytes"].numpy() for one in good]
    seen, memory = collections.Counter(), []
    started = time.monotonic()
    for i in range(count):
        request = garbage(rng, good)
        try:
            serve(tf.constant([request]))
            seen["answered"] += 1
        except tf.errors.OpError as error:
            seen[type(error).__name__] += 1
        if i % (count // 10) == count // 20:
            memory.append(resident("self"))
    seconds = time.monotonic() - started
    last = [serve(tf.constant([one]))["mask_bytes"].numpy() for one in good]
    others = set(seen) - {"answered", "InvalidArgumentError"}
    said = ", ".join(f"{kind} {number}" for kind, number in sorted(seen.items()))
    result = f"{said}; resident MiB by tenths: {memory}"
    tried = f"{count} in {seconds:.0f} s"
    table.add("requests", tried, result, len(others) + int(first != last))


def garbage(rng, good):
    """Return a picture, or one that was damaged, or no picture."""
    contents = bytearray(rng.choice(good))
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(contents)
    if kind == 1:
        return rng.randbytes(rng.randrange(200))
    if kind == 2:
        return bytes(contents[: rng.randrange(len(contents))])
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(contents)) if kind == 3 else rng.randrange(60)
        contents[place] = rng.randrange(256)
    return bytes(contents)


def resident(process):
    """Return the resident memory of a process, MiB; 0 where the system does not say."""
    try:
        text = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s*(\d+) kB", text)
    return int(found[1]) // 1024 if found else 0


def memory_row(table, commands, folder, steps):
    """Train for many steps and look at the memory."""
    name, *line = chain(folder / "memory")["train"]
    more = (f"Recipe.steps={steps}", f"Recipe.min_epoch_steps={max(steps // 20, 1)}")
    line = (name, *line, *(f"--gin_bindings={binding}" for binding in more))
    samples, started = [], time.monotonic()
    with open(folder / "log.txt", "wb") as log:
        process = commands.start(line, log)
        while process.poll() is None:
            samples.append(resident(process.pid))
            time.sleep(0.5)
    tenth = max(len(samples) // 10, 1)
    memory = [max(samples[i : i + tenth]) for i in range(0, len(samples), tenth)]
    result = f"status {process.wait()}; resident MiB by tenths: {memory[:10]}"
    tried = f"{steps} steps in {time.monotonic() - started:.0f} s"
    table.add("training", tried, result, int(process.wait() != 0))


def main():
    """Run the script."""
    if not _OUTPUT.value:
        raise UserError("--output is missing: a folder for the runs and the table.")
    unknown = [row for row in _ROWS.value if row not in ROWS]
    if unknown:
        raise UserError(f"--rows={unknown[0]}: the rows are {', '.join(ROWS)}.")
    folder = pathlib.Path(_OUTPUT.value).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--output={folder}: is not empty; give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    commands, table, rng = Commands(), Table(), random.Random(_SEED.value)
    rows = _ROWS.value
    if "kills" in rows:
        kill_rows(table, commands, folder, rng, _KILLS.value)
    if "pipeline" in rows:
        pipeline_row(table, commands, folder, rng, max(_KILLS.value // 8, 1))
    if "two" in rows:
        two_row(table, commands, folder)
    if "disk" in rows:
        disk_row(table, commands, folder)
    if "requests" in rows:
        request_row(table, commands, folder, rng, _REQUESTS.value)
    if "memory" in rows:
        memory_row(table, commands, folder, _STEPS.value)
    write_text(folder / "soak.md", table.text() + "\n")
    print("\n" + table.text())
    if table.lost:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main)
