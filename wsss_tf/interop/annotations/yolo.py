"""YOLO's text files, one a picture, with boxes or polygons, and the file of the classes' names."""

import math
import pathlib

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations import record as r

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_TEXT_NAMES = ("obj.names", "classes.txt", "names.txt")
# Lists of pictures and of names may lie among the labels.
_NAME_LISTS = {"classes", "names"}
_LISTS = {"train", "val", "valid", "test", "labels"}


def read_yolo(source, names=None):
    """Return the `Annotations` of a folder of text files.

    Args:
      source: the folder; data.yaml, obj.names or classes.txt is looked for in it, and in the two
        folders above.
      names: the file of the names, where it lies elsewhere.

    Raises:
      UserError: no names; a line that is neither a box nor a polygon.
    """
    source = pathlib.Path(source)
    files = [
        (path, name)
        for path, name in r.files_below(source, ".txt")
        if path.stem not in _NAME_LISTS and not path.stem.lower().startswith("readme")
        if path.stem not in _LISTS or _is_of_numbers(path)
    ]
    if not files:
        raise UserError(f"--source={source}: no text file of a picture in it.")
    class_names = _read_names(_names_file(source, names))
    known = [class_names[index] for index in sorted(class_names)]
    result = r.Annotations([], r.declared(known), largest_first=True)
    for path, name in files:
        record = r.Record(_picture_names(name), str(path), is_relative=True)
        for line, text in enumerate(_text(path).splitlines(), 1):
            if text.strip():
                _read_line(text, f"{path}, line {line}", class_names, record, result.notes)
        result.records.append(record)
    return result


def _is_of_numbers(path):
    """Return whether a text file begins as one of a picture does."""
    words = _text(path).split()
    return not words or words[0].isdecimal()


def _picture_names(name):
    """Return what the picture of a text file may be called: images/a for labels/a."""
    parts = name.split("/")
    if "labels" not in parts[:-1]:
        return (name,)
    at = len(parts) - 2 - parts[-2::-1].index("labels")
    return "/".join([*parts[:at], "images", *parts[at + 1 :]]), "/".join(parts[at + 1 :]), name


def _read_line(text, where, class_names, record, notes):
    try:
        index, *values = [float(word) for word in text.split()]
    except ValueError:
        values = index = None
    if values is None or not all(map(math.isfinite, [index, *values])) or index != int(index):
        raise UserError(f"{where}: {text[:60]!r} is not a class number and then coordinates.")
    if len(values) < 4 or (len(values) > 5 and len(values) % 2):
        raise UserError(
            f"{where}: {len(values)} numbers after the class; a box has 4, a polygon pairs, from 6."
        )
    if min(values) < -1 or max(values) > 2:
        raise UserError(
            f"{where}: {max(values, key=abs):g} is no coordinate: they are fractions of the "
            "picture's width and height, 0 to 1."
        )
    if int(index) not in class_names:
        notes.add(r.UNKNOWN_CLASS, f"class {index:g} in {where}")
    elif len(values) > 5:
        points = (np.reshape(values, [-1, 2]),)
        record.shapes.append(r.Shape(class_names[int(index)], points))
    elif min(values[2:4]) <= 0:
        notes.add(r.NO_POINTS, where)
    else:
        record.shapes.append(r.Shape(class_names[int(index)]))


# === Names ===


def _names_file(source, given):
    if given:
        path = pathlib.Path(given)
        if not path.is_file():
            raise UserError(f"--names={given}: no such file.")
        return path
    folder = source if source.is_dir() else source.parent
    for place in (folder, *folder.absolute().parents[:2]):
        for name in (*_YAML_NAMES, *_TEXT_NAMES):
            if (place / name).is_file():
                return place / name
    raise UserError(
        f"--source={source}: neither data.yaml, obj.names nor classes.txt in it or above; say "
        "--names=FILE with the names of the classes."
    )


def _text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error


def _read_names(path):
    """Return {number: class name}."""
    if path.suffix in (".yaml", ".yml"):
        names = _names_of_yaml(path)
    else:
        lines = [line.strip() for line in _text(path).splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        names = dict(enumerate(lines))
    names = {index: r.class_name(name, f"{path}, class {index}") for index, name in names.items()}
    if not names:
        raise UserError(f"{path}: names no class.")
    return names


def _names_of_yaml(path):
    try:
        import yaml
    except ImportError as error:
        raise UserError(
            f"{path}: needs PyYAML: pip install 'wsss_tf[labels]'; or give a text file with a name "
            "a line by --names."
        ) from error
    try:
        content = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no YAML: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(type(index) is int for index in names):
        raise UserError(f"{path}: 'names' is neither a list nor numbers with names.")
    # YAML reads an unquoted 1, yes or no as something else than text.
    for index, name in names.items():
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise UserError(f"{path}: the name of class {index} is {name!r}; put it in quotes.")
    return {index: str(name) for index, name in names.items()}
