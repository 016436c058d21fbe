"""Files damaged at random: each decoder and reader gives something, or the error that it promises.

A file is a good one with bytes changed, put in, taken out, repeated or cut off, or no file at all.
The plain suite tries a few of each, --all some hundreds. `pytest -rP` says how many, and how long
that took.
"""

import collections
import contextlib
import io
import json
import pathlib
import struct
import time

import annotation_files
import foreign_files
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from PIL import Image
from test_interop_files import cues_content, write_cues

from wsss_tf.data.label_table import labels_by_image, read_label_table
from wsss_tf.data.source import error_in_short
from wsss_tf.errors import UserError
from wsss_tf.evaluation.mask_folders import read_class_names
from wsss_tf.files import images, png
from wsss_tf.files.calibration import Calibration, load_calibration, save_calibration
from wsss_tf.files.cam_record import PictureFiles, load_record, make_record, save_record
from wsss_tf.files.npz import read_npz
from wsss_tf.files.pictures import load_picture
from wsss_tf.files.pixel_limit import MAX_PIXELS
from wsss_tf.files.run_folder import RunFolder, save_cams, write_text
from wsss_tf.inference.sec_cues import load_rows, save_rows
from wsss_tf.interop.annotations.draw import draw_mask
from wsss_tf.interop.annotations.read import READERS
from wsss_tf.interop.mxnet_file import read_mxnet
from wsss_tf.interop.sec_cues import convert_localization_cues
from wsss_tf.interop.torch_file import read_torch
from wsss_tf.pipelines.records import read_record
from wsss_tf.runs import recipe as recipe_lib

FEW, MANY = 25, 400

# === How files are damaged ===

_PLACE = st.integers(0, 2**16)
_NUMBERS = st.sampled_from([0, 1, 0x7F, 0xFF, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1])
_EDIT = st.one_of(
    st.tuples(st.just("set"), _PLACE, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), _PLACE, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("take"), _PLACE, st.integers(1, 40)),
    st.tuples(st.just("repeat"), _PLACE, st.integers(1, 40)),
    st.tuples(st.just("cut"), _PLACE, st.none()),
    st.tuples(st.just("number"), _PLACE, st.tuples(st.sampled_from("BHIQ"), _NUMBERS)),
)
_EDITS = st.one_of(st.lists(_EDIT, min_size=1, max_size=4), st.binary(max_size=60))


def damaged(contents, edits):
    """Return contents with edits, or what stands for them altogether."""
    if isinstance(edits, bytes):
        return edits
    for kind, place, value in edits:
        # Heads are small and matter most.
        place %= max(len(contents) if place % 2 else min(len(contents), 64), 1)
        head, tail = contents[:place], contents[place:]
        if kind == "set":
            tail = value + tail[len(value) :]
        elif kind == "insert":
            tail = value + tail
        elif kind == "take":
            tail = tail[value:]
        elif kind == "repeat":
            tail = tail[:value] * 3 + tail[value:]
        elif kind == "cut":
            tail = b""
        else:
            form, number = value
            size = struct.calcsize(form)
            order = "<" if place % 3 else ">"
            tail = struct.pack(order + form, number % 2 ** (8 * size)) + tail[size:]
        contents = head + tail
    return contents


# === What reads them ===


def _encoded(form, mode="RGB", **options):
    values = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, form, **options)
    return file.getvalue()


def _exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _mask():
    file = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 4, (13, 21), np.uint8), "P")
    picture.putpalette(png.palette().tobytes())
    picture.save(file, "PNG")
    return file.getvalue()


def _in_graph(decode):
    decode = tf.function(decode, autograph=False, input_signature=[tf.TensorSpec([], tf.string)])

    def read(path):
        try:
            result = decode(tf.constant(path.read_bytes())).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise UserError(error_in_short(error)) from error
        assert result.dtype == np.uint8
        assert 0 < result.size <= 3 * MAX_PIXELS

    return read


def _written(write, *names):
    """Return a function of a folder to the bytes of a file that `write(folder)` writes."""

    def contents(folder):
        write(folder)
        return folder.joinpath(*names).read_bytes()

    return contents


def _write_probabilities(folder):
    probs = np.random.default_rng(0).uniform(size=(5, 7, 2))
    png.save_probabilities(folder / "a.png", [0, 3], probs)


def _write_cam(folder):
    maps = np.random.default_rng(0).uniform(size=(2, 5, 7))
    save_cams(RunFolder(folder).cams, "a", [1, 4], maps)


def _write_record(folder):
    pictures = PictureFiles("train", ("a", "b"), ("/x/a.jpg", "/x/b.jpg"))
    save_record(folder, make_record(pictures, folder, (), 0.3, None))


def _write_state(folder):
    value = {"state": "finished", "made": "x", "inputs": {"a": [1]}, "after": {}, "seconds": 2}
    write_text(folder / "stages/a.json", json.dumps(value))


def _write_plain(folder):
    recipe_lib.load(["gin/seam.gin"], ["Recipe.initial_weights='x'"])
    recipe_lib.save_parsed_config(folder, "for a test")


def _read_plain(folder):
    RunFolder(folder).config.unlink(missing_ok=True)
    recipe_lib.load_run(folder)


def _annotations(kind):
    """Return (function of a folder to contents, reader) of the annotations of a tool."""
    names = {}

    def contents(folder):
        source = pathlib.Path(annotation_files.WRITERS[kind](folder))
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        files = [path for path in files if path.suffix in (".json", ".xml", ".txt", ".csv")]
        names["source"], names["file"] = source, files[0]
        return files[0].read_bytes()

    def read(path):
        names["file"].write_bytes(path.read_bytes())
        found = READERS[kind](str(names["source"]))
        values = collections.defaultdict(lambda: 1)
        for record in found.records:
            if record.shapes:
                draw_mask(record.shapes, annotation_files.SIZE, values, record.is_relative)

    return contents, read


def _torch(container):
    content = {"state_dict": {"a": np.arange(6.0, dtype=np.float32), "b": np.int64([[1, 2]])}}

    def write(folder):
        foreign_files.write_torch(folder / "a.pth", content, container)

    return _written(write, "a.pth"), read_torch


def _mxnet(folder):
    arrays = {"arg:a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    foreign_files.write_mxnet(folder / "a.params", arrays)


def _cues(path):
    list_path = path.with_name("list.txt")
    list_path.write_text("a.jpg 0\nb.jpg 12\n")
    convert_localization_cues(path, list_path, path.with_name("out"))


def _in_run(name, read):
    """Return a reader of a file of a run folder."""

    def read_in(path):
        folder = path.parent / "run"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        read(folder)

    return read_in


def _npz(path):
    try:
        read_npz(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def _gin(path):
    recipe_lib.load([path])


_SMALL_GIN = (
    "from __gin__ import dynamic_registration\nfrom wsss_tf.runs import recipe\n"
    "A = (1, 'x', None)\nrecipe.Recipe.seed = %A\nrecipe.Recipe.steps = [1, {'a': 2.5e3}]\n"
)

# By name: (bytes of good files, or function of a folder to them; reader of a path).
CASES = {
    "decode_image": (
        [_encoded("JPEG", exif=_exif()), _encoded("PNG"), _encoded("PNG", "P")],
        _in_graph(images.decode_image),
    ),
    "decode_mask": ([_mask(), _encoded("PNG", "1")], _in_graph(images.decode_mask)),
    "load_picture": (
        [_encoded("JPEG", exif=_exif()), _encoded("PNG", "RGBA"), _encoded("JPEG", "CMYK")],
        load_picture,
    ),
    "load_mask": ([_mask(), _encoded("PNG", "L")], images.load_mask),
    "load_probabilities": (_written(_write_probabilities, "a.png"), png.load_probabilities),
    "cam_file": (
        _written(_write_cam, "cams", "a.npz"),
        _in_run("cams/a.npz", lambda folder: RunFolder(folder).read_cams("a")),
    ),
    "npz": (_written(_write_cam, "cams", "a.npz"), _npz),
    "cue_rows": (
        _written(lambda folder: save_rows(folder / "a.npz", np.eye(4, dtype=int)), "a.npz"),
        load_rows,
    ),
    "torch_zip": _torch("zip"),
    "torch_pickles": _torch("pickles"),
    "mxnet": (_written(_mxnet, "a.params"), read_mxnet),
    "sec_cues": (
        _written(lambda folder: write_cues(folder / "a.gz", cues_content()), "a.gz"),
        _cues,
    ),
    "image_labels": (
        [
            b'image,labels\na.jpg,cat;dog\n"b, c.jpg",\n',
            "image;labels\ra.jpg;cat\r".encode("utf-16"),
        ],
        lambda path: labels_by_image(read_label_table(path)),
    ),
    "class_names": ([b"background\ncat\ndog\n", "Hütte\r\n".encode("utf-16")], read_class_names),
    "gin": ([_SMALL_GIN.encode()], _gin),
    "config.json": (_written(_write_plain, "config.json"), _in_run("config.json", _read_plain)),
    "cam_record": (
        _written(_write_record, "cams", "train.json"),
        _in_run("cams/train.json", lambda folder: load_record(folder, "train")),
    ),
    "calibration": (
        _written(
            lambda folder: save_calibration(folder, Calibration(0.3, "5 masks")),
            "calibration.json",
        ),
        _in_run("calibration.json", load_calibration),
    ),
    "stage_record": (
        _written(_write_state, "stages", "a.json"),
        _in_run("stages/a.json", lambda folder: read_record(folder, "a")),
    ),
    "bad_images": (
        [b'[["a", "it is empty"]]'],
        _in_run("bad_images.json", lambda folder: RunFolder(folder).read_bad_images()),
    ),
    **{kind: _annotations(kind) for kind in annotation_files.WRITERS},
}


def fuzz(name, folder, count):
    """Read so many damaged files; return how many of them were refused."""
    good, read = CASES[name]
    if callable(good):
        source = folder / "good"
        source.mkdir()
        good = [good(source)]
    path = folder / "file"
    path.mkdir()
    path = path / "damaged.bin"
    seen = {"refused": 0, "cases": 0}

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(st.sampled_from(good), _EDITS)
    def check(contents, edits):
        seen["cases"] += 1
        path.write_bytes(damaged(contents, edits))
        try:
            read(path)
        except UserError:
            seen["refused"] += 1

    for contents in good:  # they are good
        path.write_bytes(contents)
        # There is no recipe in the one for gin.
        with pytest.raises(UserError) if name == "gin" else contextlib.nullcontext():
            read(path)
    started = time.monotonic()
    check()
    seconds = time.monotonic() - started
    print(f"{name}: {seen['cases']} files, {seen['refused']} refused, {seconds:.1f} s")
    return seen["refused"]


@pytest.mark.parametrize("name", CASES)
def test_damaged_files(name, tmp_path):
    assert fuzz(name, tmp_path, FEW) > 0


@pytest.mark.large
@pytest.mark.parametrize("name", CASES)
def test_many_damaged_files(name, tmp_path):
    assert fuzz(name, tmp_path, MANY) > 0
