"""The benchmark of the random walk, at a size that takes no time."""

import re

import pytest
from as_user import run_script


def test_prints_times_memory_and_rates():
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    result = run_script(
        "benchmark_random_walk", "--height=97", "--width=130", "--repeats=1", "--crf_images=2",
        "--processes=2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = re.findall(
        r"^\| walk, (dense|sparse) \| (\S+) \| (\d+) \| (\d+) \|$", result.stdout, re.M
    )
    assert [row[0] for row in rows] == ["dense", "sparse"]
    assert all(float(row[1]) > 0 and float(row[2]) > 50 for row in rows)
    [difference] = re.findall(r"difference of the scores: (\S+)", result.stdout)
    assert float(difference) < 2e-5
    rates = re.findall(r"^\| (\d) process\(es\) \| (\S+) \|$", result.stdout, re.M)
    [(processes, rate)] = rates
    assert processes == "2"
    assert float(rate) > 0


def test_wrong_processes_end_in_one_line():
    result = run_script("benchmark_random_walk", "--processes=two")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --processes=two")
