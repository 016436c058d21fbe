import errno
import os

import pytest
import tensorflow as tf

from wsss_tf.errors import no_room


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
