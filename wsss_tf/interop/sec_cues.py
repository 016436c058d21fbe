"""SEC's published localisation cues: from one Python 2 pickle to an index PNG an image."""

import gzip
import pathlib
import zlib

import numpy as np
from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.files import images
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


def convert_localization_cues(path, list_path, output, side=41):
    """Write the cues of every image of a list to `<output>/<image>.png`.

    A PNG holds a class number for every cell of the network's output grid: 0 for background, 255
    for no cue. The image's labels are the other classes in it, so nothing is lost.

    Args:
      path: `localization_cues.pickle.gz`: a pickled dict of "<number>_labels" (ascending from 1)
        and "<number>_cues" [3, N] (class, row, column). Arrays and containers only are read from
        it, anything else is refused by name.
      list_path: `input_list.txt`, lines "<image>.jpg <number>".
      output: folder, made if it is not there; existing files are written again.
      side: of the grid; 41 for pictures of 321 pixels.

    Returns:
      Number of files written.

    Raises:
      UserError: a file is missing or damaged, an image has no cues, values are out of range, a
        cell has two classes, or a label has no cue.
    """
    arrays = _read(pathlib.Path(path))
    listed = _read_list(pathlib.Path(list_path))
    output = pathlib.Path(output)
    for name, number in tqdm(listed.items(), desc="cues", unit="image", disable=None):
        labels, cues = (_get(arrays, f"{number}_{what}", path, name) for what in ("labels", "cues"))
        grid = _grid(labels, cues, side, f"{path}: image {name} ({number})")
        images.save_mask(output / f"{name}.png", grid)
    return len(listed)


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
    listed = {}
    for place, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            raise UserError(f"{path}: line {place} is {line!r}, not '<image>.jpg <number>'.")
        listed[pathlib.PurePosixPath(parts[0]).stem] = int(parts[1])
    if not listed:
        raise UserError(f"{path}: lists no image.")
    return listed


def _get(arrays, key, path, name):
    values = getattr(arrays.get(key), "values", None)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path}: has no array {key!r}, which the list names for {name}.")
    return values


def _grid(labels, cues, side, what):
    """Return the cues as a map, uint8 [side, side]."""
    if labels.ndim != 1 or cues.ndim != 2 or len(cues) != 3:
        raise UserError(
            f"{what}: labels {labels.shape} and cues {cues.shape} are not [L] and [3, N]."
        )
    if cues.size and (cues.min() < 0 or cues[1:].max() >= side or cues[0].max() >= 255):
        highest = cues.max(axis=1).tolist()
        raise UserError(
            f"{what}: cues reach class, row and column {highest}, on a grid of {side} x {side}."
        )
    if set(cues[0].tolist()) - {0} != set(labels.tolist()):
        raise UserError(
            f"{what}: has cues for the classes {sorted(set(cues[0].tolist()))}, but the labels "
            f"{labels.tolist()}."
        )
    grid = np.full((side, side), 255, np.uint8)
    grid[cues[1], cues[2]] = cues[0]
    if (grid != 255).sum() != cues.shape[1]:
        raise UserError(f"{what}: a cell of the grid is named twice.")
    return grid
