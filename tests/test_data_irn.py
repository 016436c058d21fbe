"""IRN's data: Pillow's resizing of picture and label together, and files that are bad."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wsss_tf import ops
from wsss_tf.data import batches
from wsss_tf.data.irn import irn_augmentation, random_pillow_scale, resize_nearest, with_ir_labels
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder


def test_scaling_is_the_official_one(golden):
    data = golden("irn/affinity_labels")
    size = data["label_scaled"].shape
    np.testing.assert_array_equal(resize_nearest(data["label_full"], size), data["label_scaled"])
    np.testing.assert_array_equal(images.resize_bicubic(data["image"], size), data["image_scaled"])
    scale = float(data["scale"])
    example = {"image": tf.constant(data["image"]), "mask": tf.constant(data["label_full"])}
    scaled = random_pillow_scale(scale, scale)(example, [1, 2])
    np.testing.assert_array_equal(scaled["mask"], data["label_scaled"])
    np.testing.assert_array_equal(scaled["image"], data["image_scaled"])
    np.testing.assert_array_equal(data["label_full"][2::4, 2::4], data["label"])


def test_masks_are_resized_as_pillow_does():
    rng = np.random.default_rng(0)
    signature = [tf.TensorSpec([None, None], tf.uint8), tf.TensorSpec([2], tf.int32)]
    resize = tf.function(resize_nearest, input_signature=signature, autograph=False)
    off = 0
    for _ in range(40):
        old, new = rng.integers(1, 520, 2), rng.integers(1, 780, 2)
        mask = np.add.outer(np.arange(old[0]) * 7, np.arange(old[1])).astype(np.uint8)
        expected = np.asarray(
            Image.fromarray(mask).resize((int(new[1]), int(new[0])), Image.Resampling.NEAREST)
        )
        np.testing.assert_array_equal(resize(mask, new.astype(np.int32)), expected)
        for n, m in zip(old, new):
            product = np.floor((np.arange(m) + 0.5) * (n / m))
            summed = np.floor(np.cumsum([0.5 * n / m, *[n / m] * (m - 1)]))
            off += (product != summed).any()
    assert off > 5  # sizes at which the sum of positions and their product differ


@pytest.fixture
def source(tmp_path):
    """Two pictures whose red channel is their label, and these labels."""
    rng = np.random.default_rng(0)
    folder, run = tmp_path / "pictures", run_folder.RunFolder(tmp_path / "run")
    folder.mkdir()
    paths = []
    for i, size in enumerate([(30, 44), (61, 33)]):
        label = np.kron(rng.integers(0, 3, (8, 6)), np.ones((8, 8)))[: size[0], : size[1]]
        label[label == 2] = 255
        picture = np.stack([label, 0 * label, 255 - label], axis=-1).astype(np.uint8)
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(picture).save(paths[-1])
        images.save_mask(run.ir_label(str(i)), label.astype(np.uint8))
    labels = np.ones((2, 1), np.float32)
    return file_source("test", "train", ("background", "x"), ["0", "1"], labels, paths), run


def test_labels_follow_their_pictures(source):
    source, run = source
    augment = irn_augmentation(crop_size=48, min_scale=1.0, max_scale=1.0)
    dataset = batches.training_batches(with_ir_labels(source, run), augment, 2, 0, 0)
    seen = set()
    for batch in dataset.take(8).as_numpy_iterator():
        assert batch["image"].shape == (2, 48, 48, 3)
        assert batch["affinity_labels"].shape == (2, 12, 12)
        for image, label in zip(batch["image"], batch["affinity_labels"]):
            cells = np.round(ops.denormalize_image(image[2::4, 2::4]))
            outside = np.abs(image[2::4, 2::4]).max(-1) == 0  # the mean colour
            np.testing.assert_array_equal(label, np.where(outside, 255, cells[..., 0]))
            seen |= set(np.unique(label).tolist())
            assert outside.any()
    assert seen == {0, 1, 255}


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="multiple of the labels' stride, 4"):
        irn_augmentation(crop_size=50)
    with pytest.raises(ValueError, match="need 0 < smallest"):
        irn_augmentation(min_scale=0.0)


def test_files_that_are_bad_are_named(source):
    source, run = source
    with pytest.raises(UserError, match=r"with_ir_labels\.cam_run is not set"):
        with_ir_labels(source)
    images.save_mask(run.ir_label("1"), np.zeros((61, 34), np.uint8))
    with pytest.raises(UserError, match=r"1\.png: is 61 x 34, the image '1' 61 x 33"):
        with_ir_labels(source, run)
    run.ir_label("1").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png: cannot be read as a label"):
        with_ir_labels(source, run)
    run.ir_label("1").unlink()
    with pytest.raises(UserError, match=r"1 of 2 labels .* wsss_tf\.ir_labels --run_dir"):
        with_ir_labels(source, run)
