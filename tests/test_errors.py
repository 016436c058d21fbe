import errno
import os

import as_user
import pytest
import tensorflow as tf

from wsss_tf.errors import no_path, no_room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_a_line_with_the_file(number):
    line = no_room(OSError(number, os.strerror(number), "/run/last.keras"))
    assert line.startswith(f"{os.strerror(number)} (/run/last.keras): ")


def test_tensorflow_and_hdf5_say_it_in_words():
    message = "{{function_node x}} /run/step-3.index; No space left on device [Op:MergeV2]"
    error = tf.errors.ResourceExhaustedError(None, None, message)
    assert no_room(error).startswith("No space left on device (/run/step-3.index): ")
    assert no_room(RuntimeError("write failed: errno = 27, 'File too large'")) is not None


def test_what_follows_from_a_full_disk_is_one_too():
    def close():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise ValueError("Can't close the ZIP file")

    with pytest.raises(ValueError, match="ZIP") as raised:
        close()
    assert no_room(raised.value).startswith("No space left on device: ")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        ValueError("a bug"),
    ],
)
def test_other_errors_are_left_as_they_are(error):
    assert no_room(error) is None


def test_paths_that_can_be_none_are_a_line(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path, words in ((tmp_path / "a", "links"), (tmp_path / ("x" * 256), "too long")):
        with pytest.raises(OSError, match=words) as raised:
            path.stat()
        assert no_path(raised.value).startswith(f"{path}: ")
    assert no_path(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None
    line = ("--model=seam", f"--source={tmp_path / ('x' * 256)}", f"--output={tmp_path / 'a.npz'}")
    as_user.user_error(as_user.run("convert", *line), "File name too long")
