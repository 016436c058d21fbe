import numpy as np
import pytest

from wsss_tf.data.class_counts import class_lines, class_warnings
from wsss_tf.data.source import Source


def source(labels, names=None):
    labels = np.asarray(labels, np.float32)
    names = ("background", *(names or [f"c{i}" for i in range(labels.shape[1])]))
    ids = tuple(map(str, range(len(labels))))
    return Source("own", "train", names, ids, labels, None, False)


def test_each_class_has_a_line():
    labels = [[1, 0], [1, 1], [1, 0]]
    assert class_lines(source(labels, ["traffic light", "car"])) == [
        "own/train: 3 images; those that show each class:",
        "  traffic light      3",
        "  car                1",
    ]
    assert class_lines(source(np.zeros((3, 2)))) == []
    assert class_lines(source([[1], [0], [0]]))[-1] == "  none of them: 2"


@pytest.mark.parametrize(("count", "lines"), [(25, 26), (26, 1)])
def test_many_classes_are_summed_up(count, lines):
    found = class_lines(source(np.tri(count)))
    assert len(found) == lines
    if lines == 1:
        assert found[0].endswith(": 26 classes, from 1 (c25) to 26 (c0), median 13.")


def test_what_labels_hardly_teach_is_said():
    labels = np.zeros((40, 6))
    labels[:, 0] = 1
    labels[:20, 1] = labels[10:30, 2] = 1
    labels[:3, 3] = 1
    labels[10:30, 4] = 1
    names = ["sky", "car", "light", "bus", "traffic", "ship"]
    every, never, few, together = class_warnings(source(labels, names))
    assert every.startswith("all 40 pictures show 'sky': ")
    assert never == "no picture of split 'train' shows 'ship'."
    assert few.startswith("few pictures show 'bus' (3);")
    assert together.startswith("these always come together: 'light' and 'traffic' (20 pictures);")
    assert class_warnings(source(labels[:, 1:3], names[1:3])) == []
    assert class_warnings(source(np.zeros((3, 2)))) == []


def test_warnings_stay_short():
    [few] = class_warnings(source(np.eye(200)))
    assert few.startswith(
        "few pictures show 'c0' (1), 'c1' (1), 'c2' (1), 'c3' (1), 'c4' (1) and 195"
    )
