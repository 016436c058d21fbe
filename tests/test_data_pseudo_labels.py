"""Pseudo labels in the place of a data set's masks, with and without image files."""

import functools

import numpy as np
import pytest
from PIL import Image

from wsss_tf.data import checks
from wsss_tf.data.pseudo_labels import with_pseudo_labels
from wsss_tf.data.shapes import shapes_source
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files import images

SIZE = (16, 16)
drawn = functools.partial(shapes_source, num_train=4, image_size=16)


def photographs(tmp_path, split):
    """Two image files with masks of their own, all ones."""
    for name in "ab":
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{name}.png")
        images.save_mask(tmp_path / f"masks/{name}.png", np.ones(SIZE, int))
    return file_source(
        "own", split, ("background", "cat"), ("a", "b"), np.ones((2, 1)),
        [tmp_path / f"{name}.png" for name in "ab"],
        [tmp_path / f"masks/{name}.png" for name in "ab"],
    )  # fmt: skip


@pytest.fixture(params=["drawn", "files"])
def base(request, tmp_path):
    return drawn if request.param == "drawn" else functools.partial(photographs, tmp_path)


@pytest.fixture
def folder(base, tmp_path):
    """A pseudo label for every image: its position where there is an object, 255 in a corner."""
    source = base(split="train")
    for i, image_id in enumerate(source.ids):
        label = np.full(SIZE, min(i, 1))
        label[:3, :5] = 255
        images.save_mask(tmp_path / f"labels/{image_id}.png", label)
    return tmp_path / "labels"


def test_masks_are_the_files_and_the_rest_is_the_base(base, folder):
    source, original = with_pseudo_labels(base(split="train"), folder), base(split="train")
    assert source.has_masks
    assert (source.ids, source.class_names) == (original.ids, original.class_names)
    checked, bad = checks.check(source)
    assert (len(checked), bad) == (len(source), [])
    for i in (0, 1):
        example = source.load(i)
        np.testing.assert_array_equal(example["image"], original.load(i)["image"])
        np.testing.assert_array_equal(example["labels"], original.labels[i])
        assert (example["mask"][:3, :5] == 255).numpy().all()
        assert (example["mask"][3:] == i).numpy().all()
    assert not np.array_equal(source.load(0)["mask"], original.load(0)["mask"])
    assert not source.without_masks().has_masks


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.full((16, 15), 1), "16 x 15, the image 16 x 16"),
        pytest.param(np.full(SIZE, 9), "value 9", marks=pytest.mark.large),
        (None, "its mask cannot be decoded"),
    ],
    ids=["size", "value", "broken"],
)
def test_labels_that_do_not_fit_are_named(base, folder, label, words):
    source = with_pseudo_labels(base(split="train"), folder)
    path = folder / f"{source.ids[1]}.png"
    if label is None:
        path.write_bytes(path.read_bytes()[:50])
    else:
        images.save_mask(path, label)
    with pytest.raises(UserError) as error:
        checks.check(source)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    good, [(image_id, _)] = checks.check(source, skip_bad_images=True)
    assert image_id == source.ids[1]
    np.testing.assert_array_equal(good.load(0)["mask"], source.load(0)["mask"])
    assert len(good.mask_paths) == len(source) - 1


def test_missing_labels_are_named(base, folder):
    (folder / f"{base(split='train').ids[0]}.png").unlink()
    with pytest.raises(UserError, match=r"1 of \d images of split 'train'.*infer --run_dir="):
        with_pseudo_labels(base(split="train"), folder)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        with_pseudo_labels(base(split="train"), folder / "nowhere")
