"""What every reader of annotations gives."""

import collections
import dataclasses
import math
import pathlib
import unicodedata
from collections.abc import Callable

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import find_files

BACKGROUND = "background"
# What tools call it.
_BACKGROUND_NAMES = {"background", "_background_", "__background__"}
_FARTHEST = 1e6  # pixels: no point of a picture is as far out

# Kinds of notes, as the command prints them.
NO_POINTS = "shapes with too few points, passed over"
UNKNOWN_CLASS = "annotations of unknown classes, passed over"
UNLISTED_PICTURE = "annotations of pictures that the file does not list, passed over"
OTHER_FILES = "files of another kind, passed over"


@dataclasses.dataclass
class Shape:
    """An object in a picture.

    Attributes:
      class_name: a class, "background", or None for pixels that are to be ignored.
      polygons: float [n, 2] arrays of x, y, whose union is the shape. Pixel i reaches from i to
        i + 1.
      bitmap: a function of the picture's (h, w) that returns (top, left, bool [h', w']), which is
        the shape; not called for pictures of another size than the record's.

    A shape with neither is known to be there, such as a box, but not which pixels it has.
    """

    class_name: str | None
    polygons: tuple = ()
    bitmap: Callable | None = None

    @property
    def has_pixels(self):
        """Whether it says which pixels it has."""
        return bool(self.polygons) or self.bitmap is not None


@dataclasses.dataclass
class Record:
    """What a file says of one picture.

    Attributes:
      names: what the picture may be called, the best first; with or without folders and suffix.
      where: file and row or record, for messages.
      size: (h, w) in pixels, None if the file does not say.
      class_names: of the picture as a whole, set of names.
      shapes: list of `Shape`, in the order in which they are drawn.
      is_relative: coordinates are fractions of the picture's width and height.
    """

    names: tuple
    where: str
    size: tuple | None = None
    class_names: set = dataclasses.field(default_factory=set)
    shapes: list = dataclasses.field(default_factory=list)
    is_relative: bool = False

    def classes(self):
        """Return the names of all classes in the picture, without the background."""
        names = self.class_names | {shape.class_name for shape in self.shapes}
        return names - {BACKGROUND, None}


class Notes:
    """What was passed over, by kind: counted, and some of it named."""

    def __init__(self):
        self.items = collections.defaultdict(list)

    def add(self, kind, item):
        """Add one thing of a kind."""
        printable = str(item).encode("utf-8", "backslashreplace").decode()
        self.items[kind].append(" ".join(printable.split()))

    def lines(self, most=5):
        """Yield a line for each kind, with at most so many names."""
        for kind, items in self.items.items():
            more = f" and {len(items) - most} more" if len(items) > most else ""
            yield f"{kind}: {len(items)} ({', '.join(items[:most])}{more})"


@dataclasses.dataclass
class Annotations:
    """What a reader gives.

    Attributes:
      records: list of `Record`.
      class_names: the declared classes in their order; None if the format declares none.
      largest_first: the order of shapes means nothing, so that small ones are drawn on large ones.
      notes: `Notes`.
    """

    records: list
    class_names: list | None = None
    largest_first: bool = False
    notes: Notes = dataclasses.field(default_factory=Notes)


# === What readers share ===


def class_name(value, where):
    """Return a class name as it can be written, "background" for what tools call that.

    Raises:
      UserError: it is no text, empty, or holds a control character or ";", which separates labels.
    """
    if not isinstance(value, str) or not value.split():
        raise UserError(f"{where}: a class without a name ({value!r}).")
    name = " ".join(value.split())
    if ";" in name:
        raise UserError(
            f"{where}: the class {name!r} holds ';', which separates labels in image_labels.csv; "
            "rename it."
        )
    if not writable(name):
        raise UserError(f"{where}: the class {name!r} holds a control character; rename it.")
    return BACKGROUND if name.casefold() in _BACKGROUND_NAMES else name


def writable(name):
    """Return whether a table can hold a name: no control characters, no bytes that are no text."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def declared(names):
    """Return class names in their order, each once, without the background."""
    return [name for name in dict.fromkeys(names) if name != BACKGROUND]


def polygon(values, where, farthest=_FARTHEST):
    """Return float [n, 2] of a list of points or of x, y, x, y; None for fewer than 3 points.

    Raises:
      UserError: there is something else in it than finite numbers, or an odd number of them.
    """
    try:
        points = np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        points = None
    if points is None or points.size % 2 or (points.ndim == 2 and points.shape[1:] != (2,)):
        raise UserError(f"{where}: points must be pairs of numbers.")
    points = points.reshape(-1, 2)
    if not np.all(np.abs(points) < farthest):  # so written, NaN fails too
        raise UserError(f"{where}: a point is not finite, or far outside of the picture.")
    return points if len(points) >= 3 else None


def ellipse(cx, cy, rx, ry, degrees=0.0):
    """Return the points, float [256, 2], of an ellipse, turned clockwise as pictures are seen."""
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    turn = math.radians(degrees)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return np.stack([cx + x, cy + y], 1)


def size_of(height, width):
    """Return (h, w), None if they are no positive whole numbers."""
    try:
        size = int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def runs_to_bitmap(counts, height, width, where, order="C"):
    """Return bool [height, width] of lengths of runs, the first of pixels outside of the shape.

    Args:
      counts: whole numbers.
      order: "C" for runs along rows, "F" along columns.

    Raises:
      UserError: they do not add up to the pixels.
    """
    try:
        counts = np.asarray(counts, np.int64)
    except (ValueError, TypeError, OverflowError):
        counts = np.array([-1])
    fits = counts.ndim == 1 and (counts >= 0).all() and (counts <= height * width).all()
    if not fits or counts.sum() != height * width:
        raise UserError(f"{where}: the runs of the mask are not {height} x {width} pixels.")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((height, width), order=order)


def files_below(source, suffix):
    """Return the (path, path below the folder without suffix) of files, sorted; or of one file.

    Hidden files are left out, and a folder that links lead to again is searched once.

    Raises:
      UserError: no such file or folder, none with the suffix, or two that differ by it only.
    """
    source = pathlib.Path(source)
    if source.is_file():
        return [(source, source.stem)]
    if not source.is_dir():
        raise UserError(f"--source={source}: no such file or folder.")
    found = find_files(source, (suffix,))
    if not found:
        raise UserError(f"--source={source}: no file *{suffix} in it.")
    return [(pathlib.Path(path), name) for name, path in found.items()]


def one_file(source, what):
    """Return the path of a format that is one file.

    Raises:
      UserError: there is no such file, or it is a folder.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        raise UserError(f"--source={source}: is a folder; name {what} itself.")
    if not source.is_file():
        raise UserError(f"--source={source}: no such file.")
    return source
