"""Labels and masks of the same pictures are compared."""

import re

import numpy as np
import pytest
from PIL import Image

from wsss_tf.data import agreement
from wsss_tf.data.agreement import compare_labels_with_masks
from wsss_tf.data.folder import folder_source
from wsss_tf.errors import UserError
from wsss_tf.files import images

NAMES = ("square", "disc", "apple")
# Which classes the pictures show, by their place in NAMES; no two classes come together always.
SHOWN = [{0}, {1}, {0, 1}, {2}, {1, 2}, {0}, {1}, {0, 2}]


def write(root, value_of=(1, 2, 3), names=True, number=8):
    """Write pictures, their labels, and masks in which classes have the values `value_of`."""
    rows = ["image,labels"]
    for i in range(number):
        classes = sorted(SHOWN[i % len(SHOWN)])
        picture = np.zeros((6, 9, 3), np.uint8)
        Image.fromarray(picture).save(root / f"{i:03d}.png")
        values = [0, 255, *(value_of[c] for c in classes)]
        images.save_mask(root / f"SegmentationClass/{i:03d}.png", np.resize(values, (6, 9)))
        rows.append(f"{i:03d},{' '.join(NAMES[c] for c in classes)}")
    (root / "image_labels.csv").write_text("\n".join(rows) + "\n")
    if names:
        (root / "class_names.txt").write_text("\n".join(["background", *NAMES]) + "\n")


def compare(root, **how):
    return compare_labels_with_masks(folder_source(root=root, **how))


def change_masks(root, function):
    for path in sorted((root / "SegmentationClass").iterdir()):
        Image.fromarray(function(images.load_mask(path))).save(path)


def test_what_agrees_is_not_spoken_of(tmp_path):
    write(tmp_path)
    assert compare(tmp_path) == []


def test_without_both_nothing_is_read(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(agreement, "_look", None)
    assert compare(tmp_path, compare_masks=False) == []
    source = folder_source(root=tmp_path)
    assert compare_labels_with_masks(source.without_masks()) == []


def test_a_few_that_differ_are_counted(tmp_path):
    write(tmp_path)
    images.save_mask(tmp_path / "SegmentationClass/003.png", np.resize([0, 2, 1], (6, 9)))
    (tmp_path / "SegmentationClass/004.png").write_bytes(b"broken")
    assert compare(tmp_path) == [
        f"{tmp_path.name}: the labels of 1 of 7 pictures compared differ from the classes in their "
        "masks, such as '003': its labels are apple, its mask shows square, disc."
    ]


def test_labels_that_come_from_masks_are_not_compared(tmp_path):
    write(tmp_path)
    rows = (tmp_path / "image_labels.csv").read_text().splitlines()
    rows[1:] = ["000,disc", "001,square"]
    (tmp_path / "image_labels.csv").write_text("\n".join(rows) + "\n")
    assert "the labels of 2 of 2 pictures compared" in compare(tmp_path)[0]


def test_names_in_another_order(tmp_path):
    """Without class_names.txt they are sorted: apple, disc, square."""
    write(tmp_path, names=False)
    with pytest.raises(UserError) as caught:
        compare(tmp_path)
    message = str(caught.value)
    assert "another order of names: 1 is 'square', 2 is 'disc', 3 is 'apple'; list" in message
    assert "class_names.txt" in message
    assert compare(tmp_path, compare_masks=False) == []


def test_values_that_begin_elsewhere(tmp_path):
    write(tmp_path, value_of=(4, 5, 6))
    with pytest.raises(UserError, match="4 is 'square', 5 is 'disc', 6 is 'apple'"):
        compare(tmp_path)


def test_masks_of_other_pictures(tmp_path):
    write(tmp_path)
    paths = sorted((tmp_path / "SegmentationClass").iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, other in zip(paths, contents[1:] + contents[:1]):
        path.write_bytes(other)
    why = r"of 8 pictures compared .* '000': its labels are square, its mask shows disc; are they"
    with pytest.raises(UserError, match=why):
        compare(tmp_path)


@pytest.mark.parametrize("labels", [True, False])
def test_masks_of_0_and_255(labels, tmp_path):
    write(tmp_path)
    if not labels:
        (tmp_path / "image_labels.csv").unlink()
    change_masks(tmp_path, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    with pytest.raises(UserError, match=r"8 masks looked at hold only 0 and 255, .* mean 1"):
        compare(tmp_path)


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda mask: images.palette()[mask], r"in colours \(RGB\)"),
        (lambda mask: np.dstack([mask] * 4), r"in colours \(RGBA\)"),
        (lambda mask: mask.astype(np.uint16), "in 16 bits"),
    ],
)
def test_masks_of_another_kind(convert, kind, tmp_path):
    write(tmp_path)
    change_masks(tmp_path, convert)
    with pytest.raises(UserError, match=rf"8 of 8 masks looked at are {kind}, such as .*000\.png"):
        compare(tmp_path)


def test_a_sample_is_read(tmp_path, monkeypatch):
    write(tmp_path, number=40)
    monkeypatch.setattr(agreement, "SAMPLE", 10)
    images.save_mask(tmp_path / "SegmentationClass/000.png", np.resize([0, 2], (6, 9)))
    [line] = compare(tmp_path)
    assert re.search("1 of 10 pictures compared", line)
