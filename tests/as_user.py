"""Run the commands in processes of their own, as users do."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Any folder may be the current one; recipes for tests name modules beside the tests.
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def command(name, *arguments):
    """Return the command line of `python -m wsss_tf.<name>`."""
    return [sys.executable, "-m", f"wsss_tf.{name}", *map(str, arguments)]


def run(name, *arguments, cwd=None):
    """Run a command of the package to its end."""
    return run_line(command(name, *arguments), cwd)


def run_script(name, *arguments, cwd=None):
    """Run a script of the scripts folder to its end."""
    return run_line([sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)], cwd)


def run_line(line, cwd=None):
    """Run a command line to its end."""
    return subprocess.run(line, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True)


def ok(name, *arguments, cwd=None):
    """Run a command of the package, which must succeed; return what it printed."""
    return _output(run(name, *arguments, cwd=cwd))


def script_ok(name, *arguments, cwd=None):
    """Run a script, which must succeed; return what it printed."""
    return _output(run_script(name, *arguments, cwd=cwd))


def _output(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def user_error(result, *words):
    """Check that a process ended with one line that says what is wrong, and with these words."""
    assert result.returncode == 2, result.stdout + result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line
