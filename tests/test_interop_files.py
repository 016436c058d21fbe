"""Containers of other frameworks: written by PyTorch, written as described, and hostile ones."""

import contextlib
import gzip
import io
import os
import pathlib
import pickle
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from foreign_files import write_mxnet, write_torch

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.interop.mxnet_file import is_mxnet_file, read_mxnet
from wsss_tf.interop.sec_cues import convert_localization_cues
from wsss_tf.interop.torch_file import read_torch

DATA = pathlib.Path(__file__).resolve().parent / "data" / "interop"
CONTAINERS = ("zip", "pickles")


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(2, 3, 1, 2)).astype("float32"),
        "a.bias": rng.normal(size=3),
        "b.num_batches_tracked": np.int64([7]),
        "half": rng.normal(size=(2, 2)).astype("float16"),
    }


def same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


# === PyTorch ===


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_files_written_by_pytorch(container):
    # A state dict of PyTorch 1.12 with a convolution, a BatchNorm, views, strides and ten types.
    with np.load(DATA / "torch_1_12.npz", allow_pickle=False) as file:
        expected = dict(file)
    actual = read_torch(DATA / f"torch_1_12_{container}.pth")
    same(actual, expected)
    assert not np.shares_memory(actual["whole"], actual["transposed"])


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_as_described(tmp_path, container):
    write_torch(tmp_path / "x.pth", arrays(), container)
    same(read_torch(tmp_path / "x.pth"), arrays())


@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_are_found_among_other_things(tmp_path, container):
    nested = {f"module.{name}": value for name, value in arrays().items()}
    write_torch(tmp_path / "x.pth", {"epoch": 3, "state_dict": nested}, container)
    same(read_torch(tmp_path / "x.pth"), arrays())
    write_torch(tmp_path / "y.pth", {"epoch": 3, "name": "x"}, container)
    with pytest.raises(UserError, match=r"y\.pth: no dict of tensors in it, only \['epoch'"):
        read_torch(tmp_path / "y.pth")


class Hostile:
    """Unpickled without care it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("container", CONTAINERS)
def test_code_is_refused_and_never_run(tmp_path, container):
    content = {**arrays(), "hook": Hostile(tmp_path / "made")}
    write_torch(tmp_path / "x.pth", content, container)
    with pytest.raises(UserError, match=r"x\.pth: refused, .* (posix|nt)\.mkdir"):
        read_torch(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()
    # The test is worth something only if the pickle would do it.
    pickle.loads(pickle.dumps(Hostile(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path, container):
    write_torch(tmp_path / "x.pth", arrays(), container)
    contents = (tmp_path / "x.pth").read_bytes()
    for length in [*range(0, len(contents), 37), len(contents) - 1]:
        (tmp_path / "cut.pth").write_bytes(contents[:length])
        with pytest.raises(UserError, match=r"cut\.pth") as caught:
            read_torch(tmp_path / "cut.pth")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_bytes_never_end_in_another_error(tmp_path, container):
    write_torch(tmp_path / "x.pth", arrays(), container)
    contents = np.frombuffer((tmp_path / "x.pth").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = contents.copy()
        damaged[rng.integers(len(damaged), size=2)] = rng.integers(256, size=2)
        (tmp_path / "damaged.pth").write_bytes(damaged.tobytes())
        with contextlib.suppress(UserError):
            read_torch(tmp_path / "damaged.pth")


def test_views_beyond_a_storage_are_refused(tmp_path):
    write_torch(tmp_path / "x.pth", {"a": np.zeros((3, 5), "float32")}, "pickles")
    contents = (tmp_path / "x.pth").read_bytes()
    assert contents.count(b"K\x03K\x05\x86") == 1  # the shape
    (tmp_path / "x.pth").write_bytes(contents.replace(b"K\x03K\x05\x86", b"K\x09K\x05\x86"))
    with pytest.raises(UserError, match="damaged at a: value 44 of a storage of 15"):
        read_torch(tmp_path / "x.pth")


def test_files_that_are_something_else(tmp_path):
    cases = {}
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    cases["other.zip"] = "zip archive, but not one of torch.save"
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"net/{name}", b"\x80\x02}.")
    cases["script.pt"] = "TorchScript program"
    with tarfile.open(tmp_path / "other.tar", "w:") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    cases["other.tar"] = "is not a file of torch.save"
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"a": 1}))
    cases["other.pkl"] = "a pickle, but not one of torch.save"
    (tmp_path / "text.pth").write_text("hello")
    cases["text.pth"] = "is not a file of torch.save"
    for name, message in cases.items():
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            read_torch(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.pth"):
        read_torch(tmp_path / "none.pth")


# === MXNet ===


def mxnet_arrays():
    return {name.replace(".", "_"): value for name, value in arrays().items()}


@pytest.mark.parametrize("version", [0, 1, 2])
def test_params_files(tmp_path, version):
    named = dict(zip(("arg:a", "aux:b", "c", "arg:d"), mxnet_arrays().values()))
    write_mxnet(tmp_path / "x.params", named, version)
    assert is_mxnet_file(tmp_path / "x.params")
    same(read_mxnet(tmp_path / "x.params"), dict(zip("abcd", named.values())))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_params_files_cut_anywhere(tmp_path, version):
    write_mxnet(tmp_path / "x.params", mxnet_arrays(), version)
    contents = (tmp_path / "x.params").read_bytes()
    for length in range(len(contents)):
        (tmp_path / "cut.params").write_bytes(contents[:length])
        with pytest.raises(UserError, match=r"cut\.params: is (not an MXNet|damaged or cut)"):
            read_mxnet(tmp_path / "cut.params")


def test_params_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.params"
    write_mxnet(path, {"a": np.zeros(2, "float32")})
    contents = path.read_bytes()
    path.write_bytes(contents.replace(struct.pack("<Ii", 0xF993FAC9, 0),
                                      struct.pack("<Ii", 0xF993FAC9, 1)))  # fmt: skip
    with pytest.raises(UserError, match="sparse array"):
        read_mxnet(path)
    path.write_bytes(contents.replace(struct.pack("<I", 0xF993FAC9), struct.pack("<I", 0xF993FACF)))
    with pytest.raises(UserError, match="unknown version"):
        read_mxnet(path)
    write_mxnet(path, {"arg:a": np.zeros(2, "float32"), "aux:a": np.ones(2, "float32")})
    with pytest.raises(UserError, match="two arrays of the name 'a'"):
        read_mxnet(path)


# === SEC's cues ===


def write_cues(path, content):
    with gzip.open(path, "wb") as file:
        file.write(pickle.dumps(content, protocol=2))


def cues_content():
    return {
        "0_labels": np.int64([3]),
        "0_cues": np.int64([[0, 0, 3], [1, 40, 7], [2, 5, 39]]),
        "12_labels": np.int64([1, 20]),
        "12_cues": np.asfortranarray(np.int64([[1, 20], [0, 0], [3, 4]])),
    }


def load_cues(path):
    """Return a cue file as sorted (class, row, column)."""
    grid = images.load_mask(path)
    rows, columns = np.nonzero(grid != 255)
    return sorted(zip(grid[rows, columns].tolist(), rows.tolist(), columns.tolist()))


def test_cues_become_a_file_an_image(tmp_path):
    write_cues(tmp_path / "cues.pickle.gz", cues_content())
    (tmp_path / "list.txt").write_text("2007_000032.jpg 12\n2011_003276.jpg 0\n")
    count = convert_localization_cues(
        tmp_path / "cues.pickle.gz", tmp_path / "list.txt", tmp_path / "out"
    )
    assert count == 2
    for name, number in (("2007_000032", 12), ("2011_003276", 0)):
        found = load_cues(tmp_path / f"out/{name}.png")
        assert found == sorted(map(tuple, cues_content()[f"{number}_cues"].T.tolist()))
        assert images.load_mask(tmp_path / f"out/{name}.png").shape == (41, 41)


def python_2_array(values):
    """Return the opcodes by which Python 2 pickles an int64 array; its data are a byte string."""
    string, small = pickle.SHORT_BINSTRING, pickle.BININT1

    def text(x):
        return string + bytes([len(x)]) + x

    shape = b"".join(small + bytes([n]) for n in values.shape)
    shape += (pickle.TUPLE1, pickle.TUPLE2)[values.ndim - 1]
    minus_one = pickle.BININT + b"\xff" * 4
    dtype = b"cnumpy\ndtype\n" + text(b"i8") + small + b"\0" + small + b"\1" + b"\x87R"
    dtype += b"(" + small + b"\3" + text(b"<") + b"NNN" + 2 * minus_one + small + b"\0tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array += small + b"\0\x85" + text(b"b") + b"\x87R"
    return array + b"(" + small + b"\1" + shape + dtype + b"\x89" + text(values.tobytes()) + b"tb"


def test_a_python_2_pickle_is_read(tmp_path):
    content = {"0_labels": np.int64([2, 5]), "0_cues": np.int64([[2, 5], [7, 40], [39, 1]])}
    pickled = b"\x80\x02}"
    for key, values in content.items():
        pickled += b"U" + bytes([len(key)]) + key.encode() + python_2_array(values) + b"s"
    same(pickle.loads(pickled + b".", encoding="latin1"), content)  # NumPy reads it, too
    with gzip.open(tmp_path / "c.gz", "wb") as file:
        file.write(pickled + b".")
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    convert_localization_cues(tmp_path / "c.gz", tmp_path / "list.txt", tmp_path / "out")
    assert load_cues(tmp_path / "out/a.png") == [(2, 7, 39), (5, 40, 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0_cues": np.int64([[4], [0], [0]])}, r"classes \[4\], but the labels \[3\]"),
        ({"0_cues": np.int64([[3], [41], [0]])}, r"\[3, 41, 0\], on a grid of 41 x 41"),
        ({"0_cues": np.int64([[3, 0], [7, 7], [0, 0]])}, "named twice"),
        ({"0_cues": np.int64([3, 0, 0])}, r"cues \(3,\) are not"),
        ({"0_labels": [3]}, "no array '0_labels'"),
        ({"0_labels": np.float64([3])}, "type 'f8'"),
        ({"0_labels": np.array([None])}, "type 'O8'"),
        ({"0_labels": Hostile("made")}, r"refused, .* (posix|nt)\.mkdir"),
    ],
    ids=["class", "range", "twice", "shape", "list", "float", "object", "code"],
)
def test_wrong_cues_are_refused(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    write_cues(tmp_path / "cues.gz", {**cues_content(), **change})
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    with pytest.raises(UserError, match=words):
        convert_localization_cues("cues.gz", tmp_path / "list.txt", tmp_path / "out")
    assert not (tmp_path / "made").exists()


def test_cues_of_a_damaged_file_or_list(tmp_path):
    write_cues(tmp_path / "cues.gz", cues_content())
    contents = (tmp_path / "cues.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(contents[:-20])
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    (tmp_path / "bad.txt").write_text("a.jpg 0\nb.jpg\n")
    (tmp_path / "more.txt").write_text("a.jpg 0\nb.jpg 5\n")
    for file, names, words in [
        ("cut.gz", "list.txt", "cut.gz"),
        ("list.txt", "list.txt", "gzip"),
        ("cues.gz", "bad.txt", "line 2"),
        ("cues.gz", "more.txt", "5_labels.* for b"),
    ]:
        with pytest.raises(UserError, match=words):
            convert_localization_cues(tmp_path / file, tmp_path / names, tmp_path / "out")


def _zip_of(pickled, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", b"\0\0\0\0")
    return file.getvalue()


def _tensor_of(shape, strides):
    """Return the pickle of a dict of one tensor that looks into a storage of one number."""
    numbers = (pickle.dumps(value, 2)[2:-1] for value in (shape, strides))
    return b"".join([
        b"\x80\x02}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storage",
        b"ctorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\1tQK\0", *numbers, b"\x89}tRs.",
    ])  # fmt: skip


_GIGABYTES = struct.pack("<Q", 3 * 2**30)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02Nr" + struct.pack("<I", 2**28) + b".",
        b"\x80\x02Np268435456\n.",
        b"\x80\x05\x96" + _GIGABYTES + b"x.",
        b"\x80\x04\x8d" + _GIGABYTES + b"x.",
        b"\x80\x04\x95" + _GIGABYTES + b"x.",
        _tensor_of((1000, 1000, 800), (0, 0, 0)),
    ],
    ids=["memo", "memo_in_words", "bytearray", "text", "frame", "steps_of_zero"],
)
def test_a_few_bytes_never_take_gigabytes(tmp_path, pickled):
    path = tmp_path / "small.pth"
    for contents in (pickled, _zip_of(pickled)):
        path.write_bytes(contents)
        assert len(contents) < 400
        tracemalloc.start()
        with pytest.raises(UserError, match=r"small\.pth"):
            read_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24


def test_what_no_writer_compresses_so_far_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(_zip_of(bytes(2**24), zipfile.ZIP_LZMA))
    with pytest.raises(UserError, match=r"data.pkl of \d+ bytes cannot be of 16777216"):
        read_torch(path)


def test_a_repeated_number_is_a_tensor(tmp_path):
    path = tmp_path / "expanded.pth"
    path.write_bytes(_zip_of(_tensor_of((3, 4), (0, 0))))
    np.testing.assert_array_equal(read_torch(path)["w"], np.zeros((3, 4)))


@pytest.mark.parametrize("shape", [(2**40, 2**40), (0, 2**62), (0, 2**62, 2**62), (2**63 - 1,)])
def test_params_files_with_shapes_that_cannot_be(tmp_path, shape):
    path = tmp_path / "a.params"
    head = struct.pack("<QQQIiI", 0x112, 0, 1, 0xF993FAC9, 0, len(shape))
    shape = struct.pack(f"<{len(shape)}q", *shape)
    path.write_bytes(head + shape + struct.pack("<iiiQQ", 1, 0, 0, 1, 1) + b"a")
    with pytest.raises(UserError, match=r"a\.params: is damaged or cut short"):
        read_mxnet(path)
