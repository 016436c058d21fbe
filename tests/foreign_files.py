"""Writers of other frameworks' files, from descriptions of the formats, without the frameworks."""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

# === MXNet ===


def write_mxnet(path, arrays, version=2):
    """Write a `.params` file in one of the three versions of the array format."""
    dtypes = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]
    with path.open("wb") as file:
        file.write(struct.pack("<3Q", 0x112, 0, len(arrays)))
        for array in arrays.values():
            if version == 2:
                file.write(struct.pack("<Ii", 0xF993FAC9, 0))
            elif version == 1:
                file.write(struct.pack("<I", 0xF993FAC8))
            kind = "I" if version == 0 else "q"
            file.write(struct.pack(f"<I{array.ndim}{kind}", array.ndim, *array.shape))
            file.write(struct.pack("<3i", 1, 0, dtypes.index(array.dtype.name)))
            file.write(np.ascontiguousarray(array).tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            file.write(struct.pack("<Q", len(name)) + name.encode())


# === PyTorch ===


class _Storage:
    def __init__(self, array):
        self.array = np.ascontiguousarray(array).ravel()


class _Tensor:
    """Pickled as a call that rebuilds it from its storage; C order."""

    def __init__(self, array, rebuild):
        self.storage, self.shape, self.rebuild = _Storage(array), array.shape, rebuild

    def __reduce__(self):
        strides = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        hooks = collections.OrderedDict()
        return self.rebuild, (self.storage, 0, self.shape, strides, False, hooks)


@contextlib.contextmanager
def _fake_torch():
    """Yield the names that pickles refer to; the pickler looks them up when it writes."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = inner

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2
    names = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}
    for name in names.values():
        setattr(torch, f"{name}Storage", type(f"{name}Storage", (), {"__module__": "torch"}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": inner})
    try:
        yield torch, {dtype: names[dtype] for dtype in names}
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


def _dump(content, file, persistent_id=None):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return persistent_id(value) if persistent_id else None

    Pickler(file, protocol=2).dump(content)


def write_torch(path, content, container):
    """Write a dict, in which arrays stand for tensors, as `torch.save` does.

    `container` is "zip" or "pickles" (before 1.6).
    """
    with _fake_torch() as (torch, names):

        def swap(value):
            if isinstance(value, np.ndarray):
                return _Tensor(value, torch._utils._rebuild_tensor_v2)
            if isinstance(value, dict):
                return collections.OrderedDict((key, swap(v)) for key, v in value.items())
            return value

        write = {"zip": _write_zip, "pickles": _write_pickles}[container]
        write(path, swap(content), torch, names)


def _storage_reference(storages, torch, names, *more):
    def persistent_id(value):
        if not isinstance(value, _Storage):
            return None
        key = storages.setdefault(id(value), (str(len(storages)), value))[0]
        kind = getattr(torch, names[value.array.dtype.name] + "Storage")
        return ("storage", kind, key, "cpu", value.array.size, *more)

    return persistent_id


def _write_zip(path, content, torch, names):
    storages, pickled = {}, io.BytesIO()
    _dump(content, pickled, _storage_reference(storages, torch, names))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, storage in storages.values():
            archive.writestr(f"archive/data/{key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")


def _write_pickles(path, content, torch, names):
    storages = {}
    with path.open("wb") as file:
        _dump(0x1950A86A20F9469CFC6C, file)
        _dump(1001, file)
        _dump({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, file)
        _dump(content, file, _storage_reference(storages, torch, names, None))
        _dump(sorted(key for key, _ in storages.values()), file)
        for _, storage in sorted(storages.values(), key=lambda pair: pair[0]):
            file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())
