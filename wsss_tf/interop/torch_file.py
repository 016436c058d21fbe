"""The tensors of a PyTorch checkpoint, read without PyTorch and without running what is in it.

Two containers of `torch.save` are read: the zip archive (since 1.6) and the consecutive pickles
before that (`_use_new_zipfile_serialization=False`); the tar archive of releases before 0.1.10
(2017) is not.
Only rebuilt dense tensors and containers are accepted, much as by `weights_only=True`.
"""

import collections
import dataclasses
import io
import math
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.files.npz import check_member
from wsss_tf.interop import restricted_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_REPEATED = 2**20
_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
# What a file whose parts do not fit together makes the readers below raise.
_DAMAGED = (
    OSError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,  # an encrypted archive, or (a subclass of it) an unknown compression
    TypeError,
    ValueError,
)
# Where checkpoints of training scripts keep the weights among other things.
_NESTED = ("state_dict", "model_state_dict", "model", "net")


@dataclasses.dataclass
class _Storage:
    """A flat array of a named type, which may be read after the tensors that look into it."""

    dtype: str
    values: np.ndarray | None = None

    @property
    def stored(self):
        """The NumPy type of the bytes; NumPy has no bfloat16."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype).newbyteorder("<")

    def view(self, offset, count):
        if not 0 <= offset <= offset + count <= len(self.values):
            raise ValueError(f"a view of {count} values at {offset} in {len(self.values)}")
        return _Storage(self.dtype, self.values[offset : offset + count])


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A look into a storage."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self):
        """Return a NumPy array of its own, float32 for bfloat16.

        Raises:
          ValueError: the storage is too small for the shape.
        """
        values = self.storage.values
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides),
                                                       default=0) < 0:  # fmt: skip
            raise ValueError(f"shape {self.shape} with strides {self.strides}")
        if 0 in self.shape:
            return np.zeros(self.shape, "float32")
        # Steps of 0 make any number of values of one.
        if math.prod(self.shape) > max(len(values), _MOST_REPEATED):
            raise ValueError(f"shape {self.shape} of a storage of {len(values)}")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        if last >= len(values):
            raise ValueError(f"value {last} of a storage of {len(values)}")
        steps = [step * values.itemsize for step in self.strides]
        array = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps)
        if self.storage.dtype == "bfloat16":
            return (array.astype("uint32") << 16).view("float32")
        return array.copy()


def _rebuild_tensor(storage, offset, shape, strides, *unused):
    # `unused` is whether a gradient is wanted, and hooks, of which saved files hold an empty dict.
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
    # Types stand for themselves, as strings.
    **{("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()},
}


def read_torch(path):
    """Return the tensors of a checkpoint by name, as NumPy arrays in PyTorch's layout.

    Args:
      path: file of `torch.save`: a state dict, or a dict that holds one under "state_dict", "model"
        or the like. The prefix "module." of `DataParallel` is taken off.

    Raises:
      UserError: it is no such file, it is cut short, or it holds anything but tensors and
        containers, which may be code: the file is refused and nothing in it is run.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                content = _read_zip(file, path)
            else:
                file.seek(0)
                content = _read_pickles(file, path)
        return _arrays(_state_dict(content, path), path)
    except _DAMAGED as error:
        raise UserError(f"{path}: cannot be read, or is cut short: {error}") from error


# === The two containers ===


def _read_zip(file, path):
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError(f"{path}: is a zip archive, but not one of torch.save.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise UserError(
                f"{path}: refused, because it is a TorchScript program; save the state dict "
                "with torch.save instead."
            )
        if f"{folder}byteorder" in names and _member(archive, f"{folder}byteorder") != b"little":
            raise UserError(f"{path}: was written on a big-endian machine; only little is read.")
        storages = {}

        def persistent_load(saved):
            kind, dtype, key, _, count = saved
            _check_kind(kind)
            if key not in storages:
                storage = _Storage(dtype)
                values = np.frombuffer(_member(archive, f"{folder}data/{key}"), storage.stored)
                if len(values) != count:
                    raise ValueError(f"storage {key} has {len(values)} values instead of {count}")
                storage.values = values
                storages[key] = storage
            return storages[key]

        pickled = io.BytesIO(_member(archive, pickles[0]))
        return restricted_pickle.load(pickled, path, _ALLOWED, persistent_load)


def _member(archive, name):
    """Return the bytes of a member, which torch.save does not compress, and others little."""
    info = archive.getinfo(name)
    check_member(info)
    return archive.read(info)


def _read_pickles(file, path):
    def load(persistent_load=None):
        return restricted_pickle.load(file, path, _ALLOWED, persistent_load)

    if file.read(2) not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise UserError(f"{path}: is not a file of torch.save (nor an MXNet .params file).")
    file.seek(0)
    if load() != _MAGIC:
        raise UserError(f"{path}: is a pickle, but not one of torch.save.")
    if (protocol := load()) != _PROTOCOL:
        raise UserError(f"{path}: has the unknown protocol {protocol}; {_PROTOCOL} is read.")
    load()  # about the machine; the data are little-endian on every one
    roots, views = {}, []

    def persistent_load(saved):
        kind, dtype, key, _, count, view = saved
        _check_kind(kind)
        root = roots.setdefault(key, (_Storage(dtype), count))[0]
        if view is None:
            return root
        # (its own key, place in the root, size); filled when the root has been read
        views.append((_Storage(dtype), root, *view[1:]))
        return views[-1][0]

    content = load(persistent_load)
    for key in load():
        if key not in roots:
            raise UserError(f"{path}: is damaged, no tensor looks into storage {key!r}.")
        storage, count = roots[key]
        storage.values = _read_values(file, storage.stored)
        if len(storage.values) != count:
            raise UserError(f"{path}: is damaged, storage {key} does not have {count} values.")
    for storage, root, offset, count in views:
        storage.values = root.view(offset, count).values
    return content


def _check_kind(kind):
    if kind != "storage":
        raise ValueError(f"a reference to a {kind!r}")


def _read_values(file, dtype):
    """Read an int64 count and so many numbers."""
    (count,) = struct.unpack("<q", file.read(8))
    start = file.tell()
    rest = file.seek(0, 2) - start
    file.seek(start)
    if not 0 <= count * dtype.itemsize <= rest:
        raise ValueError(f"a storage of {count} values is not all there")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


# === From what was saved to arrays ===


def _state_dict(content, path):
    """Return the mapping of names to tensors in what was saved."""
    for found in [content, *(_get(content, key) for key in _NESTED)]:
        if isinstance(found, dict) and any(isinstance(v, _Tensor) for v in found.values()):
            return {name: value for name, value in found.items() if isinstance(value, _Tensor)}
    held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise UserError(f"{path}: no dict of tensors in it, only {held}.")


def _get(content, key):
    return content.get(key) if isinstance(content, dict) else None


def _arrays(tensors, path):
    names = list(map(str, tensors))
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    arrays = {}
    for name, tensor in tensors.items():
        try:
            arrays[str(name).removeprefix(prefix)] = tensor.array()
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: is damaged at {name}: {error}.") from error
    return arrays
