import errno

import numpy as np
import pytest

from wsss_tf.files.left_overs import temporary_name
from wsss_tf.files.png import save_mask
from wsss_tf.files.run_folder import CRF_NAMES, RunFolder, atomic_path, write_text
from wsss_tf.serving.versions import new_version


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
            folder.rmdir()
            folder.write_text("a file where the folder was: nothing can be removed from it")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()


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
