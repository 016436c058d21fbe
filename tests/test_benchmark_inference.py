"""The benchmark of folded networks, on a tiny one."""

from as_user import run_script, user_error
from PIL import Image


def test_prints_times_and_the_difference(seam_run, tmp_path):
    Image.new("RGB", (40, 30), (90, 140, 40)).save(tmp_path / "a.png")
    flags = (f"--run_dir={seam_run}", f"--picture={tmp_path}/a.png", "--repeats=1")
    result = run_script("benchmark_inference", *flags, "--size=45x60")
    assert result.returncode == 0, result.stderr
    cells = result.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert cells[0] == "60 x 45"
    assert all(float(cell) > 0 for cell in cells[1:4])
    assert float(cells[4]) < 1e-4
    user_error(run_script("benchmark_inference", *flags, "--size=45"), "--size=45: give HEIGHTx")


def test_asks_the_saved_models(seam_run, tmp_path):
    Image.new("RGB", (60, 45), (90, 140, 40)).save(tmp_path / "a.png")
    flags = (f"--run_dir={seam_run}", f"--picture={tmp_path}/a.png", "--clients=2", "--requests=2")
    result = run_script("benchmark_inference", *flags, "--repeats=1")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "60 x 45, same masks: True" in lines
    rows = [line.strip("| ").split(" | ") for line in lines[-3:]]
    assert rows[1][0] == "requests a second of 2"
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
