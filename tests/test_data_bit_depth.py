import numpy as np
import pytest
from PIL import Image

from wsss_tf.data.bit_depth import unused_bits


@pytest.mark.parametrize(
    ("largest", "said"), [(4095, "4095 of 65535 (12 bits)"), (1000, "(10 bits)"), (60000, "")]
)
def test_values_of_twelve_bits_are_said(largest, said, tmp_path):
    values = np.random.default_rng(0).integers(0, largest + 1, (40, 30), np.uint16)
    values[3, 5] = largest
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(values).save(path)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "damaged.png").write_bytes(paths[0].read_bytes()[:60])
    line = unused_bits([str(p) for p in (tmp_path / "grey.png", tmp_path / "damaged.png", *paths)])
    assert said in line
    assert bool(line) == bool(said)
    if largest == 4095:
        assert "multiply their values by 16." in line


def test_other_pictures_are_not_looked_into(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.jpg")
    assert unused_bits([str(tmp_path / "a.jpg"), str(tmp_path / "absent.png")]) == ""
