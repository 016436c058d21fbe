"""What all the commands share: flags in, exit status out."""

import contextlib
import os
import sys
import threading

# Before TensorFlow is imported: its start-up banner is no news to the users of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On some processors TensorFlow leaves oneDNN off by default, which costs a factor of two or more.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import app, flags, logging

from wsss_tf.errors import LostWorker, UserError, no_path, no_room

# Names an inherited file descriptor, the reading end of a pipe whose other end a pipeline holds.
PARENT_PIPE = "WSSS_TF_PARENT_PIPE"


def _end_with_parent():
    """Have this process end when the pipeline that started it does, even if that is killed.

    Returns:
      Whether a pipeline has started it.
    """
    pipe = os.environ.pop(PARENT_PIPE, None)
    if pipe is None:
        return False

    def wait():
        os.read(int(pipe), 1)  # nothing is ever written: it returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return True


_HELD = contextlib.ExitStack()


def hold(context):
    """Enter a context, such as a lock, until the command ends."""
    return _HELD.enter_context(context)


# "Temporary failure; try again" of sysexits.h.
LOST_WORKER_STATUS = 75


def _stop(message, status=2):
    # gin adds to an exception which configurable raised it; the user did not call that.
    message = message.split("\n  In call to configurable")[0]
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def run(main, takes_rest=False):
    """Run `main()` with absl flags parsed, as a command.

    With `takes_rest`, `main` is given what is no flag, or comes after "--": a list of strings.

    A `UserError`, a wrong flag, a full disk or a path that can be none prints one line on standard
    error and exits with status 2, a `LostWorker` with 75; any other exception is a bug and keeps
    its traceback.
    """

    def guarded(argv):
        has_parent = _end_with_parent()
        # Names of files need not be UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
        if len(argv) > 1 and not takes_rest:
            _stop(f"unexpected argument {argv[1]!r}; all options start with --.")
        try:
            main(argv[1:]) if takes_rest else main()
        except UserError as error:
            _stop(str(error))
        except LostWorker as error:
            _stop(str(error), LOST_WORKER_STATUS)
        except KeyboardInterrupt:
            if not has_parent:  # which says it, once for all its commands
                print("interrupted; run the same command again to go on.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = no_room(error) or no_path(error)
            if line is None:
                raise
            _stop(line)
        finally:
            _HELD.close()

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv):
    logging.set_verbosity(logging.WARNING)
    if any(argument.lstrip("-") in ("help", "h", "helpshort") for argument in argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _stop(str(error))


def parse_scales(texts):
    """Return the numbers of a --scales flag, as `parse_positive` does."""
    return parse_positive("scales", texts, "0.5,1,1.5,2")


def parse_positive(flag, texts, example):
    """Return the numbers of a list flag, a tuple of at least one float above zero.

    Raises:
      UserError: one of them is not such a number, or there is none.
    """
    try:
        numbers = tuple(float(text) for text in texts)
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise UserError(f"--{flag}={','.join(texts)}: give positive numbers, such as {example}.")
    return numbers
