"""The package's commands as steps of a stage, each in a process of its own; several at a time.

No TensorFlow here: a server runs the commands that has imported it, where there can be one.
"""

import functools
import os
import shlex
import subprocess
import sys

from wsss_tf import command, command_server


def command_line(arguments):
    """Return what is executed for a command's name and flags, strings."""
    name, *flags = arguments
    return [sys.executable, "-m", f"wsss_tf.{name}", *flags]


def command_text(arguments):
    """Return a command as it is typed."""
    return shlex.join(["python", *command_line(arguments)[1:]])


def run_command(arguments, lock, beside=None, cores=None):
    """Run a command while this generator is asked for more; each time it gives None.

    The command ends with the generator. It has this process's terminal, where nothing else is at
    work.

    Args:
      arguments: its name and its flags, strings.
      lock: file descriptor to inherit; None for none.
      beside: what each line that it prints begins with, where other commands print too; None for a
        command that has the terminal for itself.
      cores: threads that TensorFlow is to compute with, if the user has not said how many.

    Raises:
      KeyboardInterrupt: Ctrl-C has ended it.
      SystemExit: it failed; with its status. What a user error is it has said itself.
    """
    lines = _Lines(beside) if beside else None
    print(f"{beside or ''}{command_text(arguments)}", flush=True)
    # The command ends itself when this pipe does, which is when this process has ended.
    read_end, write_end = os.pipe()
    environment = {**os.environ, command.PARENT_PIPE: str(read_end)}
    if cores:
        environment.setdefault("TF_NUM_INTRAOP_THREADS", str(cores))
    options = {"env": environment, "pass_fds": [fd for fd in (read_end, lock) if fd is not None]}
    if lines:
        # As a terminal's, each line is to be seen when it is written.
        options["stdout"] = lines.write_end
        environment["PYTHONUNBUFFERED"] = "1"
    process = None
    try:
        process = _start(command_line(arguments), **options)
        while (code := process.poll()) is None:
            if lines:
                lines.forward()
            yield
    finally:
        os.close(read_end)
        os.close(write_end)
        if process is not None:
            process.wait()
        if lines:
            lines.close()
    if code == 130:
        raise KeyboardInterrupt
    if code == 0:
        return
    if code != 2:
        why = f"was ended by signal {-code}" if code < 0 else f"has failed with status {code}"
        print(f"error: {command_text(arguments)} {why}; see above.", file=sys.stderr)
    sys.exit(128 - code if code < 0 else code)


class _Lines:
    """A pipe whose whole lines are printed behind a prefix."""

    def __init__(self, prefix):
        self._prefix = prefix
        self._rest = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def forward(self):
        """Print what has come."""
        try:
            while data := os.read(self._read_end, 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._print(line)
        except BlockingIOError:
            pass

    def close(self):
        """Print the rest."""
        self.forward()
        if self._rest:
            self._print(self._rest)
        os.close(self._read_end)
        os.close(self.write_end)

    def _print(self, line):
        # Of a line that was written over itself, what stood there last.
        text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
        print(f"{self._prefix}{text}", flush=True)


@functools.cache
def _server():
    """Return the server of this process' commands; it ends when the process does."""
    return command_server.CommandServer()


def _start(line, **options):
    """Start a line of `command_line`; return what has `poll()` and `wait()` as `Popen`."""
    if not command_server.IS_AVAILABLE:
        return subprocess.Popen(line, **options)
    _, *program = line
    return _server().start(program[1:] if program[0] == "-m" else program, **options)
