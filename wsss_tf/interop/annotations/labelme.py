"""LabelMe's JSON, one file a picture: polygons, circles, masks; rectangles are boxes."""

import base64
import binascii
import functools
import io
import math

import numpy as np
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.files.pictures import DAMAGED
from wsss_tf.files.pixel_limit import check_size
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.json_file import member, read_json

IGNORED = "__ignore__"  # LabelMe's own name for pixels that are to be ignored
_FLAGS = "files whose image flags were not read"


def read_labelme(source):
    """Return the `Annotations` of a folder of JSON files, or of one.

    Raises:
      UserError: a file is no JSON, a shape is wrong, or no file is LabelMe's.
    """
    result = r.Annotations([])
    for path, name in r.files_below(source, ".json"):
        content = read_json(path)
        if not isinstance(content, dict) or "shapes" not in content:
            result.notes.add(r.OTHER_FILES, path.name)
            continue
        result.records.append(_record(path, name, content, result.notes))
    if not result.records:
        raise UserError(f"--source={source}: no LabelMe JSON (with 'shapes' in it) there.")
    return result


def _record(path, name, content, notes):
    image_path = member(content, "imagePath", str, path, default="")
    parent = name.rpartition("/")[0]
    names = (f"{parent}/{image_path}" if parent else image_path, name) if image_path else (name,)
    size = r.size_of(content.get("imageHeight"), content.get("imageWidth"))
    record = r.Record(names, str(path), size)
    flags = content.get("flags")
    if isinstance(flags, dict) and any(flags.values()):
        notes.add(_FLAGS, path.name)
    for i, shape in enumerate(member(content, "shapes", list, path), 1):
        where = f"{path}, shape {i}"
        label = r.class_name(member(shape, "label", str, where), where)
        found = _shape(shape, None if label == IGNORED else label, where)
        if found is None:
            notes.add(r.NO_POINTS, f"{path.name}, shape {i}")
        else:
            record.shapes.append(found)
    return record


def _shape(shape, class_name, where):
    """Return a shape, None if it has too few points."""
    kind = member(shape, "shape_type", str, where, default="polygon")
    points = member(shape, "points", list, where, default=[])
    r.polygon(points, where)  # checks them
    if kind == "polygon":
        points = r.polygon(points, where)
        return None if points is None else r.Shape(class_name, (points,))
    if len(points) < (1 if kind in ("point", "points") else 2):
        return None
    if kind == "circle":
        (cx, cy), (x, y) = points[:2]
        radius = math.hypot(x - cx, y - cy)
        return r.Shape(class_name, (r.ellipse(cx, cy, radius, radius),)) if radius else None
    if kind == "mask":
        left, top = np.floor(points[0]).astype(int)
        encoded = member(shape, "mask", str, where)
        bitmap = functools.partial(_bitmap, encoded, int(top), int(left), where)
        return r.Shape(class_name, bitmap=bitmap)
    return r.Shape(class_name)


def _bitmap(encoded, top, left, where, size):
    """Return the pixels of a PNG in base64, which lies at (top, left) of the picture."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as picture:
            check_size(picture.height, picture.width)
            fits = top + picture.height <= size[0] and left + picture.width <= size[1]
            bitmap = np.array(picture.convert("L")) > 0 if fits else None
    except (*DAMAGED, binascii.Error) as error:
        raise UserError(f"{where}: its mask cannot be read: {error}.") from error
    if bitmap is None or min(top, left) < 0:
        raise UserError(f"{where}: its mask reaches outside of the picture.")
    return top, left, bitmap
