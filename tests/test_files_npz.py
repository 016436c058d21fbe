import io
import re
import struct
import zipfile

import numpy as np
import pytest

from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.npz import read_npz
from wsss_tf.files.run_folder import RunFolder


def test_reads_what_numpy_writes(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.int32).reshape(2, 3),
        "b/c": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4, 2))),
        "scalar": np.float16(3.5),
        "none": np.zeros((0, 5), np.uint8),
        "text": np.array(["x", "yz"]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == np.asarray(value).dtype
    with pytest.raises(ValueError, match="no array 'other'"):
        read_npz(tmp_path / "a.npz", ["other"])


def header_of(shape, dtype="<f2"):
    file = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, description)
    return file.getvalue()


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (header_of((10**6, 10**6)), "not all there"),
        (header_of((2**62, 2**62)), "not all there"),
        (header_of((-1, 2)) + b"1234", "not all there"),
        (header_of((1,), "|O") + b"12345678", "Python objects"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 60000), "EOF"),
        (b"\x93NUMPY\x07\x00", "unknown version"),
        (b"GIF89a", "magic"),
        (b"", "EOF"),
    ],
)
def test_what_a_header_announces_must_be_there(tmp_path, member, words):
    path = tmp_path / "cams/a.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cams.npy", member)
        archive.writestr("class_ids.npy", member)
    with pytest.raises(ValueError, match=words):
        read_npz(path)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: cannot be read as a CAM file"):
        RunFolder(tmp_path).read_cams("a")


def test_a_cam_file_with_any_byte_changed_is_refused_or_the_same(tmp_path):
    run = RunFolder(tmp_path)
    maps = np.random.default_rng(0).uniform(size=(2, 5, 7)).astype(np.float16)
    run_folder.save_cams(run.cams, "a", [3, 8], maps)
    contents = run.cam("a").read_bytes()
    refused = 0
    for position in range(len(contents)):
        damaged = bytearray(contents)
        damaged[position] ^= 1 << position % 8
        run.cam("a").write_bytes(damaged)
        try:
            class_ids, cams = run.read_cams("a")
        except UserError:
            refused += 1
        else:  # a byte that says nothing, such as of a time
            np.testing.assert_array_equal(class_ids, [3, 8])
            np.testing.assert_array_equal(cams, maps)
    assert refused > len(contents) / 2


@pytest.mark.parametrize(
    "arrays",
    [
        {"class_ids": np.int32([1, 1]), "cams": np.zeros((2, 3, 3), np.float16)},
        {"class_ids": np.int32([0]), "cams": np.zeros((1, 3, 3), np.float16)},
        {"class_ids": np.int32([1]), "cams": np.zeros((2, 3, 3), np.float16)},
        {"class_ids": np.int32([1]), "cams": np.zeros((1, 3), np.float16)},
        {"class_ids": np.int32([1]), "cams": np.full((1, 3, 3), np.nan, np.float16)},
        {"class_ids": np.float32([1]), "cams": np.zeros((1, 3, 3), np.float16)},
        {"class_ids": np.int32([1])},
    ],
)
def test_maps_that_inference_does_not_write_are_refused(tmp_path, arrays):
    run = RunFolder(tmp_path)
    run.cams.mkdir()
    np.savez(run.cam("a"), **arrays)
    with pytest.raises(UserError, match="cannot be read as a CAM file"):
        run.read_cams("a")


def test_damaged_maps_for_the_walk_are_refused_too(tmp_path):
    run = RunFolder(tmp_path)
    whole = {"class_ids": np.int32([1]), "cams": np.zeros((1, 3, 3), np.float16)}
    run.cams.mkdir()
    np.savez(run.cam("a"), **whole, strided_cams=np.full((1, 2, 2), np.inf, np.float16))
    np.savez(run.cam("b"), **whole, strided_cams=np.zeros((1, 2, 2), np.float16))
    run.cam("c").write_bytes(run.cam("b").read_bytes()[:-30])
    assert run.read_strided_cams("b").shape == (1, 2, 2)
    for image_id in "ac":
        with pytest.raises(UserError, match="cannot be read as a CAM file"):
            run.read_strided_cams(image_id)
