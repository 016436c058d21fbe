"""Errors that end a command in one line, warnings, and what TensorFlow's say in one."""

import errno
import os
import sys

_WARNING_LENGTH = 600
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)


class UserError(Exception):
    """Something the user can put right: a missing file, an unknown class, a corrupt image.

    The message is one line: what is wrong, the offending value, and what to do. The commands print
    it without a traceback and exit with status 2; a notebook sees an ordinary exception.
    """


class LostWorker(Exception):
    """The process of another host has gone; started again, all of them go on.

    The commands print the message without a traceback and exit with status 75, by which a
    supervisor knows to start the same command again.
    """


def warn(message):
    """Print a warning to stderr: one line of bounded length."""
    message = " ".join(message.split())
    if len(message) > _WARNING_LENGTH:
        message = f"{message[:_WARNING_LENGTH]} ..."
    print(f"warning: {message}", file=sys.stderr, flush=True)


def without_nodes(message):
    """Return a message of TensorFlow's without the names of nodes that it ends with."""
    return message.split("[[{{")[0].strip()


def last_line(message):
    """Return what a message of TensorFlow's says: its last line, the stack being above that."""
    return (without_nodes(message).splitlines() or [""])[-1].strip()


def is_no_room(error):
    """Return whether an `OSError` says that a disk, a quota or a file is full."""
    return error.errno in _NO_ROOM


def no_room(error):
    """Return a line for an error that comes of a full disk, quota or file; None for others.

    TensorFlow and HDF5 say so in their messages only, and what is closed thereupon may fail in
    another way.
    """
    while error is not None:
        if isinstance(error, OSError) and is_no_room(error):
            where = f" ({error.filename})" if error.filename else ""
            return _no_room_line(error.strerror, where)
        for number in _NO_ROOM:
            before, found, _ = str(error).partition(os.strerror(number))
            if found:
                path = next((word for word in before.split() if word.startswith("/")), "")
                return _no_room_line(found, f" ({path.rstrip(';:,')})" if path.strip("/;") else "")
        error = error.__cause__ or error.__context__
    return None


def no_path(error):
    """Return a line for an error of a path that can be none; None for others.

    Its name is too long, or it leads through links that lead to themselves. Python raises this
    where it would only say that a file that is missing is not there.
    """
    if not isinstance(error, OSError) or error.errno not in _NO_PATH:
        return None
    return f"{error.filename}: {error.strerror}; give another path."


def _no_room_line(reason, where):
    return (
        f"{reason}{where}: what was being written is lost, what was finished is kept; make room "
        "and run the same command again to go on."
    )
