import json
import os
import subprocess
import sys

import as_user
import pytest

from wsss_tf.errors import UserError
from wsss_tf.files.lock import at_work, holder, locked
from wsss_tf.files.run_folder import RunFolder

# Holds a lock until its standard input is closed.
_HOLDER = """
import sys
from wsss_tf.files.run_folder import RunFolder
with getattr(RunFolder(sys.argv[1]), sys.argv[2])(*sys.argv[3:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held():
    """Return a function that has another process hold a lock of a run folder."""
    processes = []

    def hold(folder, what, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, folder, what, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=as_user.ENVIRONMENT,
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_one_process_at_a_time_and_the_second_says_who_holds_it(tmp_path, held):
    other = held(tmp_path, "training")
    run = RunFolder(tmp_path)
    words = rf"{tmp_path}: .*process {other.pid} on .*, since 20"
    with pytest.raises(UserError, match=words), run.training():
        pass
    with run.writing("train"):  # what is not the network's may be worked on meanwhile
        pass
    other.kill()
    with run.training():
        assert f"process {os.getpid()} on" in holder(tmp_path, "training")
    assert holder(tmp_path, "training") is None


def test_labels_of_one_split_are_written_by_one_and_read_by_many(tmp_path, held):
    run = RunFolder(tmp_path)
    held(tmp_path, "reading", "train")
    with run.reading("train"), run.writing("val"):
        pass
    with pytest.raises(UserError, match="is at work there"), run.writing("train"):
        pass
    held(tmp_path, "writing", "val")
    for context in (run.reading, run.writing):
        with pytest.raises(UserError, match="is at work there"), context("val"):
            pass


def test_what_killed_processes_left_is_removed_when_nobody_is_at_work(tmp_path, held):
    run = RunFolder(tmp_path)
    left = (
        tmp_path / ".wsss_tf-01234567.json",
        tmp_path / "pseudo_labels/a/.wsss_tf-01234567.png",
        tmp_path / "cams/.0001.89abcdef.npz",  # as earlier versions called them
    )
    kept = (
        tmp_path / ".picture.89abcdef.png",  # the folder may be the user's
        tmp_path / "cams/0001.npz",
        tmp_path / "pictures/.wsss_tf-01234567.png",
    )
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    other = held(tmp_path, "writing", "val")
    for path in left:
        path.write_text("being written")
    with run.writing("train"):
        assert all(path.exists() for path in left)
    other.kill()
    other.wait()
    with run.writing("train"):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_folder_that_may_not_be_written_is_read_without_a_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "lock", "it") as descriptor:
        assert descriptor is None
    with at_work(tmp_path, "labels", "it", clean=lambda: pytest.fail("not alone")):
        pass


def test_a_missing_folder_is_not_made_by_reading_it(tmp_path):
    with RunFolder(tmp_path / "run").reading("train"):
        assert not os.path.exists(tmp_path / "run")


def test_a_lock_that_cannot_be_understood_has_some_holder(tmp_path, held):
    held(tmp_path, "training")
    (tmp_path / ".locks/training").write_text(json.dumps(["?"]))
    words = "another process is at work there"
    with pytest.raises(UserError, match=words), RunFolder(tmp_path).training():
        pass


def test_a_file_where_the_folder_should_be_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(UserError, match="is no folder and cannot be made"):
            RunFolder(path).training()
        with pytest.raises(UserError, match="is no folder and cannot be made"):
            RunFolder(path).writing("train", make=True)
