"""Run commands without waiting for TensorFlow to be imported again.

  with CommandServer() as server:
      status = server.run(["wsss_tf.train", "--gin_file=gin/seam.gin", "--run_dir=RUN"])

A server is a process that imports TensorFlow and what the commands need, once, runs nothing, and
forks for each command. A command is then what it is with `python -m`: a process of its own, with
its own flags, gin settings, devices, exit status and traceback; but it starts at once.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

# On macOS there is os.fork(), but system libraries below TensorFlow do not promise to survive it.
# Elsewhere, run `python -m` instead.
IS_AVAILABLE = sys.platform == "linux"

# None of them defines a flag, which would then be a flag of every command, nor touches a device.
MODULES = (
    "wsss_tf.command",  # first: it sets what TensorFlow reads when it is loaded
    "wsss_tf.models",
    "wsss_tf.runs.training_run",
    "wsss_tf.inference.cam_crf",
    "wsss_tf.evaluation.metrics",
)

_NUMBER = struct.Struct("!q")
# In a command that a server has started: a socket to have that server run commands by, and what it
# has imported; None elsewhere.
_above = None
_START = "from wsss_tf.command_server import _serve; _serve({fd}, {modules})"


class Command:
    """A command that a server has started; as `subprocess.Popen`, as far as it goes."""

    def __init__(self, connection):
        self._connection = connection
        self.returncode = None
        self.pid = self._receive()

    def poll(self):
        """Return the exit status, negative for a signal; None while the command runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        """Wait for the end; return the exit status, negative for a signal.

        Raises:
          subprocess.TimeoutExpired: it still runs after `timeout` seconds.
          RuntimeError: the server has ended before the command.
        """
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = self._receive()
            self._connection.close()
        return self.returncode

    def send_signal(self, number):
        """Send a signal, if the command still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _receive(self):
        data = _read(self._connection, _NUMBER.size)
        if data is None:
            raise RuntimeError("the server of commands has ended; see standard error.")
        return _NUMBER.unpack(data)[0]


class CommandServer:
    """A process that has imported TensorFlow and forks for each command; a context manager.

    It starts in the background: only the first command waits for its imports. It ends with the
    context, or when this process has ended in any way, and ends the commands that still run.

    In a command of a server, where that server has imported all that is asked for and has the
    command's environment, it stands for that server: nothing is imported again.

    Args:
      modules: names of what is imported before a command is. They are not to define flags, start
        threads or touch devices.
      env: environment of the server, such as PYTHONPATH and what TensorFlow reads when it is
        loaded; a command's own comes too late for these. None is this process's.

    Raises:
      RuntimeError: this system cannot have one (`IS_AVAILABLE`).
    """

    def __init__(self, modules=MODULES, env=None):
        if not IS_AVAILABLE:
            raise RuntimeError(f"no server of commands on {sys.platform}: run python -m.")
        global _above
        self._lock = threading.Lock()
        if _above is not None and env is None and _above[1] >= set(modules):
            (self._control, _), _above = _above, None
            self._process = None
            return
        self._control, theirs = socket.socketpair()
        code = _START.format(fd=theirs.fileno(), modules=tuple(modules))
        # Ctrl-C is for the commands, each of which allows it again.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End the server, and the commands that still run."""
        self._control.close()
        if self._process is not None:
            self._process.wait()

    def run(self, arguments, cwd=None, env=None, stdout=None, stderr=None, pass_fds=()):
        """Run a command to its end.

        Args:
          arguments: a module's dotted name or a script's path, which ends in .py, then its own.
          cwd: current folder; None is this process's.
          env: all the environment variables; None are this process's.
          stdout, stderr: open files, file descriptors, or `subprocess.DEVNULL`; None are this
            process's.
          pass_fds: file descriptors that the command has under the same numbers.

        Returns:
          Exit status, negative for a signal.

        Raises:
          RuntimeError: the server has ended.
        """
        return self.start(arguments, cwd, env, stdout, stderr, pass_fds).wait()

    def start(self, arguments, cwd=None, env=None, stdout=None, stderr=None, pass_fds=()):
        """Start a command as `run` does; return a `Command`."""
        request = {
            "arguments": [os.fspath(argument) for argument in arguments],
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "pass_fds": list(pass_fds),
        }
        request = json.dumps(request).encode()
        connection, theirs = socket.socketpair()
        with contextlib.ExitStack() as files:
            descriptors = [
                files.enter_context(theirs).fileno(),
                0,
                _descriptor(stdout, 1, files),
                _descriptor(stderr, 2, files),
                *pass_fds,
            ]
            # Where the server has ended, the connection is closed, and `Command` says so.
            with self._lock, contextlib.suppress(BrokenPipeError):
                socket.send_fds(self._control, [_NUMBER.pack(len(request))], descriptors)
                self._control.sendall(request)
        return Command(connection)


def _descriptor(file, default, files):
    if file is None:
        return default
    if file == subprocess.DEVNULL:
        file = os.open(os.devnull, os.O_WRONLY)
        files.callback(os.close, file)
    return file if isinstance(file, int) else file.fileno()


def _read(connection, size):
    """Return so many bytes, None if the other side has gone."""
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except ConnectionResetError:
            more = b""
        if not more:
            return None
        data += more
    return data


def _serve(fd, modules):
    """Be a server: fork for each request until the other side of the socket is closed."""
    statuses = []
    atexit.register(_leave, statuses)  # before all others, which makes it the last
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    before = dict(os.environ)
    gc.disable()  # in an import nearly all stays, and to look it through takes a sixth of the time
    for module in modules:
        importlib.import_module(module)
    # What the imports have set holds for the commands too, unless they say otherwise.
    defaults = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()  # the commands are not to look through, and so copy, what they share
    gc.enable()

    # Readable when a command has ended.
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    controls = [control]  # those of commands that may ask for commands come behind it
    connections = {}  # by process, with the control that the command was asked for by
    while True:
        ready = select.select([*controls, ended], [], [])[0]
        if ended in ready:
            os.read(ended, 4096)
            _send_statuses(connections)
        asking = next((one for one in controls if one in ready), None)
        if asking is None:
            continue
        request, descriptors = _receive_request(asking)
        if request is None:
            for pid, (_, asked_by) in connections.items():
                if asking in (asked_by, control):
                    os.kill(pid, signal.SIGKILL)
            if asking is control:
                os._exit(0)
            controls.remove(asking)
            asking.close()
            continue
        connection = socket.socket(fileno=descriptors.pop(0))
        # A server that has imported nothing saves nothing.
        is_shared = bool(modules) and request["env"] == before
        own, theirs = socket.socketpair() if is_shared else (None, None)
        pid = os.fork()
        if pid == 0:
            break
        if is_shared:
            theirs.close()
            controls.append(own)
        connections[pid] = connection, asking
        _send_number(connection, pid)
        for descriptor in descriptors:
            os.close(descriptor)

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(ended)
    os.close(wake)
    others = [one for one, _ in connections.values()]
    for server_side in (*controls, connection, *others, *([own] if is_shared else [])):
        server_side.close()
    if is_shared:
        global _above
        # Out of the way of what is to have a certain number.
        number = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, max([2, *request["pass_fds"]]) + 1)
        theirs.close()
        _above = socket.socket(fileno=number), frozenset(modules)
    _prepare(**request, descriptors=descriptors, defaults=defaults)
    try:
        _run(sys.argv[0])
    except SystemExit as end:
        if isinstance(end.code, int):
            statuses.append(end.code & 0xFF)
        raise
    statuses.append(0)


def _leave(statuses):
    """End at once: taking TensorFlow and the interpreter apart takes half a second and more."""
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


def _receive_request(control):
    """Return a request and its descriptors, (None, []) if there will be none."""
    try:
        size, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, maxfds=64)
    except ConnectionResetError:
        size = b""
    request = _read(control, _NUMBER.unpack(size)[0]) if size else None
    return (None, []) if request is None else (json.loads(request), descriptors)


def _send_statuses(connections):
    """Take leave of the commands that have ended."""
    for pid in list(connections):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            connection, _ = connections.pop(pid)
            _send_number(connection, os.waitstatus_to_exitcode(status))
            connection.close()


def _send_number(connection, number):
    with contextlib.suppress(OSError):  # nobody waits for it
        connection.sendall(_NUMBER.pack(number))


def _prepare(arguments, cwd, env, pass_fds, descriptors, defaults):
    """Make of this process, a fork of the server, what a process of its own would start as."""
    targets = [0, 1, 2, *pass_fds]
    # Out of the way first: some may have a number that is another's target.
    copies = [fcntl.fcntl(source, fcntl.F_DUPFD, max(targets) + 1) for source in descriptors]
    for source in descriptors:
        os.close(source)
    for copy, target in zip(copies, targets):
        os.dup2(copy, target)
        os.close(copy)
    # Anew: the old one remembers whether one could seek in what it wrote to before.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)),
        sys.stdout.encoding,
        line_buffering=os.isatty(1) or "PYTHONUNBUFFERED" in env,
    )

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(defaults | env)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own is new after a fork
    sys.argv = arguments
    if sys.path[0] == "":
        is_script = _is_script(arguments[0])
        sys.path[0] = os.path.dirname(os.path.realpath(arguments[0])) if is_script else cwd
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _is_script(name):
    return name.endswith(".py")


def _run(name):
    """Run a module or a script as this process' main program."""
    if _is_script(name):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
