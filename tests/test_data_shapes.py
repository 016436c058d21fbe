"""The embedded data set: the same everywhere, and the problem it is meant to be."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.data import shapes
from wsss_tf.errors import UserError


def test_pictures_are_the_same_on_every_machine():
    pictures, masks = shapes._scenes("train", 20, 0, 96, 3, 0.3)
    digest = hashlib.sha256(pictures.tobytes() + masks.tobytes()).hexdigest()
    assert digest[:16] == "a04c190828733a5b"


def test_splits_share_no_picture():
    first = {shapes._scenes(s, 5, 0, 48, 3, 0.3)[0][0].tobytes() for s in shapes._STREAMS}
    assert len(first) == len(shapes._STREAMS)
    assert shapes._scenes("train", 1, 1, 48, 3, 0.3)[0].tobytes() not in first


def test_source_follows_the_contract():
    source = shapes.shapes_source("val", num_val=50, image_size=64)
    assert len(source) == 50
    assert source.class_names[0] == "background"
    sizes = []
    for i in range(50):
        example = source.load(tf.constant(i))
        mask = example["mask"].numpy()
        assert example["image"].shape == (64, 64, 3)
        present = np.isin(np.arange(1, 5), mask)
        np.testing.assert_array_equal(example["labels"].numpy() > 0, present)
        assert present.any()
        sizes += [(mask == c).mean() for c in np.flatnonzero(present) + 1]
    assert max(sizes) > 8 * min(sizes)  # objects of very different sizes
    assert (source.labels.sum(axis=1) > 1).any()  # several classes in a picture
    assert source.labels.mean(axis=0).min() > 0.2


def test_bodies_do_not_tell_the_class():
    # A body's mean grey, badge included, differs less between classes than within one.
    pictures, masks = shapes._scenes("train", 200, 0, 64, 1, 0.3)
    greys = [
        [p[m == c].mean() for p, m in zip(pictures, masks) if (m == c).any()] for c in range(1, 5)
    ]
    between = np.std([np.mean(g) for g in greys])
    within = np.mean([np.std(g) for g in greys])
    assert between < 0.3 * within


def test_unknown_split_is_refused():
    with pytest.raises(UserError, match="no split 'huh'; there are train, val"):
        shapes.shapes_source("huh")
