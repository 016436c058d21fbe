"""What all the commands share: flags in, exit status out."""

import os
import sys

# Before TensorFlow is imported: its start-up banner is no news to the users of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On an Intel server with AVX-512 (Sapphire Rapids, virtualised), TensorFlow 2.21 with oneDNN's
# AVX-512 kernels ended training in segmentation faults and corrupted heaps, every time; with its
# AVX2 kernels it never did, and was still 2.4 times faster than without oneDNN. Set either
# variable yourself to choose otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

from absl import app, flags

from wsss_tf.errors import UserError


def _parse_flags(argv):
    try:
        return flags.FLAGS(argv, known_only=False)
    except flags.Error as error:
        _stop(str(error))


def _stop(message):
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def run(main):
    """Run `main()` with absl flags parsed, as a command.

    A `UserError` or a wrong flag prints one line on standard error and exits with status 2; any
    other exception is a bug and keeps its traceback.
    """

    def guarded(argv):
        if len(argv) > 1:
            _stop(f"unexpected argument {argv[1]!r}; all options start with --.")
        try:
            main()
        except UserError as error:
            _stop(str(error))
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on.", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse_flags_with_help)


def _parse_flags_with_help(argv):
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    app.define_help_flags()
    return _parse_flags(argv)


def parse_scales(texts):
    """Return the numbers of a --scales flag, positive floats.

    Raises:
      UserError: one of them is not such a number.
    """
    try:
        scales = tuple(float(text) for text in texts)
    except ValueError:
        scales = ()
    if not scales or min(scales) <= 0:
        raise UserError(f"--scales={','.join(texts)}: give positive numbers, such as 0.5,1,1.5,2.")
    return scales
