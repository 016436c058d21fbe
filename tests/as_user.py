"""Run the commands and scripts as users do, each in a process of its own.

TensorFlow takes seconds to import, so the processes are forks of one that has done so (see
`wsss_tf.command_server`). With `fresh=True`, Python is started for the command, as a user does.
"""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from wsss_tf import command_server

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Any folder may be the current one; recipes for tests name modules beside the tests.
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}

TINY_SEAM = ("--gin_file=gin/seam.gin", f"--gin_file={ROOT / 'tests/data/tiny.gin'}")


def command(name, *arguments):
    """Return the command line of `python -m wsss_tf.<name>`."""
    return [sys.executable, "-m", f"wsss_tf.{name}", *map(str, arguments)]


def run(name, *arguments, cwd=None, fresh=False):
    """Run a command of the package to its end; return a `subprocess.CompletedProcess`."""
    return _run_line(command(name, *arguments), cwd, fresh)


def run_script(name, *arguments, cwd=None, fresh=False):
    """Run a script of the scripts folder, or of another path, to its end, as `run` does."""
    line = [sys.executable, ROOT / "scripts" / f"{name}.py", *arguments]
    return _run_line([*map(str, line)], cwd, fresh)


def ok(name, *arguments, cwd=None, fresh=False):
    """Run a command of the package, which must succeed; return what it printed."""
    return _output(run(name, *arguments, cwd=cwd, fresh=fresh))


def script_ok(name, *arguments, cwd=None, fresh=False):
    """Run a script, which must succeed; return what it printed."""
    return _output(run_script(name, *arguments, cwd=cwd, fresh=fresh))


def _run_line(line, cwd, fresh):
    if fresh or not command_server.IS_AVAILABLE:
        return subprocess.run(line, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True)
    arguments = line[2:] if line[1] == "-m" else line[1:]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        options = {"cwd": cwd, "env": ENVIRONMENT, "stdout": out, "stderr": err}
        status = server_of_commands().run(arguments, **options)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(line, status, out.read(), err.read())


def run_limited(size, name, *arguments):
    """Run a command of the package to its end, in which no file may grow beyond `size` bytes."""
    line = [str(ROOT / "tests/limited_files.py"), str(size), name, *map(str, arguments)]
    # What it says goes through pipes, which the limit is not for.
    options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if not command_server.IS_AVAILABLE:
        return subprocess.run([sys.executable, *line], text=True, **options)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        outputs = {"stdout": subprocess.DEVNULL, "stderr": reader.stdin}
        process = server_of_commands().start(line, env=ENVIRONMENT, **outputs)
        said = reader.communicate()[0].decode()
        return subprocess.CompletedProcess(line, process.wait(), "", said)


@functools.cache
def server_of_commands():
    """Return this process' `CommandServer` with TensorFlow, which ends with it."""
    return command_server.CommandServer(env=ENVIRONMENT)


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


def start(name, *arguments, cwd=None):
    """Start a command of the package, whose output goes nowhere.

    Returns:
      What has `pid`, `poll()`, `wait()` and `send_signal()` as `subprocess.Popen`.
    """
    line, nowhere = command(name, *arguments), subprocess.DEVNULL
    options = {"cwd": cwd, "env": ENVIRONMENT, "stdout": nowhere, "stderr": nowhere}
    if not command_server.IS_AVAILABLE:
        return subprocess.Popen(line, **options)
    return server_of_commands().start(line[2:], **options)


def kill_when(path, name, *arguments, within=120):
    """Start a command of the package and kill it as soon as a file is there.

    Args:
      path: the file to wait for.
      name, *arguments: as in `command`.
      within: seconds after which it is killed all the same.
    """
    process = start(name, *arguments)
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
