"""Commands of the package for scripts/soak.py: started, bounded in time, killed; Linux only."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

from process_memory import memory

from wsss_tf import command_server
from wsss_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def bounded(seconds, what):
    """Have a block end after so many seconds.

    Raises:
      UserError: it did not end by itself.
    """

    def stop(*_):
        raise UserError(f"{what}: hangs, it has not ended after {seconds} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _stat(process):
    """Return the fields of /proc/PID/stat behind the name; None if there is no such process."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def processor_seconds(process):
    """Return the processor time that a process and those below it have had; 0 if there is none."""
    stats = [_stat(one) for one in (process, *descendants(process))]
    return sum(sum(map(int, fields[11:15])) for fields in stats if fields is not None) / _TICKS


def descendants(process):
    """Return the processes below a process."""
    found = [process]
    for parent in found:
        for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found[1:]


def resident(process):
    """Return the resident memory of a process, MiB; 0 if there is none."""
    try:
        return memory("VmRSS", process)
    except (OSError, ValueError):  # gone, or about to be
        return 0


class Commands:
    """Runs commands of the package, as forks of a process that has TensorFlow.

    Args:
      log: file for what they say.
      limit: seconds after which one hangs.
    """

    def __init__(self, log, limit):
        self._server = command_server.CommandServer(env=_ENVIRONMENT)
        self.log = log
        self.limit = limit

    def start(self, line, output=subprocess.DEVNULL):
        """Start a command of the package, or a script's path; return a `command_server.Command`."""
        name, *arguments = line
        options = {"cwd": ROOT, "env": _ENVIRONMENT, "stdout": output, "stderr": output}
        target = name if name.endswith(".py") else f"wsss_tf.{name}"
        return self._server.start([target, *arguments], **options)

    def bounded(self, line):
        """Return a context for a command that must not hang."""
        return bounded(self.limit, f"{' '.join(line)} (see {self.log})")

    def run(self, line, seen=lambda process: None):
        """Run a command to its end; return its status and what it said.

        Args:
          line: the command.
          seen: called with the process again and again.
        """
        with self.bounded(line), open(self.log, "wb") as file:
            process = self.start(line, file)
            while process.poll() is None:
                seen(process.pid)
                time.sleep(0.05)
        return process.wait(), self.log.read_text(errors="replace")

    def ok(self, line, seen=lambda process: None):
        """Run one that must succeed; return the processor time that it took, seconds."""
        times = [0]

        def measure(process):
            times.append(max(times[-1], processor_seconds(process)))
            seen(process)

        status, said = self.run(line, measure)
        if status:
            raise UserError(f"{' '.join(line)} ended with {status}, see {self.log}: {said[-300:]}")
        return times[-1]

    def kill(self, line, is_time):
        """Start a command and kill it; return whether it had not ended before.

        Args:
          line: the command.
          is_time: function of the process.
        """
        with self.bounded(line):
            process = self.start(line)
            while process.poll() is None and not is_time(process.pid):
                time.sleep(0.05)
            below = descendants(process.pid)
            process.send_signal(signal.SIGKILL)
            was_killed = process.wait() == -signal.SIGKILL
        with bounded(60, f"what {' '.join(line)} had started, processes {below}"):
            while any(_stat(one) is not None for one in below):
                time.sleep(0.01)
        return was_killed
