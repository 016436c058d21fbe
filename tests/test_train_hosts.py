"""Training over several hosts, as two processes of this machine."""

import json
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf
from as_user import ENVIRONMENT, ROOT, command, weights_of

from wsss_tf.errors import LostWorker, UserError
from wsss_tf.runs import recipe
from wsss_tf.runs.training_run import train
from wsss_tf.training import hosts

GIN_FILES = ("gin/seam.gin", str(ROOT / "tests/data/tiny.gin"))
GIN_BINDINGS = ("Recipe.epochs=7", "Recipe.validation_split=None")  # 21 steps
ARGUMENTS = (
    *(f"--gin_file={path}" for path in GIN_FILES),
    *(f"--gin_bindings={binding}" for binding in GIN_BINDINGS),
    "--gin_bindings=Recipe.deterministic=True",
)


def start_workers(run_dir, *more):
    """Start the two workers of a run, with more flags."""
    sockets = [socket.socket() for _ in range(2)]
    for opened in sockets:
        opened.bind(("localhost", 0))
    addresses = [f"localhost:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                command("train", *ARGUMENTS, *more, f"--run_dir={run_dir}"),
                env={**ENVIRONMENT, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def finish(workers):
    """Wait for workers; return their exit statuses and what each printed."""
    outputs = [worker.communicate(timeout=200) for worker in workers]
    return [worker.returncode for worker in workers], outputs


def losses(text):
    return np.float64(re.findall(r"(?<= )loss\w*: ([\d.e+-]+)", text))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the weights of a run of two workers that nothing has disturbed."""
    run_dir = tmp_path_factory.mktemp("hosts") / "whole"
    statuses, outputs = finish(start_workers(run_dir))
    assert statuses == [0, 0], outputs
    assert all("2 replica(s)" in out for out, _ in outputs)
    np.testing.assert_array_equal(losses(outputs[0][0]), losses(outputs[1][0]))
    return weights_of(run_dir)


def wait_for_checkpoint(run_dir, workers):
    """Wait until a run has its first checkpoint."""
    deadline = time.monotonic() + 100
    while not (run_dir / "checkpoints/step-3.index").is_file():
        assert workers[0].poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.large
@pytest.mark.parametrize("silent", [0, 1])
def test_a_worker_that_goes_silent_is_noticed(silent, tmp_path):
    workers = start_workers(tmp_path / "run", "--gin_bindings=Recipe.epochs=1000")
    wait_for_checkpoint(tmp_path / "run", workers)
    workers[silent].send_signal(signal.SIGSTOP)
    other = workers[1 - silent]
    errors = other.communicate(timeout=200)[1]
    assert other.returncode == 75, errors
    workers[silent].send_signal(signal.SIGCONT)
    assert finish([workers[silent]])[0] == [75]


@pytest.mark.large
def test_a_run_whose_worker_is_killed_ends_as_an_undisturbed_one(whole, tmp_path):
    killed = tmp_path / "killed"
    workers = start_workers(killed)
    wait_for_checkpoint(killed, workers)
    workers[1].send_signal(signal.SIGKILL)
    # The other one notices by itself, and says that it is worth another try.
    statuses, outputs = finish(workers)
    assert statuses == [75, -signal.SIGKILL], outputs
    [line] = [line for line in outputs[0][1].splitlines() if line.startswith("error: ")]
    assert "another worker has gone" in line
    assert not (killed / "checkpoints/step-21.index").is_file()

    statuses, outputs = finish(start_workers(killed))
    assert statuses == [0, 0], outputs
    assert all("went on from step" in out for out, _ in outputs)
    resumed = weights_of(killed)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.large
def test_two_workers_train_as_one_process(whole, tmp_path):
    # The same global batch: the workers have read the two halves of it.
    train(recipe.load(GIN_FILES, GIN_BINDINGS), tmp_path / "one")
    one = weights_of(tmp_path / "one")
    difference = max(np.abs(one[name] - whole[name]).max() for name in one)
    print(f"largest difference of a weight after 21 steps: {difference:.1e}")
    assert difference < 2e-4  # float32 sums in another order, carried through the steps


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "must be JSON"),
        (
            {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}},
            "no task",
        ),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps"}}, "'ps'"),
    ],
    ids=["json", "index", "parameter server"],
)
def test_a_wrong_tf_config(config, words, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(UserError, match=words):
        hosts.cluster_size()


def test_one_host_is_no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert hosts.cluster_size() == 1
    monkeypatch.setenv(
        "TF_CONFIG",
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}),
    )
    assert hosts.cluster_size() == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (tf.errors.UnavailableError, "Error reported from /job:worker/task:1: Socket closed"),
        (tf.errors.AbortedError, "The following tasks are unhealthy (stopped sending heartbeats)"),
        (tf.errors.DeadlineExceededError, "Deadline Exceeded"),
        (tf.errors.CancelledError, "Cancelled"),
    ],
)
def test_whatever_tells_of_a_lost_worker_is_one_line(error, said, monkeypatch):
    monkeypatch.setattr(hosts, "is_over_hosts", lambda strategy: True)
    message = f"Node: reduce\nCollective ops is aborted by: {said}\n\nRPC: /tensorflow.Heartbeat"
    words = rf"gone \(Collective ops is aborted by: {re.escape(said)}\); start the same command"
    with pytest.raises(LostWorker, match=words), hosts.lost_worker_as_error(None):
        raise error(None, None, message)


def test_of_one_host_none_is_lost():
    with pytest.raises(tf.errors.DeadlineExceededError), hosts.lost_worker_as_error(None):
        raise tf.errors.DeadlineExceededError(None, None, "of something else")
