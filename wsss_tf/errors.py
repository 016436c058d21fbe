"""The one exception that stands for a mistake of the user rather than of the program."""


class UserError(Exception):
    """Something the user can put right: a missing file, an unknown class, a corrupt image.

    The message is one line: what is wrong, the offending value, and what to do. The commands print
    it without a traceback and exit with status 2; a notebook sees an ordinary exception.
    """
