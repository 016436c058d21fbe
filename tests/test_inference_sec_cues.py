import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone

from wsss_tf import ops
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.vgg16 import vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov
from wsss_tf.errors import UserError
from wsss_tf.inference import sec_cues
from wsss_tf.models.sec import background_network, foreground_network, sec_network


def test_cues_agree_with_the_reference(golden):
    data = golden("sec/localization")
    heat = np.einsum("hwd,cd->hwc", data["fg_features"], data["fg_weights"])
    np.testing.assert_allclose(heat, data["fg_heat"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sec_cues.foreground_masks(heat), data["fg_mask"])
    np.testing.assert_array_equal(np.abs(data["bg_grad"]).max(-1), data["bg_absmax"])
    saliency = sec_cues.saliency(data["bg_grad"])
    np.testing.assert_array_equal(saliency, data["bg_saliency"])
    np.testing.assert_array_equal(sec_cues.background_mask(saliency), data["bg_mask"])
    labels = np.zeros(20)
    labels[data["labels"] - 1] = 1
    index = sec_cues.cues_of_maps(heat, data["bg_grad"], labels)
    np.testing.assert_array_equal(sec_cues.to_rows(index), data["cues"])


def test_foreground_masks_by_hand():
    scores = np.float32([[[10, -3], [2, -1]], [[2.1, -5], [-4, -1]]])
    masks = sec_cues.foreground_masks(scores)
    np.testing.assert_array_equal(masks[..., 0], [[True, False], [True, False]])
    assert not masks[..., 1].any()  # nothing is above a fifth of -1


def test_background_mask_by_hand():
    scores = np.arange(20.0)[::-1].reshape(4, 5)
    assert sec_cues.background_mask(scores, 0.1).nonzero()[1].tolist() == [3, 4]
    scores[3, 3:] = 0  # two are the least, and the third least is above them
    assert sec_cues.background_mask(scores, 0.1).sum() == 2
    scores[3, 2] = 0  # the third is equal: none is below it
    assert not sec_cues.background_mask(scores, 0.1).any()
    assert sec_cues.background_mask(scores, 1.0).sum() == 19


def test_saliency_takes_single_pixels_out_and_repeats_edges():
    gradient = np.zeros((4, 5, 2), np.float32)
    gradient[1, 2, 0] = -9  # alone
    gradient[3, 3:, 1] = -2  # with its repetition below, six of nine
    expected = np.zeros((4, 5))
    expected[3, 3:] = 2
    expected[3, 3] = np.median([0, 0, 0, 0, 2, 2, 0, 2, 2])
    np.testing.assert_array_equal(sec_cues.saliency(gradient), expected)


def test_smaller_masks_hide_larger_ones():
    masks = np.zeros((3, 4, 3), bool)
    masks[:2, :3, 0] = True  # 6 pixels
    masks[0, :, 1] = True  # 4
    masks[:, 0, 2] = True  # 3
    background = np.zeros((3, 4), bool)
    background[1:] = True
    index = sec_cues.merge(background, [2, 5, 9], masks)
    np.testing.assert_array_equal(index, [[9, 5, 5, 5], [9, 2, 2, 0], [9, 0, 0, 0]])
    assert index.dtype == np.uint8
    order = [2, 0, 1]
    again = sec_cues.merge(background, [9, 2, 5], masks[..., order])
    np.testing.assert_array_equal(again, index)


def test_no_class_leaves_the_background():
    index = sec_cues.merge(np.eye(3, dtype=bool), [], np.zeros((3, 3, 0), bool))
    np.testing.assert_array_equal(index, np.where(np.eye(3), 0, 255))


def test_index_and_rows_are_the_same_cues(tmp_path):
    index = np.random.default_rng(0).choice([0, 1, 7, 255], (5, 8)).astype(np.uint8)
    rows = sec_cues.to_rows(index)
    assert rows.dtype == np.int32
    assert rows.shape == (3, (index != 255).sum())
    assert rows.T.tolist() == sorted(rows.T.tolist())
    np.testing.assert_array_equal(sec_cues.to_index(rows, (5, 8)), index)
    sec_cues.save_rows(tmp_path / "sub/a.npz", index)
    np.testing.assert_array_equal(sec_cues.load_rows(tmp_path / "sub/a.npz"), rows)
    with np.load(tmp_path / "sub/a.npz") as file:
        assert file["labels"].tolist() == [1, 7]
        assert file["labels"].dtype == np.int32
    empty = np.full((5, 8), 255, np.uint8)
    np.testing.assert_array_equal(sec_cues.to_index(sec_cues.to_rows(empty), (5, 8)), empty)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1], [5], [0]], r"\[1, 5, 0\].*5 x 8"),
        ([[255], [0], [0]], "255"),
        ([[1, 2], [3, 3], [4, 4]], "two classes"),
    ],
    ids=["outside", "no class", "twice"],
)
def test_rows_that_are_no_cues(rows, words):
    with pytest.raises(ValueError, match=words):
        sec_cues.to_index(rows, (5, 8))


def test_a_file_that_is_no_cues(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.npz"):
        sec_cues.load_rows(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", cues=np.zeros((2, 4)))
    with pytest.raises(UserError, match=r"b\.npz.*\(2, 4\)"):
        sec_cues.load_rows(tmp_path / "b.npz")


def test_cues_of_another_methods_maps():
    cams = np.zeros((2, 9, 17), np.float16)
    cams[0, :5, :9] = 1  # rows 0..2 and columns 0..2 of the grid, with corners aligned
    cams[1, 4, 8] = 0.5
    index = sec_cues.cues_of_cams(np.int32([3, 4]), cams, (5, 5))
    expected = np.zeros((5, 5))
    expected[:3, :3] = 3
    expected[2, 2] = 4
    np.testing.assert_array_equal(index, expected)
    nothing = sec_cues.cues_of_cams(np.int32([]), cams[:0], (5, 5))
    assert (nothing == 255).all()


def networks():
    keras.utils.set_random_seed(0)
    narrow = functools.partial(vgg16, width=1 / 32, train_batchnorm=True)
    foreground = foreground_network(3, 33, functools.partial(narrow, pools=3), 1 / 32, True)
    background = background_network(3, 33, functools.partial(narrow, pools=5), 1 / 32)
    for layer in background.layers:  # so that gradients are far from zero
        if layer.name.endswith("_bg"):
            layer.kernel.assign(20 * layer.kernel)
    return foreground, background


def test_maps_are_the_networks(tmp_path):
    foreground, background = networks()
    images = ops.normalize_image(np.random.default_rng(0).integers(0, 256, (2, 29, 44, 3)))
    maps = sec_cues.LocalizationMaps(foreground, background)(images)
    np.testing.assert_allclose(maps["heat"], foreground(images)["heat"], atol=1e-6)
    gradient = np.asarray(maps["gradient"])
    assert gradient.shape == (2, 5, 5, 16)
    # A step along the gradient changes the sum of the logits by its square length.
    module = sec_cues.LocalizationMaps(foreground, background)
    features = module.lower(images)
    step = 1e-3 * gradient / np.abs(gradient).max()
    moved = np.sum(module.upper(features + step)) - np.sum(module.upper(features - step))
    np.testing.assert_allclose(moved, 2 * np.sum(step * gradient), rtol=5e-2)
    inner = keras.Model(background.input, background.get_layer("conv4_1_bn").output)
    np.testing.assert_allclose(features, inner(images), atol=1e-6)
    assert not gradient[np.asarray(features) < 0].any()  # the ReLU's own gradient is in it
    # Reloaded from files, as the script has them.
    for name, network in (("f", foreground), ("b", background)):
        network.save(tmp_path / f"{name}.keras")
    loaded = [keras.saving.load_model(tmp_path / f"{name}.keras") for name in "fb"]
    again = sec_cues.LocalizationMaps(*loaded)(images)
    np.testing.assert_allclose(again["gradient"], gradient, atol=1e-6 * np.abs(gradient).max())


def test_gradients_of_other_backbones_are_taken_at_their_second_stage(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = functools.partial(tiny_backbone, last=16)
    foreground = foreground_network(3, 64, backbone, 1 / 64)
    background = background_network(3, 64, backbone, 1 / 64)
    images = ops.normalize_image(np.random.default_rng(0).integers(0, 256, (2, 29, 44, 3)))
    module = sec_cues.LocalizationMaps(foreground, background)
    maps = {name: value.numpy() for name, value in module(images).items()}
    assert maps["heat"].shape == (2, 4, 4, 3)
    assert maps["gradient"].shape == (2, 8, 8, 32)
    assert maps["gradient"].any()
    features = background(images)["stage2"]
    np.testing.assert_allclose(module.lower(images), features, atol=1e-6)
    total = background(images)["class_logits"]
    np.testing.assert_allclose(module.upper(features), total, atol=1e-6)
    # By name, and from files, as the script has them.
    by_name = sec_cues.LocalizationMaps(foreground, background, "stage2")
    largest = np.abs(maps["gradient"]).max()
    np.testing.assert_allclose(by_name(images)["gradient"], maps["gradient"], atol=1e-6 * largest)
    background.save(tmp_path / "b.keras")
    loaded = keras.saving.load_model(tmp_path / "b.keras")
    again = sec_cues.LocalizationMaps(foreground, loaded)(images)
    np.testing.assert_allclose(again["gradient"], maps["gradient"], atol=1e-6 * largest)
    index = sec_cues.cues_of_maps(maps["heat"][0], maps["gradient"][0], np.float32([1, 0, 1]))
    assert index.shape == (4, 4)
    assert set(np.unique(index)) <= {0, 1, 3, 255}


def test_layers_that_no_gradient_can_be_taken_at():
    foreground, _ = networks()
    backbone = functools.partial(dilated_resnet, 50, width=1 / 16)
    background = background_network(3, 64, backbone, 1 / 64)
    with pytest.raises(UserError, match="no layer 'conv9'"):
        sec_cues.LocalizationMaps(foreground, background, "conv9")
    with pytest.raises(UserError, match="conv3_block2_1_conv"):  # a shortcut leads past it
        sec_cues.LocalizationMaps(foreground, background, "conv3_block2_1_conv")


def test_maps_of_other_grids_are_brought_to_the_networks():
    rng = np.random.default_rng(0)
    heat = rng.normal(size=(5, 7, 3)).astype(np.float32)
    gradient = rng.normal(size=(5, 7, 4)).astype(np.float32)
    labels = np.float32([0, 1, 1])
    usual = sec_cues.cues_of_maps(heat, gradient, labels)
    np.testing.assert_array_equal(sec_cues.cues_of_maps(heat, gradient, labels, size=[5, 7]), usual)
    small = np.abs(gradient).max(-1)[..., None]
    small[1:3, 2:5] = 0.0  # the corners of the finer map are those of the coarser one
    finer = np.asarray(ops.resize_bilinear(small[None], (9, 13), True))[0]
    index = sec_cues.cues_of_maps(heat, finer, np.zeros(3), background_share=0.15)
    assert index.shape == (5, 7)
    assert (index[1:3, 3] == 0).all()
    for present in (labels, np.zeros(3)):
        assert sec_cues.cues_of_maps(heat, finer, present, size=(3, 4)).shape == (3, 4)


def test_other_networks_are_refused():
    foreground, background = networks()
    segmentation = sec_network(4, 33, functools.partial(vgg16_largefov, width=1 / 64))
    with pytest.raises(UserError, match=r"'heat'.*sec_foreground"):
        sec_cues.LocalizationMaps(segmentation, background)
    with pytest.raises(UserError, match="fc8_bg"):
        sec_cues.LocalizationMaps(foreground, foreground)
    assert tf.is_tensor(foreground(np.zeros((1, 33, 33, 3)))["heat"])
