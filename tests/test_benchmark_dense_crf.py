"""The benchmark of the dense CRF, at a size that takes no time."""

import re

import pytest
from as_user import run_script


def test_prints_ratios_and_rates():
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    result = run_script(
        "benchmark_dense_crf", "--height=57", "--width=80", "--rounds=1", "--images=2",
        "--processes=1", "--labels=2,9",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "80 x 57 pixels" in result.stdout
    rows = re.findall(r"^\| (\d) \| (\w+) \| (.+) \| (\S+) % \|", result.stdout, re.M)
    assert [row[:2] for row in rows] == [
        (labels, library) for labels in "29" for library in ("numba", "pydensecrf")
    ]
    for _, _, figures, same in rows:
        assert min(map(float, figures.split(" | "))) > 0
        assert float(same) > 99.9
    rates = re.findall(r"^\| (numba|pydensecrf) \| 1 \| (\S+) \|$", result.stdout, re.M)
    assert [library for library, _ in rates] == ["numba", "pydensecrf"]
    assert all(float(rate) > 0 for _, rate in rates)


@pytest.mark.parametrize("flag", ["--processes=two", "--labels=3,x"])
def test_wrong_numbers_end_in_one_line(flag):
    result = run_script("benchmark_dense_crf", flag)
    assert result.returncode == 2
    name = flag.partition("=")[0]
    assert result.stderr.strip().splitlines()[-1].startswith(f"error: {name}: give numbers")
