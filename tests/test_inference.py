"""Multi-scale CAMs: the official numbers, sizes, flips, and the files that come out."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_network import tiny_network

from wsss_tf import ops
from wsss_tf.data.source import Source
from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder
from wsss_tf.inference.multi_scale_cam import MultiScaleCam, multi_scale_scores, normalize_scores
from wsss_tf.inference.write_cams import label_source


class _Replay:
    """Stands for a network: gives the stored maps of each scale, picture and mirror image."""

    def __init__(self, arrays):
        self.arrays = arrays
        self.output = {"cam_rv": arrays["net_out_0"]}
        self.calls = 0

    def __call__(self, x, training):
        maps = tf.constant(self.arrays[f"net_out_{self.calls}"])[None]
        assert tuple(x.shape[1:3]) == tuple(self.arrays["sizes"][self.calls])
        self.calls += 1
        return {"cam": tf.zeros_like(maps), "cam_rv": maps}


def test_scores_are_the_official_ones(golden):
    arrays = golden("cam_inference")
    height, width = arrays["aligned_0"].shape[:2]
    pictures = tf.zeros([1, height, width, 3], tf.uint8)
    scores, _ = multi_scale_scores(_Replay(arrays), pictures)
    scores = scores[0] * arrays["label"]
    np.testing.assert_allclose(scores, np.maximum(arrays["sum_cam"], 0), atol=1e-5)
    normalised = normalize_scores(scores[None])[0]
    np.testing.assert_allclose(normalised, arrays["norm_cam"], atol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(arrays["label"]), arrays["cam_keys"])


class _ColourNet:
    """Class c scores where channel c of the picture is bright: flips and sizes must agree."""

    output = dict.fromkeys(("cam", "cam_rv"), np.zeros([1, 1, 1, 4]))

    def __call__(self, x, training):
        bright = tf.nn.relu(x)
        maps = tf.concat([tf.zeros_like(bright[..., :1]), bright], axis=-1)
        return {"cam": maps, "cam_rv": maps}


def _picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 3] = rng.integers(150, 255, 3)
    return picture


@pytest.mark.parametrize("size", [(7, 5), (33, 48), (64, 64)])
def test_mirrored_picture_gives_mirrored_cams(size):
    compute = MultiScaleCam(_ColourNet())
    picture = _picture(*size)
    cams = compute(picture[None])["cams"].numpy()
    mirrored = compute(picture[None, :, ::-1])["cams"].numpy()
    assert cams.shape == (1, *size, 3)
    np.testing.assert_allclose(mirrored[:, :, ::-1], cams, atol=2e-3)
    assert cams.min() >= 0
    np.testing.assert_allclose(cams.max(axis=(1, 2)), 1, atol=1e-4)


def test_same_scale_without_flip_is_the_network_itself():
    net = _ColourNet()
    picture = _picture(20, 30)[None]
    scores, probabilities = multi_scale_scores(net, tf.constant(picture), "cam", (1.0,), False)
    expected = net(ops.normalize_image(picture), training=False)["cam"][..., 1:]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(
        probabilities, tf.sigmoid(tf.reduce_mean(expected, axis=(1, 2))), atol=1e-6
    )


def test_copies_run_one_at_a_time():
    """Memory is that of one copy: the network is in the graph once, in a loop of one at a time."""
    compute = MultiScaleCam(tiny_network(3), scales=(0.5, 1.0, 2.0))
    graph = compute._compute.get_concrete_function()
    [loop] = [op for op in graph.graph.get_operations() if op.type == "While"]
    assert loop.get_attr("parallel_iterations") == 1
    assert not [op for op in graph.graph.get_operations() if op.type == "Conv2D"]
    assert graph.structured_outputs["cams"].shape.as_list() == [None, None, None, 3]


def test_unknown_output_is_refused():
    with pytest.raises(UserError, match="no output 'nope'"):
        MultiScaleCam(_ColourNet(), "nope")


def _source(labels):
    pictures = [_picture(10, 12), _picture(10, 12, 1), _picture(16, 9, 2)]

    def read(index):
        cases = [lambda p=p: tf.constant(p) for p in pictures]
        image = tf.switch_case(tf.cast(index, tf.int32), cases)
        image.set_shape([None, None, 3])
        return {"image": image}

    names = ("background", "red", "green", "blue")
    ids = ("a", "sub/b", "c")
    return Source("test", "all", names, ids, np.float32(labels), read, has_masks=False)


def test_label_source_writes_present_classes_and_skips_what_is_there(tmp_path):
    compute = MultiScaleCam(_ColourNet(), scales=(1.0,))
    source = _source([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert label_source(compute, source, tmp_path) == (3, 0)
    class_ids, cams = run_folder.load_cams(tmp_path / "cams", "a")
    assert class_ids.tolist() == [1, 3]
    assert cams.shape == (2, 10, 12)
    label = images.load_mask(tmp_path / "pseudo_labels/sub/b.png")
    assert (label[:5, :4] == 2).all()
    assert (label[5:] == 0).all()
    assert run_folder.load_cams(tmp_path / "cams", "c")[1].shape == (0, 16, 9)
    (tmp_path / "pseudo_labels/c.png").unlink()
    assert label_source(compute, source, tmp_path) == (1, 2)
    assert label_source(compute, source, tmp_path, overwrite=True) == (3, 0)


def test_unlabelled_source_takes_predicted_classes(tmp_path):
    compute = MultiScaleCam(_ColourNet(), scales=(1.0,))
    source = _source(np.zeros((3, 3)))
    label_source(compute, source, tmp_path, label_threshold=0.4)
    assert run_folder.load_cams(tmp_path / "cams", "a")[0].tolist() == [1, 2, 3]
    label_source(compute, source, tmp_path, label_threshold=0.99, overwrite=True)
    assert run_folder.load_cams(tmp_path / "cams", "a")[0].tolist() == []
