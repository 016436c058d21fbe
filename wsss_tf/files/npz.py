"""NumPy's .npz files, read strictly: what their headers announce is there, or they are refused.

`numpy.load` makes an array of the size in the header before it reads it, which may be terabytes.
"""

import math
import struct
import tokenize
import zipfile
import zlib

import numpy as np

# What damaged bytes make the readers below raise.
_DAMAGED = (
    EOFError,
    OSError,  # a place in the file that cannot be
    KeyError,
    IndexError,
    MemoryError,
    NotImplementedError,  # zipfile's, of a compression or an encryption that it has not
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# No more than this comes out of a byte that was compressed by `zlib`.
_MOST_OF_A_BYTE = 1032


def read_npz(path, names=None, optional=()):
    """Return {name: array} of an .npz file.

    Args:
      path: of the file.
      names: of the arrays to read, which must be there; None for all.
      optional: of those to read besides, where they are there.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no such file, or damaged, or holds Python objects.
    """
    file = open(path, "rb")  # noqa: SIM115, closed below
    try:
        with file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = members if names is None else names
            names = [*names, *(name for name in optional if name in members)]
            return {name: _read(archive, members[name]) for name in names}
    except KeyError as error:
        raise ValueError(f"it has no array {error}") from error
    except _DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error


def check_member(info):
    """Check that a member of a zip file may have the size that it announces.

    Args:
      info: `zipfile.ZipInfo`.

    Raises:
      ValueError: no so many bytes come out of those that are there.
    """
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if info.compress_type not in kinds or info.file_size > _MOST_OF_A_BYTE * info.compress_size:
        raise ValueError(
            f"{info.filename} of {info.compress_size} bytes cannot be of {info.file_size}"
        )


def _read(archive, info):
    check_member(info)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read_header:
            raise ValueError(f"{info.filename} is of an unknown version of the format")
        shape, is_fortran, dtype = read_header[version](file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which may be code")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise ValueError(f"{info.filename} is not all there: {shape} of {dtype}")
        values = np.frombuffer(file.read(size), dtype)
        file.read()  # the check sum is compared at the end
    return values.reshape(shape, order="F" if is_fortran else "C").copy()
