"""Locks on folders: who is at work in one.

A lock is a file that is locked (flock), so that it ends with the process that holds it, in whatever
way. The file stays, and says who held it last. Where a file system has no locks, or a folder may
not be written, nothing is locked.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import socket
import sys
import time

from wsss_tf.errors import UserError

LOCK_FOLDER = ".locks"
TRAINING = "training"
ANYONE = "anyone"  # shared by all who are at work in a folder
_SECONDS = 1.0
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def locked(path, what, is_shared=False, seconds=_SECONDS):
    """Hold the lock of a file; yields its file descriptor, None where there are no locks.

    Args:
      path: of the lock; made if it is not there.
      what: is at work, for the message, such as "--run_dir=RUN".
      is_shared: others may hold it too, if they share it likewise.
      seconds: to wait for it; a killed process takes a moment to end.

    Raises:
      UserError: another process holds it; the message says which.
    """
    path = pathlib.Path(path)
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a+"))
            taken = _take(file, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX, seconds)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield None
            return
        if not taken:
            raise UserError(
                f"{what}: {_holder(file)} is at work there; wait until it has ended, or end it."
            )
        _sign(file)
        yield file.fileno()


@contextlib.contextmanager
def at_work(folder, on, what, is_shared=False, clean=None):
    """Hold the lock `on` of a folder, and be one of those who are at work in it.

    Args:
      folder: path; made if it is not there.
      on: name of what is worked on, such as "labels of train": nobody else works on it meanwhile.
      what: as in `locked`.
      is_shared: only read it; others may do so too.
      clean: function without arguments that removes what killed processes have left in the folder;
        called if nobody else is at work in it.

    Raises:
      UserError: as in `locked`.
    """
    folder = pathlib.Path(folder)
    anyone = folder / LOCK_FOLDER / ANYONE
    with locked(folder / LOCK_FOLDER / _file_name(on), what, is_shared):
        if clean is not None:
            # Others are at work: the next one cleans.
            with contextlib.suppress(UserError), locked(anyone, what, seconds=0) as descriptor:
                if descriptor is not None:
                    clean()
        with locked(anyone, what, is_shared=True, seconds=60):
            yield


def holder(folder, on):
    """Return who holds the lock `on` of a folder, in words; None if nobody does."""
    path = pathlib.Path(folder) / LOCK_FOLDER / _file_name(on)
    with contextlib.suppress(OSError), path.open() as file:
        return None if _take(file, fcntl.LOCK_SH, seconds=0) else _holder(file)
    return None


def _file_name(text):
    """Return a file's name for a text such as a split's."""
    return re.sub(r"[^\w-]", "_", text)[:100]


def _take(file, kind, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)


def _sign(file):
    """Write into a lock who holds it."""
    program = pathlib.Path(sys.argv[0])
    is_own = program.parent.name == "wsss_tf"
    record = {
        "command": f"wsss_tf.{program.stem}" if is_own else program.name or "python",
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with contextlib.suppress(OSError):  # no room: the lock holds all the same
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(record).encode())


def _holder(file):
    """Return what a lock says about who holds it."""
    file.seek(0)
    try:
        record = json.loads(file.read())
        return (
            f"{record['command']} (process {record['process']} on {record['host']}, since "
            f"{record['since']})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
