"""Commands that run out of room end in a line, and the same ones go on when there is some."""

import contextlib
import shutil
import subprocess

import as_user
import numpy as np
import pytest

from wsss_tf.files.run_folder import RunFolder


@contextlib.contextmanager
def small_disk(path, size):
    """Mount a file system of a size, such as "200k"; skip where that is not allowed."""
    path.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(line, capture_output=True).returncode:
        pytest.skip("skipped: no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def left_overs(folder):
    return [path for path in folder.rglob("*") if path.name.startswith((".wsss_tf-", ".1."))]


@pytest.mark.large
def test_training_with_files_too_large_goes_on_to_the_same_weights(seam_run, tmp_path):
    run = tmp_path / "run"
    line = ("train", *as_user.TINY_SEAM, f"--run_dir={run}")
    as_user.user_error(
        as_user.run_limited(60_000, *line),
        "File too large",
        f"{run}/checkpoints/best.keras",
        "run the same command again",
    )
    assert not left_overs(run)
    as_user.ok(*line)
    one, other = as_user.weights_of(seam_run), as_user.weights_of(run)
    for path, value in one.items():
        np.testing.assert_array_equal(value, other[path])


@pytest.mark.parametrize(
    ("limit", "command"),
    [
        (1000, "infer --split=train --output={out}"),
        pytest.param(1000, "evaluate --split=val", marks=pytest.mark.large),
        pytest.param(3000, "export --output={out}", marks=pytest.mark.large),
        pytest.param(200, "refine --split=val --crf_processes=1", marks=pytest.mark.large),
    ],
    ids=lambda value: str(value).partition(" ")[0],
)
def test_commands_whose_files_are_too_large(seam_run, tmp_path, limit, command):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(seam_run, run)
    if command.startswith(("evaluate", "refine")):
        as_user.ok("infer", f"--run_dir={run}", "--split=val")
    name, *flags = command.format(out=out).split()
    line = (name, *flags, f"--run_dir={run}")
    as_user.user_error(as_user.run_limited(limit, *line), "File too large")
    assert not left_overs(tmp_path)
    as_user.ok(*line)


@pytest.mark.large
def test_a_disk_that_is_full_loses_nothing(seam_run, tmp_path):
    disk = tmp_path / "disk"
    line = ("train", *as_user.TINY_SEAM, f"--run_dir={disk / 'run'}")
    with small_disk(disk, "300k"):
        as_user.user_error(as_user.run(*line), "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=5m", str(disk)], check=True)
        as_user.ok(*line)
        one, other = as_user.weights_of(seam_run), as_user.weights_of(disk / "run")
        for path, value in one.items():
            np.testing.assert_array_equal(value, other[path])
        infer = ("infer", f"--run_dir={disk / 'run'}", "--split=train")
        subprocess.run(["mount", "-o", "remount,size=480k", str(disk)], check=True)
        as_user.user_error(as_user.run(*infer), "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=5m", str(disk)], check=True)
        as_user.ok(*infer)
        assert len(list(RunFolder(disk / "run").cams.glob("*.npz"))) == 12
