import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.data.cues import sec_augmentation
from wsss_tf.errors import UserError
from wsss_tf.files import images

SEED = tf.constant([3, 4])


def example(height=30, width=50, image_id="a"):
    rng = np.random.default_rng(0)
    return {
        "id": tf.constant(image_id),
        "image": tf.constant(rng.integers(0, 256, (height, width, 3)), tf.uint8),
        "labels": tf.constant([1.0, 0.0]),
    }


def save_cues(folder, side=6, name="a"):
    index = np.random.default_rng(1).choice([0, 1, 2, 255], (side, side))
    images.save_mask(folder / f"{name}.png", index)
    return index


def half_pixel_bilinear(image, size):
    """Return [size, size, 3] by OpenCV's definition, in float64."""
    image = np.asarray(image, np.float64)
    for axis in (0, 1):
        length = image.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(position).astype(int)
        part = (position - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, length - 1)
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def test_warp_is_opencvs():
    before = example()
    result = sec_augmentation(image_size=41)(before, SEED)
    assert set(result) == {"id", "image", "labels"}
    colours = np.asarray(ops.denormalize_image(result["image"]))
    expected = half_pixel_bilinear(before["image"], 41)
    np.testing.assert_allclose(colours, np.round(colours), atol=1e-3)
    assert np.abs(colours - expected).max() <= 0.501


def test_warp_for_the_classifiers_keeps_the_corners():
    before = example()
    result = sec_augmentation(image_size=41, align_corners=True)(before, SEED)
    colours = np.asarray(ops.denormalize_image(result["image"]))
    np.testing.assert_allclose(colours[::40, ::40], before["image"][::29, ::49], atol=1e-3)
    assert np.abs(colours - np.round(colours)).max() > 0.1


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "map"])
def test_cues_lie_beside_the_image(tmp_path, in_graph):
    cues = save_cues(tmp_path)
    augment = sec_augmentation(image_size=64, cues=tmp_path)  # the grid is that of the files
    if in_graph:
        of_one = tf.autograph.experimental.do_not_convert(lambda x: augment(x, SEED))
        dataset = tf.data.Dataset.from_tensors(example()).map(of_one)
        assert dataset.element_spec["cues"].shape == (6, 6)
        assert dataset.element_spec["image"].shape == (64, 64, 3)
        result = next(iter(dataset))
    else:
        result = augment(example(), SEED)
    np.testing.assert_array_equal(result["cues"], cues)


def test_an_id_may_be_a_path(tmp_path):
    cues = save_cues(tmp_path, name="sub/b")
    augment = sec_augmentation(image_size=41, cues=tmp_path)
    np.testing.assert_array_equal(augment(example(image_id="sub/b"), SEED)["cues"], cues)


def test_image_and_cues_are_mirrored_together(tmp_path):
    cues = save_cues(tmp_path)
    augment = sec_augmentation(image_size=41, cues=tmp_path, flip=True)
    plain = sec_augmentation(image_size=41)(example(), SEED)["image"]
    seen = set()
    for i in range(12):
        result = augment(example(), tf.constant([0, i]))
        mirrored = not np.array_equal(result["cues"], cues)
        step = -1 if mirrored else 1
        np.testing.assert_array_equal(result["cues"], cues[:, ::step])
        np.testing.assert_array_equal(result["image"], plain[:, ::step])
        seen.add(mirrored)
    assert seen == {True, False}


def test_cues_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*no such folder"):
        sec_augmentation(cues=tmp_path / "nowhere")
    save_cues(tmp_path, side=7)
    augment = sec_augmentation(image_size=41, cues=tmp_path)
    save_cues(tmp_path, side=6)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"6,6.*7,7"
    ):  # all have to be of one size
        augment(example(), SEED)
