"""The comparison of precisions, of one network."""

import re

import pytest
from as_user import run_script, script_ok, user_error


@pytest.mark.large
def test_float32_is_float32():
    out = script_ok("compare_precision", "--methods=seam", "--size=32", "--policy=float32")
    rows = re.findall(r"^\| seam \| (\w+) \| (\S+) \| (\S+) \|$", out, re.M)
    assert {name for name, *_ in rows} == {"cam_low", "pcm_low", "cam", "cam_rv"}
    assert {(float(error), labels) for _, error, labels in rows} == {(0.0, "0.0%")}


def test_wrong_method_ends_in_one_line():
    user_error(run_script("compare_precision", "--methods=fcn"), "['fcn'] unknown")
