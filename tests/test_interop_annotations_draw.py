"""From the shapes of annotations to the pixels of masks."""

import base64
import io
import sys

import annotation_files as files
import numpy as np
import pytest
from annotation_files import VALUES, pixels, read, refused
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations.draw import draw_mask


def test_a_pixel_is_inside_if_its_centre_is(tmp_path):
    shapes = [
        files.labelme_shape("cat", [[0.6, 0.6], [3.4, 0.6], [3.4, 1.4], [0.6, 1.4]]),  # none: y
        files.labelme_shape("dog", [[0.4, 1.4], [3.4, 1.4], [3.4, 3.6], [0.4, 3.6]]),
        # A five-pointed star drawn in one go is empty in its middle, as even and odd have it.
        files.labelme_shape("traffic light", [[6, 0], [9.5, 8], [4, 3], [11, 3], [5, 8]]),
        files.labelme_shape("cat", [[-5, 6.6], [2, 6.6], [2, 99], [-5, 99]]),  # beyond the border
    ]
    annotations = read("labelme", tmp_path / "a.json", files.labelme("a.jpg", shapes))
    expected = files.drawn("""
        000000000000
        222000000000
        222000000000
        222000000000
        000000000000
        000000000000
        000000000000
        110000000000
    """)
    found = pixels(annotations.records[0])
    np.testing.assert_array_equal(found[:, :4], expected[:, :4])
    assert found[5, 7] == 0  # the middle of the star
    assert found[2, 6] == 3


def test_polygons_against_matplotlib():
    """Whether a point is inside is a question that matplotlib answers too."""
    from matplotlib.path import Path

    from wsss_tf.interop.annotations.record import Shape

    rng = np.random.default_rng(0)
    height, width = 37, 53
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    centres = np.stack([x.ravel(), y.ravel()], 1)
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(5, 40, 9)
        points = np.stack([26 + radius * np.cos(angle), 18 + radius * np.sin(angle)], 1)
        found, _ = draw_mask([Shape("cat", (points,))], (height, width), VALUES)
        expected = Path(np.concatenate([points, points[:1]])).contains_points(centres)
        np.testing.assert_array_equal(found.astype(bool).ravel(), expected)


def test_circles_and_masks_of_labelme(tmp_path):
    stamp = np.array([[1, 0, 1], [0, 1, 0]], np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(stamp).convert("1").save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    shapes = [
        files.labelme_shape("cat", [[3, 3], [3, 5]], "circle"),
        files.labelme_shape("dog", [[8, 5], [10, 6]], "mask", mask=encoded),
        files.labelme_shape("__ignore__", [[11, 0], [12, 0], [12, 8], [11, 8]]),
        files.labelme_shape("_background_", [[2, 2], [4, 2], [4, 3], [2, 3]]),
    ]
    annotations = read("labelme", tmp_path / "a.json", files.labelme("a.jpg", shapes))
    expected = files.drawn("""
        000000000009
        001100000009
        010010000009
        011110000009
        001100000009
        000000002029
        000000000209
        000000000009
    """)
    expected[expected == 9] = 255
    np.testing.assert_array_equal(pixels(annotations.records[0]), expected)
    assert annotations.records[0].classes() == {"cat", "dog"}


def coco_with(segmentation):
    content = files.coco()
    content["annotations"] = content["annotations"][:1]
    content["annotations"][0].update(segmentation=segmentation, iscrowd=1, category_id=1)
    return content


PACKED = "9261U2N"  # of pycocotools
RUNS = """
000000000000
011000000000
011000000000
001000000000
000000000000
000000000000
000000000000
000000000001
"""


def test_run_lengths_of_coco(tmp_path):
    """They go down the columns."""
    runs = {"size": [8, 12], "counts": [9, 2, 6, 3, 75, 1]}
    annotations = read("coco", tmp_path / "a.json", coco_with(runs))
    np.testing.assert_array_equal(pixels(annotations.records[0]), files.drawn(RUNS))


def test_packed_run_lengths_of_coco(tmp_path):
    coco_mask = pytest.importorskip("pycocotools.mask")
    packed = coco_mask.encode(np.asfortranarray(files.drawn(RUNS)))
    assert packed["counts"] == PACKED.encode()
    runs = {"size": [8, 12], "counts": packed["counts"].decode()}
    annotations = read("coco", tmp_path / "a.json", coco_with(runs))
    np.testing.assert_array_equal(pixels(annotations.records[0]), files.drawn(RUNS))


def test_packed_run_lengths_without_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    runs = {"size": [8, 12], "counts": PACKED}
    annotations = read("coco", tmp_path / "a.json", coco_with(runs))
    assert annotations.records[0].classes() == {"cat"}  # labels need no pixels
    with pytest.raises(UserError, match=r"annotation 1: .*pip install 'wsss_tf\[labels\]'"):
        pixels(annotations.records[0])


@pytest.mark.parametrize("counts", [[9, 2], [96, 1], [-1, 97], [9.5, "x"], [2**62, 2**62]])
def test_run_lengths_that_do_not_fit(counts, tmp_path):
    annotations = read("coco", tmp_path / "a.json", coco_with({"size": [8, 12], "counts": counts}))
    with pytest.raises(UserError, match="annotation 1: the runs of the mask are not 8 x 12"):
        pixels(annotations.records[0])


def test_run_lengths_of_another_size(tmp_path):
    runs = {"size": [99999, 99999], "counts": [1]}
    refused("annotation 1: the size of its mask", "coco", tmp_path / "a.json", coco_with(runs))


def test_run_lengths_and_ellipses_of_cvat(tmp_path):
    """Run lengths go along the rows of a box; shapes lie in the order of z_order."""
    a = """
    <mask label="cat" source="manual" occluded="0" rle="0, 2, 1, 1, 2" left="4" top="2" width="3"
      height="2" z_order="2">
    </mask>
    <ellipse label="dog" source="manual" occluded="0" cx="5.00" cy="4.00" rx="4.00" ry="2.00"
      z_order="0">
    </ellipse>"""
    annotations = read("cvat", tmp_path / "a.xml", files.cvat(a, ""))
    expected = files.drawn("""
        000000000000
        000000000000
        002211220000
        022212222000
        022222222000
        002222220000
        000000000000
        000000000000
    """)
    expected[2, 4:7] = [1, 1, 2]
    expected[3, 4:7] = [1, 2, 2]
    np.testing.assert_array_equal(pixels(annotations.records[0]), expected)


def test_small_shapes_lie_on_large_ones_where_the_order_means_nothing(tmp_path):
    annotations = read("coco", tmp_path / "a.json", files.coco())
    assert annotations.largest_first
    found = pixels(annotations.records[0], largest_first=True)
    np.testing.assert_array_equal(found, files.drawn(files.MASK_A))
