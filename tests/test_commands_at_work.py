"""Two commands on one folder: what may share does, and otherwise the second says who is at work."""

import os
import shutil

import as_user
import pytest

from wsss_tf.files.run_folder import RunFolder


@pytest.fixture
def run_copy(seam_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(seam_run, folder)
    return folder


def test_a_second_training_says_who_trains(run_copy):
    with RunFolder(run_copy).training():
        result = as_user.run("train", *as_user.TINY_SEAM, f"--run_dir={run_copy}")
    as_user.user_error(result, f"{run_copy}: ", f"(process {os.getpid()} on ", "is at work there")


def test_the_network_of_a_run_that_is_trained_may_be_used_and_that_is_said(run_copy, tmp_path):
    with RunFolder(run_copy).training():
        result = as_user.run(
            "infer", f"--run_dir={run_copy}", "--split=val", f"--output={tmp_path / 'out'}"
        )
    assert result.returncode == 0, result.stderr
    assert "is being trained by" in result.stderr
    assert f"process {os.getpid()}" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "--split=val"),
        ("infer", "--split=val", "--crf"),
        ("refine", "--split=val"),
        ("ir_labels", "--split=val"),
        ("calibrate", "--split=val"),
        ("evaluate", "--split=val"),
        ("walk", "--split=val", "--affinity_run={run}/other", "--output={run}/other"),
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_labels_that_are_being_written_are_left_to_who_writes_them(run_copy, command):
    shutil.copytree(run_copy, run_copy / "other")
    name, *flags = (part.format(run=run_copy) for part in command)
    with RunFolder(run_copy).writing("val"):
        result = as_user.run(name, *flags, f"--run_dir={run_copy}")
    as_user.user_error(result, f"{run_copy}: ", f"(process {os.getpid()} on ", "is at work there")
