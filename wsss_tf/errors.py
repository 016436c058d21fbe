"""Errors that end a command in one line, warnings, and what TensorFlow's say in one."""

import sys

_WARNING_LENGTH = 600


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
