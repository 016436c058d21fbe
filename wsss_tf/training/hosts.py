"""Training over several hosts: who takes part, and what happens when one is lost.

Each host runs the same command with TF_CONFIG saying which of them it is. All hold the whole
network; each reads its own part of every batch and the gradients are summed. Only the chief (task
"chief", or else "worker" 0) validates and writes: nothing in a network differs between hosts, so
its checkpoint is everybody's. All read it when they start, from a file system that they share.

A host that dies breaks the connection to the others, whose next collective operation then fails.
There is no going on with fewer: every process ends, is started again by whatever supervises it, and
training goes on from the last checkpoint with the very batches that it would have had.
"""

import contextlib
import json
import os

import tensorflow as tf

from wsss_tf.errors import LostWorker, UserError


def cluster_size():
    """Return how many processes TF_CONFIG names; 1 where it is not set.

    Raises:
      UserError: it is no JSON, names tasks of other kinds, or not the one that this process is.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 1
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        jobs = {job: list(addresses) for job, addresses in cluster.items()}
        job, index = task.get("type"), int(task.get("index", 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG={text}: must be JSON such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}} ({error}).'
        ) from error
    if not jobs:
        return 1
    if strange := sorted(set(jobs) - {"chief", "worker"}):
        raise UserError(f"TF_CONFIG: no task {strange[0]!r} takes part; only chief and worker do.")
    if job not in jobs or not 0 <= index < len(jobs[job]):
        raise UserError(f"TF_CONFIG: the cluster has no task {job!r} {index}, as this one is said.")
    return sum(map(len, jobs.values()))


def is_over_hosts(strategy):
    """Return whether a distribution strategy is one over several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Return whether this process is the one that writes; the only one always is."""
    if not is_over_hosts(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return resolver.task_type == chief and resolver.task_id == 0


def check_same_everywhere(strategy, **values):
    """Compare integers with those of the other hosts.

    Raises:
      UserError: one of them differs.
    """
    if not is_over_hosts(strategy):
        return

    def gather():
        own = tf.constant([list(values.values())], tf.int64)
        return tf.distribute.get_replica_context().all_gather(own, axis=0)

    with lost_worker_as_error(strategy):
        gathered = tf.function(lambda: strategy.run(gather), autograph=False)()
        everywhere = strategy.experimental_local_results(gathered)[0].numpy()
    for name, column in zip(values, everywhere.T.tolist()):
        if len(set(column)) > 1:
            raise UserError(
                f"the hosts do not agree on the {name}: {column}, in the order of TF_CONFIG; do "
                "all of them see the same --run_dir and the same data?"
            )


# A worker has closed its connection, or has gone silent: the chief misses its heartbeats, or it is
# the chief itself, which does not answer those of the others in time.
_OF_A_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@contextlib.contextmanager
def lost_worker_as_error(strategy):
    """Turn what TensorFlow raises when another process has gone into `LostWorker`.

    Raises:
      LostWorker: with the first line of TensorFlow's reason.
    """
    try:
        yield
    except _OF_A_LOST_WORKER as error:
        if not is_over_hosts(strategy):
            raise
        lines = [line for line in error.message.splitlines() if "ollective ops" in line]
        raise LostWorker(
            f"another worker has gone ({(lines or error.message.splitlines())[0].strip()}); start "
            "the same command on every host again, to go on from the last checkpoint."
        ) from error
