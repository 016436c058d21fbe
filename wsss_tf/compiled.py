"""Loops over single numbers, compiled by numba."""

import numba


def compiled(function, **options):
    """Return a function compiled by numba; as a decorator too.

    It runs without Python's lock, so that threads run it side by side. The machine code is kept in
    a cache file where there is a place for one.

    Args:
      function: in the part of Python that numba compiles.
      **options: of `numba.njit`.
    """
    options = {"error_model": "numpy", "nogil": True, **options}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # a package folder and a home that cannot be written
        return numba.njit(function, **options)
