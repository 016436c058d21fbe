"""Probability maps in 16-bit PNG files: what is kept of them, and what TensorFlow reads."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.files import images, png


def maps(height=11, width=17, count=3, seed=0):
    probs = np.random.default_rng(seed).random((height, width, count))
    return (probs / probs.sum(-1, keepdims=True)).astype(np.float32)


def test_round_trip(tmp_path):
    path, probs = tmp_path / "sub/a.png", maps()
    probs[3, 4] = (1, 0, 0)
    png.save_probabilities(path, [0, 7, 200], probs)
    class_ids, loaded = png.load_probabilities(path)
    assert class_ids.tolist() == [0, 7, 200]
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, probs, atol=0.51 / 65535)
    assert loaded[3, 4].tolist() == [1, 0, 0]
    ids, size = png.probabilities_header(path)
    assert (ids.tolist(), size) == ([0, 7, 200], (11, 17))
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_tensorflow_reads_the_same_stack(tmp_path):
    png.save_probabilities(tmp_path / "a.png", [0, 7, 9], maps())
    stack = tf.io.decode_png(tf.io.read_file(str(tmp_path / "a.png")), 1, dtype=tf.uint16)
    assert stack.shape == (33, 17, 1)
    levels = tf.reshape(stack, [3, 11, 17]).numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(
        levels / np.float32(65535), png.load_probabilities(tmp_path / "a.png")[1]
    )


def test_maps_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"\(2,\) and probs \(11, 17, 3\)"):
        png.save_probabilities(tmp_path / "a.png", [0, 1], maps())
    with pytest.raises(ValueError, match="need 0 to 1"):
        png.save_probabilities(tmp_path / "a.png", [0, 1, 2], maps() - 0.5)
    with pytest.raises(ValueError, match="nan"):
        png.save_probabilities(tmp_path / "a.png", [0, 1, 2], maps() * np.nan)
    assert not any(tmp_path.iterdir())


def test_other_files_are_named(tmp_path):
    path = tmp_path / "a.png"
    images.save_mask(path, np.ones((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"a\.png: holds no probability maps"):
        png.load_probabilities(path)
    Image.fromarray(np.zeros((9, 5), np.uint16)).save(path)  # no class ids
    with pytest.raises(UserError, match="holds no probability maps"):
        png.load_probabilities(path)
    png.save_probabilities(path, [0, 1, 2], maps())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        png.load_probabilities(path)
    with pytest.raises(UserError, match=r"b\.png: cannot be read"):
        png.load_probabilities(tmp_path / "b.png")
