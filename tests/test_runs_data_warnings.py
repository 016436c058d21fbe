"""What is said before training: on stderr, a line each, of bounded length."""

import numpy as np
import pytest
from PIL import Image

from wsss_tf.data.folder import folder_source
from wsss_tf.errors import UserError, warn
from wsss_tf.files import images
from wsss_tf.runs.data_warnings import warn_of_data


@pytest.fixture
def root(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((6, 9), 100 * i, np.uint16)).save(tmp_path / f"{i}.png")
        images.save_mask(tmp_path / f"SegmentationClass/{i}.png", np.full((6, 9), 1 + i % 2))
    (tmp_path / "class_names.txt").write_text("background\ncat\ndog\n")
    (tmp_path / "image_labels.csv").write_text("image,labels\n0,cat\n1,dog\n2,cat\n3,cat\n")
    (tmp_path / "x.webp").touch()
    return tmp_path


def test_each_finding_is_a_line(root, capsys):
    warn_of_data(folder_source(root=root))
    out, err = capsys.readouterr()
    assert out == ""
    for line, words in zip(
        err.splitlines(), ["(.webp 1)", "(9 bits)", "1 of 4 pictures compared"], strict=True
    ):
        assert line.startswith("warning: ")
        assert words in line


def test_labels_that_do_not_fit_the_masks_end_the_command(root):
    (root / "class_names.txt").write_text("background\ndog\ncat\n")
    source = folder_source(root=root)
    with pytest.raises(UserError, match="3 of 4 pictures compared"):
        warn_of_data(source)
    warn_of_data(source, compare_masks=False)


def test_a_warning_is_a_short_line(capsys):
    warn("a\nb " + "c" * 5000)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: a b ccc")
    assert len(line) < 650
