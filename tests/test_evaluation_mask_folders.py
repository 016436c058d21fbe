import numpy as np
import pytest
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.evaluation.mask_folders import evaluate_folders, read_class_names
from wsss_tf.files import images


@pytest.fixture
def folders(tmp_path):
    images.save_mask(tmp_path / "masks/a.png", np.array([[0, 0, 1, 255]]))
    images.save_mask(tmp_path / "masks/sub/b.png", np.array([[1, 1], [0, 0], [2, 2]]))
    images.save_mask(tmp_path / "predictions/a.png", np.array([[0, 1, 1, 2]]))
    images.save_mask(tmp_path / "predictions/sub/b.png", np.array([[1, 255], [0, 0], [2, 0]]))
    (tmp_path / "names.txt").write_text("background\ncat \ndog\nred fox\n\n")
    return tmp_path


def test_class_names_are_the_lines(folders):
    names = ("background", "cat", "dog", "red fox")
    assert read_class_names(folders / "names.txt") == names


def test_any_name_of_a_class_and_unfinished_files(folders):
    # No class need be called background here, and what a killed writer left is passed over.
    (folders / "predictions/.a.1234.png").write_bytes(b"half")
    (folders / "masks/a.png").rename(folders / "masks/a.PNG")
    metrics = evaluate_folders(folders / "predictions", folders / "masks", ["sky", "sea", "sand"])
    assert metrics["iou"] == {"sky": 0.6, "sea": 0.5, "sand": 0.5}
    assert metrics["extra_predictions"] == 0


def test_all_ignored(folders):
    for name in ("a", "sub/b"):
        path = folders / f"masks/{name}.png"
        images.save_mask(path, np.full_like(images.load_mask(path), 255))
    with pytest.raises(UserError, match="all 255"):
        evaluate_folders(folders / "predictions", folders / "masks", ["sky", "sea", "sand"])


def _remove_prediction(folders):
    (folders / "predictions/sub/b.png").unlink()


def _other_size(folders):
    images.save_mask(folders / "predictions/a.png", np.zeros((3, 4), np.uint8))


def _high_prediction(folders):
    images.save_mask(folders / "predictions/a.png", np.array([[0, 0, 1, 17]]))


def _high_mask(folders):
    images.save_mask(folders / "masks/a.png", np.array([[0, 0, 4, 0]]))


def _colour_mask(folders):
    Image.new("RGB", (4, 1)).save(folders / "masks/a.png")


def _broken_prediction(folders):
    path = folders / "predictions/a.png"
    path.write_bytes(path.read_bytes()[:60])


def _no_masks(folders):
    (folders / "masks/a.png").rename(folders / "masks/a.txt")
    (folders / "masks/sub/b.png").unlink()


def _blank_name(folders):
    (folders / "names.txt").write_text("background\n\ncat\n")


def _name_twice(folders):
    (folders / "names.txt").write_text("background\ncat\ncat\n")


def _no_names(folders):
    (folders / "names.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_remove_prediction, ["1 of 2 masks", "predictions/sub/b.png"]),
        (_other_size, ["predictions/a.png", "4x3", "masks/a.png", "4x1"]),
        (_high_prediction, ["predictions/a.png", "17", "0..3"]),
        (_high_mask, ["masks/a.png", "4 classes"]),
        (_colour_mask, ["masks/a.png", "RGB"]),
        (_broken_prediction, ["predictions/a.png", "cannot be read"]),
        (_no_masks, ["--masks=", "no PNG"]),
        (_blank_name, ["names.txt", "line 2"]),
        (_name_twice, ["names.txt", "line 3", "'cat'"]),
        (_no_names, ["--class_names=", "cannot be read"]),
    ],
)
def test_bad_folders(folders, spoil, words):
    spoil(folders)
    with pytest.raises(UserError) as caught:
        evaluate_folders(
            folders / "predictions", folders / "masks", read_class_names(folders / "names.txt")
        )
    for word in words:
        assert word in str(caught.value)
