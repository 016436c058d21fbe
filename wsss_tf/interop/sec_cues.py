"""SEC's published localisation cues: from one Python 2 pickle to an array file an image."""

import gzip
import pathlib
import zlib

import numpy as np
from tqdm import tqdm

from wsss_tf import run_folder
from wsss_tf.errors import UserError
from wsss_tf.interop import restricted_pickle


class _DType:
    """Stands for `numpy.dtype` in a pickle: integers only."""

    def __init__(self, name, *unused):
        if name not in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise ValueError(f"an array of the type {name!r}, not of integers")
        self.dtype = np.dtype(f"<{name}")

    def __setstate__(self, state):
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for `numpy.ndarray` in a pickle; `values` is the real array."""

    values = None

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, contents = state
        if not isinstance(dtype, _DType):
            raise TypeError("an array without a type")
        if isinstance(contents, str):  # a byte string of Python 2, read as latin-1
            contents = contents.encode("latin-1")
        flat = np.frombuffer(contents, dtype.dtype)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): lambda kind, shape, code: _Array()
        for core in ("core", "_core")
    },
    # How Python 3 writes bytes in a protocol that has none; latin-1 is the one encoding it uses.
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin-1"),
}


def convert_localization_cues(path, list_path, output):
    """Write the cues of every image of a list to `<output>/<image>.npz`.

    A file holds `labels` int32 [L], the image's classes, ascending from 1; and `cues` uint8 [3, N],
    rows class (0 is background), row and column on the network's output grid.

    Args:
      path: `localization_cues.pickle.gz`: a pickled dict of "<number>_labels" and "<number>_cues".
        Arrays and containers only are read from it, anything else is refused by name.
      list_path: `input_list.txt`, lines "<image>.jpg <number>".
      output: folder, made if it is not there; existing files are written again.

    Returns:
      Number of files written.

    Raises:
      UserError: a file is missing or damaged, an image has no cues, or values are out of range.
    """
    arrays = _read(pathlib.Path(path))
    images = _read_list(pathlib.Path(list_path))
    output = pathlib.Path(output)
    for name, number in tqdm(images.items(), desc="cues", unit="image", disable=None):
        labels, cues = (_get(arrays, f"{number}_{what}", path, name) for what in ("labels", "cues"))
        _check(labels, cues, f"{path}: image {name} ({number})")
        with run_folder.atomic_path(output / f"{name}.npz") as temporary:
            # Uncompressed: ten thousand files of about a kilobyte, read anew in every epoch.
            np.savez(temporary, labels=labels.astype(np.int32), cues=cues.astype(np.uint8))
    return len(images)


def _read(path):
    try:
        with gzip.open(path, "rb") as file:
            content = restricted_pickle.load(file, path, _ALLOWED, encoding="latin1")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzip file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dict of arrays.")
    return content


def _read_list(path):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    images = {}
    for place, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            raise UserError(f"{path}: line {place} is {line!r}, not '<image>.jpg <number>'.")
        images[pathlib.PurePosixPath(parts[0]).stem] = int(parts[1])
    if not images:
        raise UserError(f"{path}: lists no image.")
    return images


def _get(arrays, key, path, name):
    values = getattr(arrays.get(key), "values", None)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path}: has no array {key!r}, which the list names for {name}.")
    return values


def _check(labels, cues, what):
    if labels.ndim != 1 or not labels.size or labels.min() < 1 or (np.diff(labels) <= 0).any():
        raise UserError(f"{what}: labels {labels.tolist()} do not ascend from 1 or above.")
    if cues.ndim != 2 or len(cues) != 3:
        raise UserError(f"{what}: cues have the shape {cues.shape}, not (3, N).")
    if cues.size and (cues.min() < 0 or cues.max() > 255):
        raise UserError(f"{what}: cues hold {cues.min()} to {cues.max()}; 0 to 255 are possible.")
    strangers = set(cues[0].tolist()) - {0, *labels.tolist()}
    if strangers:
        raise UserError(f"{what}: cues for class {min(strangers)}, which is not in its labels.")
