"""Unpickling that accepts containers, numbers and what its caller allows, and refuses the rest.

A pickle is a program: it may name any function and call it. Here a name that is not allowed ends
the reading before anything is called, so a file that carries code is refused, never run.
"""

import pickle

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


def load(file, path, allowed, persistent_load=None, encoding="ASCII"):
    """Return the object of the next pickle in a file.

    Args:
      file: binary file object; it is left behind the pickle.
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
        return Restricted(file, encoding=encoding).load()
    except _DAMAGED as error:
        raise UserError(
            f"{path}: is damaged or cut short: {type(error).__name__}: {error}"
        ) from error
