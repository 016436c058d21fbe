"""The benchmark of the random walk, at a size that takes no time."""

import re

import pytest
from as_user import run_script


@pytest.mark.large
def test_prints_times_and_memory():
    result = run_script("benchmark_random_walk", "--height=97", "--width=130", "--repeats=1")
    assert result.returncode == 0, result.stderr
    rows = re.findall(
        r"^\| walk, (dense|sparse) \| (\S+) \| (\d+) \| (\d+) \|$", result.stdout, re.M
    )
    assert [row[0] for row in rows] == ["dense", "sparse"]
    assert all(float(row[1]) > 0 and float(row[2]) > 50 for row in rows)
    [difference] = re.findall(r"difference of the scores: (\S+)", result.stdout)
    assert float(difference) < 2e-5
