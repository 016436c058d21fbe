"""Run the commands in processes of their own, as users do."""

import os
import pathlib
import signal
import subprocess
import sys
import time

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


def kill_when(path, name, *arguments, within=120):
    """Start a command of the package and kill it as soon as a file is there.

    Args:
      path: the file to wait for.
      name, *arguments: as in `command`.
      within: seconds after which it is killed all the same.
    """
    process = subprocess.Popen(
        command(name, *arguments),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + within
    while not path.is_file() and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def weights_of(run_dir):
    """Return the trained network of a run as arrays by variable path, without random states."""
    import keras
    import numpy as np

    import wsss_tf.models  # noqa: F401, registers the layers

    net = keras.saving.load_model(run_dir / "checkpoints/last.keras", compile=False)
    return {v.path: np.asarray(v.value) for v in net.variables if "seed" not in v.path}
