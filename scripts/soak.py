"""Kill commands at random moments, fill disks, send garbage; and see whether anything is lost.

  python scripts/soak.py --output=FOLDER [--kills=100] [--requests=20000] [--rows=kills,disk]

Each command is run once to its end, and once with kills (SIGKILL) at random moments of it, gone on
with each time. What both leave is compared bit for bit, and after each kill every file there must
be whole. The networks and scenes are those of tests/data/tiny*.gin, so that a command takes
seconds: this is about files, not about scores. Prints a table, which it also writes as
FOLDER/soak.md; exit status 1 if anything was lost. Linux only.

rows: kills, pipeline, two (processes on a folder), disk (a file system that fills up; needs the
right to mount one), requests (garbage among pictures, and the memory they take), memory (of
training). What hangs ends the script, which says what it was.
"""

import collections
import ctypes
import dataclasses
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from absl import flags
from soak_commands import ROOT, Commands, bounded, processor_seconds, resident
from soak_files import contents, differences, half_files, left_overs

from wsss_tf import command, command_server
from wsss_tf.errors import UserError
from wsss_tf.files.lock import ANYONE, TRAINING, holder
from wsss_tf.files.run_folder import write_text

ROWS = ("kills", "pipeline", "two", "disk", "requests", "memory")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the table; made afresh.")
_KILLS = flags.DEFINE_integer("kills", 100, "Kills altogether, over all commands.", 1)
_REQUESTS = flags.DEFINE_integer("requests", 20000, "Requests to an exported model.", 100)
_STEPS = flags.DEFINE_integer("steps", 5000, "Training steps for the row of memory.", 100)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the garbage.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Which of them.")
_LIMIT = flags.DEFINE_integer("limit", 1800, "Seconds after which one command hangs.", 1)

_DATA = ROOT / "tests/data"
_TENTHS = 10
# Growth of resident memory that is no growth: what allocators cannot give back comes and goes.
_FLAT = 1.0  # MiB in 1,000 steps or requests
_LARGEST = ((2**11, 2**11), (2**6, 2**16), (2**16, 2**6))  # 2^22 pixels, `export`'s own limit
_SIZES = tuple((20 + 8 * i, 20 + 8 * j) for i in range(20) for j in range(20))


@dataclasses.dataclass
class Table:
    """What was tried, and what came of it; also in a file, row by row."""

    path: pathlib.Path
    rows: list = dataclasses.field(default_factory=list)
    lost: int = 0

    def add(self, what, tried, result, lost=0):
        """Add a row, and say so."""
        self.rows.append((what, tried, result, lost))
        self.lost += lost
        print(f"{what}: {tried}; {result}; lost {lost}", flush=True)
        write_text(self.path, self.text() + "\n")

    def text(self):
        """Return it in Markdown."""
        lines = ["| what | tried | result | lost |", "| --- | --- | --- | ---: |"]
        return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in self.rows)])


def chain(run):
    """Return the commands, by name, that make a whole run below a folder."""
    cam, affinity = run / "cam", run / "affinity"
    exact = "--gin_bindings=Recipe.deterministic=True"
    return {
        "train": ("train", "--gin_file=gin/seam.gin", f"--gin_file={_DATA / 'tiny.gin'}",
                  "--gin_bindings=Recipe.epochs=4", exact, f"--run_dir={cam}"),
        "infer": ("infer", f"--run_dir={cam}", "--split=train"),
        "refine": ("refine", f"--run_dir={cam}", "--split=train", "--crf_processes=1"),
        "affinity": ("train", "--gin_file=gin/affinity.gin",
                     f"--gin_file={_DATA / 'tiny_affinity.gin'}", exact,
                     f"--gin_bindings=with_crf_maps.cam_run={str(cam)!r}", f"--run_dir={affinity}"),
        "walk": ("walk", f"--run_dir={cam}", f"--affinity_run={affinity}", "--split=train"),
        "evaluate": ("evaluate", f"--run_dir={cam}", "--split=train"),
        "export": ("export", f"--run_dir={cam}", f"--output={run / 'model'}", "--version=1"),
    }  # fmt: skip


def kill_rows(table, commands, folder, rng, kills):
    """Kill each command of the chain so many times, and compare what it then makes."""
    reference, killed = folder / "whole", folder / "killed"
    lines = chain(reference)
    for share, (name, line) in enumerate(lines.items()):
        seconds = commands.ok(line)
        wanted = (kills + len(lines) - 1 - share) // len(lines)
        _kill_row(table, commands, killed, reference, name, seconds, wanted, rng)


def _kill_row(table, commands, killed, reference, name, seconds, wanted, rng):
    line = chain(killed)[name]
    before = killed.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    killed.mkdir(parents=True, exist_ok=True)
    shutil.copytree(killed, before, symlinks=True)
    done = tries = runs = lost = half = 0

    def kill():
        moment = rng.uniform(0.05, 0.95) * seconds
        return commands.kill(line, lambda process: processor_seconds(process) >= moment)

    while done < wanted:
        # Some kills in one run, then to its end; and again from the start.
        for _ in range(min(wanted - done, rng.randint(1, 4))):
            was_killed = kill()
            done, tries = done + was_killed, tries + 1
            half += len(half_files(killed))
            if not was_killed:  # there is little left to do
                break
        if tries > 10 * wanted:
            raise UserError(f"{name}: ended by itself {tries - done} times of {tries}, too quick.")
        if name == "export" and (killed / "model/1").exists():
            shutil.rmtree(killed / "model")  # a version is never written twice
        commands.ok(line)
        runs += 1
        lost += len(differences(reference, killed)) + len(left_overs(killed))
        if done < wanted:
            shutil.rmtree(killed)
            shutil.copytree(before, killed, symlinks=True)
    result = f"{runs} runs gone on with to the end, {half} half files, {lost} differences"
    table.add(name, f"{done} kills within {seconds:.1f} s of processor time", result, lost + half)


def pipeline_row(table, commands, folder, rng, kills):
    """Kill the whole pipeline, and with it the commands that it runs, at random moments."""

    def line(run):
        return ("pipeline", f"--gin_file={_DATA / 'tiny_pipeline.gin'}", f"--run_dir={run}")

    reference, run, done, half = folder / "pipeline", folder / "pipeline_killed", 0, 0
    started = time.monotonic()
    commands.ok(line(reference))
    seconds = time.monotonic() - started
    for _ in range(10 * kills):
        if done == kills:
            break
        # By the clock: it has had little processor time itself.
        pause = rng.uniform(0.05, 0.5) * seconds
        was_killed = commands.kill(line(run), after(pause))
        done += was_killed
        half += len(half_files(run)) if run.exists() else 0
        if not was_killed:  # it has ended: again from the start
            shutil.rmtree(run)
    commands.ok(line(run))
    lost = len(differences(reference, run)) + len(left_overs(run))
    result = f"1 run gone on with to the end, {half} half files, {lost} differences"
    table.add("pipeline", f"{done} kills", result, lost + half)


def after(seconds):
    """Return a function of a process, whether so many seconds have gone by from now."""
    moment = time.monotonic() + seconds
    return lambda process: time.monotonic() >= moment


def two_row(table, commands, folder):
    """Run commands while another one is at work in the folder: each after the lock is held."""
    run = folder / "two"
    cam, lines = run / "cam", chain(run)

    def beside(first, second, on, expected):
        """Stop the first where it holds its lock, run the second, and let the first go on."""
        with commands.bounded(first):
            process = commands.start(first)
            name = f"process {process.pid} on"
            while process.poll() is None:
                time.sleep(0.02)
                process.send_signal(signal.SIGSTOP)
                # It must not stop where it keeps all others out for a moment, to clean the folder.
                if name in (holder(cam, on) or "") and holder(cam, ANYONE) is None:
                    break
                process.send_signal(signal.SIGCONT)
        status, said = commands.run(second)
        with commands.bounded(first):
            process.send_signal(signal.SIGCONT)
            statuses = process.wait(), status
        is_told = name in said and "is at work there" in said
        fine = statuses == (0, expected) and is_told == (expected == 2)
        if not fine:
            print(f"{' '.join(second)}: {said[-300:]}", flush=True)
        what = f"{second[0]} beside {first[0]}"
        table.add(what, "1 folder", f"statuses {statuses[0]} and {statuses[1]}", int(not fine))

    beside(lines["train"], lines["train"], TRAINING, 2)
    beside(lines["infer"], lines["infer"], "labels of train", 2)
    again = (*lines["infer"], "--overwrite")
    beside(again, lines["evaluate"], "labels of train", 2)
    other = ("infer", f"--run_dir={cam}", "--split=val")
    beside(again, other, "labels of train", 0)
    whole = folder / "whole/cam"
    if whole.exists():
        one, other = contents(whole), contents(cam)
        names = [name for name in other if name in one and not name.startswith("metrics")]
        lost = sum(one[name] != other[name] for name in names)
        table.add("what they wrote", f"{len(names)} files", f"{lost} differences", lost)


def disk_row(table, commands, folder):
    """Have a file system fill up at several sizes; each time there is room, the command goes on."""
    disk = folder / "disk"
    disk.mkdir()

    def mount(size, *more):
        line = ["mount", "-t", "tmpfs", "-o", ",".join([*more, f"size={size}k"]), "tmpfs", disk]
        return subprocess.run(line, capture_output=True).returncode == 0

    if not mount(100):
        table.add("full disk", "0 sizes", "not tried: no right to mount a file system")
        return
    tried = full = lost = 0
    try:
        for name, line in chain(disk).items():
            for more in (4, 40, 150):
                used = (shutil.disk_usage(disk).used + 1023) // 1024
                mount(used + more, "remount")
                status, said = commands.run(line)
                tried += 1
                if not status:
                    break
                full += 1
                is_line = len(re.findall(r"^error: ", said, re.M)) == 1 and "Traceback" not in said
                if not (status == 2 and is_line and "No space left" in said):
                    lost += 1
                    print(f"{name}: ended with {status}: {said[-300:]}", flush=True)
                lost += len(half_files(disk))
            mount(10**5, "remount")
            if status:
                commands.ok(line)
        whole = folder / "whole"
        if whole.exists():
            lost += len(differences(whole, disk))
        lost += len(left_overs(disk))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    table.add("full disk", f"{tried} runs", f"{full} ended in a line, all went on", lost)


def request_row(table, commands, folder, rng, count):
    """Send pictures and garbage to an exported model, and look at the memory."""
    run = folder / "whole"
    if not run.exists():
        for name in ("train", "export"):
            commands.ok(chain(run)[name])
    with bounded(commands.limit, "loading the model"):
        import tensorflow as tf

        model = tf.saved_model.load(run / "model/1")
    serve = model.signatures["serving_default"]
    noise = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    good = [tf.io.encode_jpeg(noise).numpy(), tf.io.encode_png(noise).numpy()]
    first = [serve(tf.constant([one]))["mask_bytes"].numpy() for one in good]
    # Damaged headers give some pictures other sizes, as large as the model takes and as thin as a
    # JPEG can be. TensorFlow's pool keeps what the largest took, and oneDNN what it has compiled
    # for the last few hundred sizes: bounded both, and full before anything is measured.
    for size in (*_LARGEST, *_SIZES):
        serve(tf.constant([tf.io.encode_png(np.zeros((*size, 3), np.uint8)).numpy()]))
    seen, memory, longest = collections.Counter(), [], 0
    started = time.monotonic()
    for i in range(count):
        request = garbage(rng, good)
        before = time.process_time()
        with bounded(commands.limit, f"request {i}, of {len(request)} bytes"):
            try:
                serve(tf.constant([request]))
                seen["answered"] += 1
            except tf.errors.OpError as error:
                seen[type(error).__name__] += 1
        longest = max(longest, time.process_time() - before)
        if (i + 1) * _TENTHS // count > len(memory):
            # What the allocator keeps of pictures of other sizes is no growth.
            ctypes.CDLL(None).malloc_trim(0)
            memory.append(resident("self"))
            print(f"{i + 1} requests: resident {memory[-1]:.0f} MiB", flush=True)
    seconds = time.monotonic() - started
    last = [serve(tf.constant([one]))["mask_bytes"].numpy() for one in good]
    others = set(seen) - {"answered", "InvalidArgumentError"}
    said = ", ".join(f"{kind} {number}" for kind, number in sorted(seen.items()))
    figures, is_flat = growth(memory, count)
    tried = f"{count} in {seconds:.0f} s, none longer than {longest:.1f} s of processor time"
    lost = len(others) + int(first != last) + int(not is_flat)
    table.add("requests", tried, f"{said}; {figures}", lost)


def growth(memory, count, warm_up=1):
    """Return figures of resident memory in tenths of `count`, in words, and whether it is flat.

    The first `warm_up` tenths do not count.
    """
    print(f"resident MiB by tenths: {[round(one) for one in memory]}", flush=True)
    thousands = count * (len(memory) - 1 - warm_up) / len(memory) / 1000
    each = (memory[-1] - memory[warm_up]) / thousands
    words = (
        f"resident {memory[0]:.1f} MiB in the first tenth, {memory[warm_up]:.1f} in tenth "
        f"{warm_up + 1}, {memory[-1]:.1f} in the last; from tenth {warm_up + 1} on {each:+.2f} in "
        "1,000"
    )
    return words, each <= _FLAT


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


def memory_row(table, commands, folder, steps):
    """Train for many steps, a tenth of them an epoch, and look at the memory."""
    _, *line = chain(folder / "memory")["train"]
    for binding in (f"Recipe.steps={steps}", f"Recipe.min_epoch_steps={steps // _TENTHS}"):
        line.append(f"--gin_bindings={binding}")
    started = time.monotonic()
    commands.ok((str(ROOT / "scripts/soak_training.py"), *line))
    said = commands.log.read_text()
    memory = [float(number) for number in re.findall(r"^resident (.*) MiB$", said, re.M)]
    # What is in use by the heaps hardly grows after the first 1,000 steps, but for some thousands
    # more it comes to lie in more pages, which cannot be given back.
    figures, is_flat = growth(memory, steps, _TENTHS // 2)
    tried = f"{steps} steps in {time.monotonic() - started:.0f} s"
    lost = int(not is_flat) + int(len(memory) != _TENTHS)
    table.add("training", tried, figures, lost)


def main():
    """Run the script."""
    if not _OUTPUT.value:
        raise UserError("--output is missing: a folder for the runs and the table.")
    unknown = [row for row in _ROWS.value if row not in ROWS]
    if unknown:
        raise UserError(f"--rows={unknown[0]}: the rows are {', '.join(ROWS)}.")
    if not command_server.IS_AVAILABLE:
        raise UserError("this script is for Linux: it looks at processes in /proc.")
    folder = pathlib.Path(_OUTPUT.value).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--output={folder}: is not empty; give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder / "soak.md")
    commands = Commands(folder / "log.txt", _LIMIT.value)
    rows, rng = _ROWS.value, random.Random(_SEED.value)
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
    print("\n" + table.text())
    if table.lost:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main)
