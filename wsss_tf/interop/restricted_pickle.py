"""Unpickling that accepts containers, numbers and what its caller allows, and refuses the rest.

A pickle is a program: it may name any function and call it. Here a name that is not allowed ends
the reading before anything is called, so a file that carries code is refused, never run.
"""

import io
import pickle
import pickletools

from wsss_tf.errors import UserError

# What damaged bytes make an unpickler raise.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class Bounded:
    """A binary file of which no more is asked for than there is.

    Readers make room for as much as a file announces, which may be gigabytes in one of a few bytes.

    Args:
      file: binary file object that can be sought in.
    """

    def __init__(self, file):
        self.file = file
        place = file.tell()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(place)

    def read(self, count=-1):
        """Return so many bytes; fewer at the end of the file."""
        left = max(self._size - self.file.tell(), 0)
        return self.file.read(left if count is None or count < 0 else min(count, left))

    def readline(self):
        """Return the bytes up to the next line feed."""
        return self.file.readline()

    def seek(self, *where):
        """As of a file."""
        return self.file.seek(*where)

    def tell(self):
        """As of a file."""
        return self.file.tell()


def _check_operations(file):
    """Look through the next pickle before it is loaded; the file is left where it was.

    An unpickler makes as much room as the largest place in its memo, or as a length announces.
    """
    start = file.tell()
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name in _TO_MEMO and argument > number:
            raise ValueError(f"place {argument} of a memo of at most {number}")
    file.seek(start)


_TO_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


def load(file, path, allowed, persistent_load=None, encoding="ASCII"):
    """Return the object of the next pickle in a file.

    Args:
      file: binary file object that can be sought in; it is left behind the pickle.
      path: name of the file, for messages.
      allowed: {(module, name): what to use for it} of every name that the pickle may hold.
      persistent_load: function of a persistent id to its object; None refuses such.
      encoding: of the byte strings of Python 2, as in `pickle.load`.

    Raises:
      UserError: a name that is not allowed (it is in the message), or damaged bytes.
    """

    class Restricted(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) not in allowed:
                raise UserError(
                    f"{path}: refused, because it wants to use {module}.{name}; only arrays and "
                    "containers are read from a file, no other objects and no code."
                )
            return allowed[module, name]

        def persistent_load(self, saved):
            if persistent_load is None:
                raise pickle.UnpicklingError("it holds an object that lies elsewhere")
            return persistent_load(saved)

    try:
        file = Bounded(file)
        _check_operations(file)
        return Restricted(file, encoding=encoding).load()
    except _DAMAGED as error:
        raise UserError(
            f"{path}: is damaged or cut short: {type(error).__name__}: {error}"
        ) from error
