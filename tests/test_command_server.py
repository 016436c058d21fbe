"""Commands run by a server are what they are as processes of their own."""

import os
import signal
import subprocess
import sys

import pytest
from as_user import ENVIRONMENT, server_of_commands

from wsss_tf.command_server import CommandServer


@pytest.fixture(scope="module")
def server():
    """Return a server that has imported nothing: most of this is not about TensorFlow."""
    with CommandServer(modules=[], env=ENVIRONMENT) as server:
        yield server


@pytest.fixture
def script(tmp_path):
    """Return a function from a script's text to its path."""

    def write(text, name="script"):
        path = tmp_path / "folder" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def run(server, tmp_path):
    """Return a function that runs a command: (status, what it printed, its standard error)."""

    def run(arguments, server=server, **options):
        with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
            status = server.run(arguments, stdout=out, stderr=err, **options)
        return status, (tmp_path / "out").read_text(), (tmp_path / "err").read_text()

    return run


def test_operations_and_refusals_with_tensorflow_imported(run, script):
    operation = script(
        "import os\n"
        "from absl import flags\n"
        "import tensorflow as tf\n"
        "print(sorted(name for name in flags.FLAGS.flags_by_module_dict() if 'wsss' in name))\n"
        "print(len(os.listdir(f'/proc/{os.getppid()}/task')))  # threads of the server\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])\n"
        "pictures = tf.data.Dataset.range(8).map(\n"
        "    lambda i: tf.fill([9, 9, 3], tf.cast(i, tf.float32)), num_parallel_calls=4)\n"
        "kernel = tf.ones([3, 3, 3, 2])\n"
        "for batch in pictures.batch(8):\n"
        "    print(float(tf.reduce_max(tf.nn.conv2d(batch, kernel, 1, 'SAME'))))\n"
    )
    server = server_of_commands()
    for _ in range(2):
        status, out, err = run([operation], server)
        assert status == 0, err
        assert out.split() == ["[]", "1", "1", "189.0"]
    status, out, err = run(["wsss_tf.train", "--run_dir="], server)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: --run_dir is missing")
    assert "Traceback" not in err
    status, out, err = run(["wsss_tf.train", "--scales=1"], server)  # a flag of another
    assert status == 2
    assert "scales" in err


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [
        ("pass", 0, ""),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit(-1)", 255, ""),
        ("import sys; sys.exit('no')", 1, "no\n"),
        ("import os; os._exit(9)", 9, ""),
        ("import os; os.abort()", -signal.SIGABRT, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_exit_status(run, script, text, status, error):
    assert run([script(text)]) == (status, "", error)


def test_exception_has_its_traceback(run, script):
    path = script("def broken():\n    raise ValueError('bad value')\n\nbroken()\n")
    status, _, err = run([path])
    assert status == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert f'File "{path}", line 2, in broken' in err
    assert err.endswith("ValueError: bad value\n")


def test_what_a_command_finds_is_as_with_python(run, script, tmp_path):
    text = """\
import os, sys, atexit, threading
import beside
print(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), beside.ONE)
print(os.environ["GIVEN"], os.environ.get("HOME"), __spec__ and __spec__.name)
print(sys.modules["__main__"].__file__, sys.stdin.read())
atexit.register(print, "at the end")
threading.Timer(0.1, print, ["after the last line"]).start()
sys.stdout.write("no newline")
"""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("ONE = 1\n")
    path, cwd = script(text), tmp_path / "elsewhere"
    cwd.mkdir()
    environment = {"GIVEN": "a b\n=", "PATH": os.environ["PATH"]}
    for line in ([path, "--one", "two words"], ["script", "3"]):
        module = [] if line[0] == path else ["-m"]
        folder = cwd if line[0] == path else path.parent
        own = subprocess.run(
            [sys.executable, *module, *line],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert own.returncode == 0, own.stderr
        assert run(line, cwd=folder, env=environment) == (0, own.stdout, own.stderr)


def test_descriptors(run, script, tmp_path):
    read_end, write_end = os.pipe()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    text = (
        f"import os; os.write({write_end}, b'one'); os.write({other}, b'two'); print(*sorted("
        "int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')))"
    )
    status, out, err = run([script(text)], pass_fds=[other, write_end])
    os.close(write_end)
    os.close(other)
    assert (status, err) == (0, "")
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"one"  # to the end: the server has kept no copy
    assert (tmp_path / "other").read_bytes() == b"two"
    assert list(map(int, out.split())) == sorted([0, 1, 2, write_end, other])


def test_output_to_nowhere_and_to_this_process(server, script, capfd):
    path = script("import sys; print('out'); print('err', file=sys.stderr)")
    assert server.run([path], stdout=subprocess.DEVNULL) == 0
    assert capfd.readouterr() == ("", "err\n")
    assert server.run([path], stderr=subprocess.DEVNULL) == 0
    assert capfd.readouterr() == ("out\n", "")


def test_several_commands_at_once(server, script):
    read_end, write_end = os.pipe()
    path = script(f"import os; os.read({read_end}, 1)", "waiting")
    waiting = server.start([path], pass_fds=[read_end])
    os.close(read_end)
    assert server.run([script("import sys; sys.exit(3)", "short")]) == 3
    assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.01)
    os.close(write_end)
    assert waiting.wait(timeout=60) == 0
    assert waiting.poll() == waiting.wait() == 0
    waiting.send_signal(signal.SIGKILL)  # nobody


def test_lines_that_are_not_to_be_held_back_are_seen_at_once(server, script):
    read_end, write_end = os.pipe()
    path = script("import time; print('now'); time.sleep(600)")
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    command = server.start([path], env=environment, stdout=write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.readline() == b"now\n"
    command.send_signal(signal.SIGKILL)
    assert command.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals(server, script, number):
    read_end, write_end = os.pipe()
    path = script(f"import os, time; os.write({write_end}, b'+'); time.sleep(600)")
    command = server.start([path], stderr=subprocess.DEVNULL, pass_fds=[write_end])
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read(1) == b"+"
        command.send_signal(number)
        assert command.wait(timeout=60) == -number


def test_random_numbers_are_new_in_each_command(script, run):
    path = script("import random, numpy; print(random.random(), numpy.random.rand())")
    with CommandServer(["numpy"], ENVIRONMENT) as server:
        first, second = (run([path], server)[1].split() for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_ends_with_its_parent_and_its_commands_do(script):
    sleeping = script("import time; print('sleeping', flush=True); time.sleep(600)")
    code = (
        "from wsss_tf.command_server import CommandServer\n"
        "server = CommandServer([])\n"
        f"server.run([{str(sleeping)!r}])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert parent.stdout.readline() == b"sleeping\n"
    parent.kill()
    # Open in the server and in the command too: it ends when all have ended.
    assert parent.communicate(timeout=60) == (b"", None)


def test_commands_end_with_the_context(script):
    read_end, write_end = os.pipe()
    with CommandServer([]) as server:
        server.start([script("import time; time.sleep(600)")], pass_fds=[write_end])
        os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b""


def test_commands_of_a_command_are_run_by_its_server(script, run):
    inner = script("import os; print(os.getppid())", "inner")
    outer = script(
        "import os\n"
        "from wsss_tf.command_server import CommandServer\n"
        "print(os.getppid(), flush=True)\n"
        "for module in ('csv', 'json'):  # which its server has not imported, and has\n"
        "    with CommandServer([module]) as server:\n"
        f"        server.run([{str(inner)!r}])\n"
    )
    other = {**ENVIRONMENT, "OTHER": "1"}  # it may be for what is read at an import
    with CommandServer(["json"], ENVIRONMENT) as server:
        for environment, is_shared in ((ENVIRONMENT, True), (other, False)):
            status, out, err = run([outer], server, env=environment)
            assert status == 0, err
            own, *parents = out.split()
            assert [parent == own for parent in parents] == [False, is_shared]


def test_commands_of_a_killed_command_end(script):
    read_end, write_end = os.pipe()
    inner = script(f"import os, time; os.write({write_end}, b'+'); time.sleep(600)", "inner")
    outer = script(
        "from wsss_tf.command_server import CommandServer\n"
        f"CommandServer(['json']).run([{str(inner)!r}], pass_fds=[{write_end}])\n"
    )
    with CommandServer(["json"], ENVIRONMENT) as server:
        command = server.start([outer], env=ENVIRONMENT, pass_fds=[write_end])
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            assert pipe.read(1) == b"+"
            command.send_signal(signal.SIGKILL)
            assert pipe.read() == b""
        assert server.run([script("pass", "last")]) == 0  # their server has not ended


def test_server_that_has_ended_is_an_error(script, capfd):
    with CommandServer([]) as server:
        path = script("import os; os.kill(os.getppid(), 9)")
        for _ in range(2):  # while a command runs, and before it does
            with pytest.raises(RuntimeError, match="has ended"):
                server.run([path])
    with (
        CommandServer(["no_such_module"]) as server,
        pytest.raises(RuntimeError, match="has ended"),
    ):
        server.run([path])
    assert "no_such_module" in capfd.readouterr().err
