"""The benchmark against other libraries, where it needs none of them."""

import importlib.util
import re

import pytest
from as_user import run_script, user_error


def test_prints_a_ratio_and_says_what_is_missing():
    has_torch = importlib.util.find_spec("torch") is not None
    rows = "sweep" if has_torch else "input,sweep"
    sizes = ("--size=30x40", "--masks=3", "--passes=2", "--repeats=1")
    result = run_script("benchmark_peers", f"--rows={rows}", *sizes)
    assert result.returncode == 0, result.stderr  # also that both sweeps count alike
    [cells] = re.findall(r"^\| sweep \| (.+) \|$", result.stdout, re.M)
    ours, peer, ratio = map(float, cells.split(" | "))
    assert min(ours, peer) > 0
    assert ratio == pytest.approx(ours / peer, rel=0.1)
    missing = "input: left out; it needs torch (pip install torch).\n"
    assert result.stdout.startswith("sweep: " if has_torch else missing)
    assert result.stdout.count("| input |") == 0


def test_wrong_flags_end_in_one_line():
    user_error(run_script("benchmark_peers", "--rows=sweep,speed"), "['speed'] unknown")
    user_error(run_script("benchmark_peers", "--size=375"), "--size=375: give HEIGHTxWIDTH")
