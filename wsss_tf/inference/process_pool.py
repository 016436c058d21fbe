"""A function mapped over worker processes, in order, with a bounded number of calls under way."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

from wsss_tf.bounded_map import bounded_map
from wsss_tf.errors import UserError


def map_in_processes(function, arguments, processes=None):
    """Yield `function(*args)` for each `args` of an iterable, in order.

    Args:
      function: of a module (not a lambda), which its workers import; what that module imports
        decides how fast they start, so keep TensorFlow out of it. They also load the script that
        was started, which must do its work under `if __name__ == "__main__"`.
      arguments: iterable of tuples, read only a little ahead of the results: pictures need not fit
        in memory together.
      processes: how many; None for one a processor core, 1 for no other process at all.

    Raises:
      UserError: a worker was killed, which the system does where memory runs out.
      Whatever `function` raises.
    """
    processes = available_cores() if processes is None else processes
    if processes == 1:
        for args in arguments:
            yield function(*args)
        return
    # "spawn": a fork of a process in which TensorFlow has threads may hang.
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield from bounded_map(pool, function, arguments, ahead=2 * processes)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            f"a worker process of {processes} ended all of a sudden; if memory ran out, try fewer."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores():
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker():
    """Leave Ctrl-C to the parent, and do not outlive it should it be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait_for_parent():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()
