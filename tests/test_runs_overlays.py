"""Pictures with the colours of their masks over them."""

import numpy as np

from wsss_tf.files.png import palette
from wsss_tf.runs.overlays import overlay


def test_classes_are_half_covered_and_outlined():
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    mask = np.zeros((6, 9), np.uint8)
    mask[2:5, 3:8] = 2
    mask[5] = 255
    shown = overlay(image, mask)
    np.testing.assert_array_equal(shown[mask != 2], image[mask != 2])
    np.testing.assert_array_equal(shown[2, 3:8], np.broadcast_to(palette()[2], (5, 3)))
    inside = (image[3, 4].astype(int) + palette()[2]) // 2
    np.testing.assert_array_equal(shown[3, 4], inside)


def test_where_no_class_is_background_all_are_covered():
    image, mask = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8)
    np.testing.assert_array_equal(overlay(image, mask, has_background=False), 50)
    np.testing.assert_array_equal(overlay(image, mask), 100)
