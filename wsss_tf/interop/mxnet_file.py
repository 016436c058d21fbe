"""The tensors of an MXNet `.params` file, read without MXNet."""

import math
import pathlib
import struct

import numpy as np

from wsss_tf.errors import UserError

_MAGIC = 0x112
_VERSION_1 = 0xF993FAC8  # 64-bit sizes
_VERSION_2 = 0xF993FAC9  # and a storage type
_DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")
_MOST_AXES = 32


def is_mxnet_file(path):
    """Return whether a file begins as a `.params` file does."""
    with pathlib.Path(path).open("rb") as file:
        return file.read(8) == struct.pack("<Q", _MAGIC)


def read_mxnet(path):
    """Return the arrays of a `.params` file by name, without the prefixes `arg:` and `aux:`.

    Args:
      path: file as `mx.nd.save` or a checkpoint callback wrote it, in any of the three versions of
        its array format; dense arrays only.

    Raises:
      UserError: it is no such file, it is cut short, or it holds a sparse array.
    """
    path = pathlib.Path(path)
    try:
        return _parse(_Bytes(path.read_bytes()), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except (_Short, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: is damaged or cut short, {error}.") from error


class _Short(Exception):
    """The file ends before what it announces."""


class _Bytes:
    """A cursor over little-endian bytes."""

    def __init__(self, contents):
        self.contents = memoryview(contents)
        self.position = 0

    def take(self, count):
        end = self.position + count
        if end > len(self.contents):
            raise _Short(
                f"byte {end} is needed, but it has {len(self.contents)} (at {self.position})"
            )
        taken = self.contents[self.position : end]
        self.position = end
        return taken

    def numbers(self, kind, count=1):
        """Return `count` numbers of a `struct` kind: I uint32, i int32, Q uint64, q int64."""
        return struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize(f"<{kind}")))

    def number(self, kind):
        return self.numbers(kind)[0]


def _parse(data, path):
    if len(data.contents) < 8 or data.number("Q") != _MAGIC:
        raise UserError(f"{path}: is not an MXNet .params file (it does not begin with 0x112).")
    data.number("Q")  # reserved
    arrays = [_array(data, path) for _ in range(data.number("Q"))]
    names = [bytes(data.take(data.number("Q"))).decode("utf-8", "replace") for _ in
             range(data.number("Q"))]  # fmt: skip
    if len(names) != len(arrays):
        raise UserError(f"{path}: has {len(arrays)} arrays and {len(names)} names.")
    names = [name.removeprefix("arg:").removeprefix("aux:") for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: has two arrays of the name {twice[0]!r}.")
    return {name: array for name, array in zip(names, arrays) if array is not None}


def _array(data, path):
    """Return the next array, or None for an empty one, of which only the shape is stored."""
    first = data.number("I")
    if first == _VERSION_2:
        storage = data.number("i")
        if storage != 0:
            raise UserError(f"{path}: holds a sparse array (storage type {storage}); only dense "
                            "ones are read.")  # fmt: skip
    axes = data.number("I") if first in (_VERSION_1, _VERSION_2) else first
    if axes > _MOST_AXES:
        raise UserError(f"{path}: holds an array of an unknown version, or is damaged ({axes:#x}).")
    shape = data.numbers("q" if first in (_VERSION_1, _VERSION_2) else "I", axes)
    if axes == 0:
        return None
    data.numbers("i", 2)  # device type and number
    code = data.number("i")
    if not 0 <= code < len(_DTYPES):
        raise UserError(f"{path}: holds an array of the unknown type number {code}.")
    if min(shape) < 0:
        raise UserError(f"{path}: is damaged, an array has the shape {shape}.")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    values = data.take(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(values, dtype).reshape(shape)
