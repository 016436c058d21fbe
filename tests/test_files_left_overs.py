import errno
import shutil
import types

import annotation_files
import keras
import numpy as np
import pytest
from PIL import Image
from test_interop_files import cues_content, write_cues

from wsss_tf.files import run_folder
from wsss_tf.files.calibration import Calibration, save_calibration
from wsss_tf.files.left_overs import temporary_name
from wsss_tf.files.png import save_mask
from wsss_tf.files.run_folder import CRF_NAMES, RunFolder, atomic_path, write_text
from wsss_tf.interop.annotations.read import READERS
from wsss_tf.interop.annotations.write import write_labels
from wsss_tf.interop.sec_cues import convert_localization_cues
from wsss_tf.runs.sec_cues import CueWriter
from wsss_tf.serving.client import Labeller
from wsss_tf.serving.prediction import Prediction
from wsss_tf.serving.versions import new_version
from wsss_tf.training.initial_weights import save_weights


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "é" * 125 + ".png", "a." + "b" * 253])
def test_the_longest_names_that_a_folder_takes_can_be_written(tmp_path, name):
    assert len(temporary_name(name).encode()) <= 255
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_mask_of_the_longest_name_is_a_mask(tmp_path):
    save_mask(tmp_path / ("a" * 251 + ".png"), np.zeros((3, 5), np.uint8))
    [path] = tmp_path.iterdir()
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_first_error_is_the_one_that_is_seen(tmp_path):
    folder = tmp_path / "folder"

    def write():
        with atomic_path(folder / "file.txt"):
            shutil.rmtree(folder)
            folder.write_text("a file where the folder was: nothing can be removed from it")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()


def _interrupted(path):
    """Leave beside a path what a process leaves that was killed while it wrote it."""
    left = path.with_name(temporary_name(path.name))
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("half")
    # Another process would not remember that this one has looked there.
    run_folder._remove_abandoned_once.cache_clear()
    return left


def _write_labels(folder):
    annotation_files.write_pictures(folder)
    path, source = folder / "image_labels.csv", annotation_files.write_coco(folder)
    write_labels(READERS["coco"](source), path, masks=True)
    return path, folder / "class_names.txt", next((folder / "SegmentationClass").rglob("*.png"))


def _write_cues(folder):
    CueWriter(folder, npz=True).write(1, [("sub/a", np.eye(3, dtype=np.uint8))])
    return folder / "sub/a.png", folder / "sub/a.npz"


def _answer(folder):
    """Do as the client does when a server has answered."""
    picture, mask = folder / "picture.png", folder / "mask.png"
    Image.new("RGB", (5, 3)).save(picture)
    save_mask(mask, np.zeros((3, 5), np.uint8))
    answer = Prediction(mask.read_bytes(), {})
    server = types.SimpleNamespace(predict=lambda contents: answer)
    output = folder / "out"
    Labeller(server, output).label("sub/a", picture)
    return [output / f"{name}/sub/a{end}" for name, end in _ANSWERED]


_ANSWERED = (("overlays", ".jpg"), ("classes", ".json"), ("masks", ".png"))


def _write_calibration(folder):
    save_calibration(folder, Calibration(0.3, "5 masks"))
    return [RunFolder(folder).calibration]


def _convert_cues(folder):
    source, names = folder / "cues.gz", folder / "list.txt"
    write_cues(source, cues_content())
    names.write_text("a.jpg 0\nb.jpg 12\n")
    convert_localization_cues(source, names, folder / "out")
    return [folder / "out/a.png"]


def _convert_weights(folder):
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    save_weights(net, folder / "weights.npz")
    return [folder / "weights.npz"]


@pytest.mark.parametrize(
    "write",
    [_write_labels, _write_cues, _answer, _write_calibration, _convert_cues, _convert_weights],
)
def test_who_writes_again_removes_what_was_left(write, tmp_path):
    """What the commands write outside of a run's folders of maps and masks."""
    known, folder = tmp_path / "known", tmp_path / "interrupted"
    known.mkdir()
    names = [path.relative_to(known) for path in write(known)]
    left = [_interrupted(folder / name) for name in names]
    other = folder / ".wsss_tf-notes.txt"
    other.write_text("is no file that was being written")
    write(folder)
    assert all((folder / name).is_file() for name in names)
    assert len(left) == len(names) > 0
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_what_another_process_writes_is_left_alone(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        left = _interrupted(tmp_path / "b.txt")
        write_text(tmp_path / "b.txt", "whole")
        assert temporary.exists()
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    left = _interrupted(tmp_path / "a.txt")
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(tmp_path.iterdir()) == [left, tmp_path / "a.txt"]


def test_every_folder_of_maps_and_masks_is_cleaned(tmp_path):
    """Whoever adds a folder of files for each picture to a run folder adds it there too."""
    run = RunFolder(tmp_path)
    of_a_picture = (run.cam, run.pseudo_label, run.prediction, run.overlay, run.ir_label)
    paths = [path("sub/a") for path in of_a_picture]
    paths += [path(name, "sub/a") for name in CRF_NAMES for path in (run.crf, run.crf_label)]
    left = [path.with_name(f".wsss_tf-0123abcd{path.suffix}") for path in paths]
    for path in (*paths, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    run.remove_left_overs()
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in paths)


def test_the_next_export_removes_what_a_killed_one_has_left(tmp_path):
    left, others = tmp_path / ".3.01ab23cd", tmp_path / ".git"
    for folder in (left, others):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("half")
    with new_version(tmp_path) as first:
        write_text(first.path / "saved_model.pb", "whole")
        assert not left.exists()
        assert others.exists()
        with new_version(tmp_path) as second:  # another one at work is left alone
            assert first.path.exists()
            write_text(second.path / "saved_model.pb", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".locks", "1", "2"]
