"""Label Studio's JSON export: choices, boxes, polygons, ellipses; of brush strokes the class."""

import collections
import re
import urllib.parse

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.json_file import member, read_json

_NOT_ANNOTATED = "tasks without an annotation, or skipped"
_BRUSH = "brush strokes, which give a class but are not converted to masks"
_SEVERAL = "tasks that several people annotated: all their classes, no mask"
_PART_CHOICES = "choices about a part of a picture, passed over"
_NO_CLASS = "results that name no class, passed over"
# Without labels of their own; a picture with one has no mask.
_SHAPES = {"rectangle", "polygon", "ellipse", "brush", "bitmask", "keypoint", "vector"}
# What Label Studio puts before the name of an uploaded file.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_PICTURE = re.compile(r"\.(jpe?g|png|webp|bmp|gif|tiff?)$", re.IGNORECASE)


def read_label_studio(source):
    """Return the `Annotations` of an export of the kind "JSON".

    Of several annotations of a task, those marked as ground truth count if there are some.

    Raises:
      UserError: it is no such file.
    """
    path = r.one_file(source, "the JSON file")
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: no export of Label Studio: it is not a list of tasks.")
    if tasks and not any("annotations" in task for task in tasks):
        raise UserError(
            f"{path}: no task has 'annotations'; export it from Label Studio as JSON, not JSON-MIN."
        )
    result = r.Annotations([])
    for i, task in enumerate(tasks, 1):
        where = f"{path}, task {i}"
        record = r.Record(_names(task, where), where, is_relative=True)
        annotations = member(task, "annotations", list, where, default=[])
        done = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
        done = [a for a in done if a.get("ground_truth")] or done
        if not done:
            result.notes.add(_NOT_ANNOTATED, record.names[0])
            continue
        for annotation in done:
            _read_regions(annotation, record, where, result.notes)
        if len(done) > 1:
            result.notes.add(_SEVERAL, record.names[0])
            record.shapes = [r.Shape(shape.class_name) for shape in record.shapes]
            # So that there is no mask, even if there are only choices or nothing.
            record.shapes.append(r.Shape(r.BACKGROUND))
        result.records.append(record)
    return result


def _names(task, where):
    """Return what the picture of a task may be called."""
    names = []
    upload = task.get("file_upload")
    data = member(task, "data", dict, where)
    places = [value for value in data.values() if isinstance(value, str)]
    named = [_path_of(value) for value in places]
    named = [name for name in named if _PICTURE.search(name)]
    for name in [*named[:1], upload]:
        if isinstance(name, str) and name:
            last = name.rpartition("/")[2]
            short = _UPLOAD_PREFIX.sub("", last)
            names += [name] if short == last else [name, short]
    if not names:
        raise UserError(f"{where}: no picture is named in its 'data'.")
    return tuple(dict.fromkeys(names))


def _path_of(address):
    """Return the path in an address, of a local file the one behind ?d=."""
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError:
        return ""
    local = urllib.parse.parse_qs(parts.query).get("d")
    return local[0] if local else urllib.parse.unquote(parts.path)


def _read_regions(annotation, record, where, notes):
    """Add what one person's annotation says to a record."""
    regions = member(annotation, "result", list, where, default=[])
    regions_of = collections.defaultdict(set)  # kinds of result by the id that they share
    for i, region in enumerate(regions, 1):
        kind = member(region, "type", str, f"{where}, result {i}", default="relation")
        if isinstance(region.get("id"), str):
            regions_of[region["id"]].add(kind)
    for i, region in enumerate(regions, 1):
        there = f"{where}, result {i}"
        named = f"{record.names[0]}, result {i}"
        kind = region.get("type") or "relation"
        if kind == "relation":
            continue
        key = region.get("id")
        others = regions_of[key] - {kind} if isinstance(key, str) else set()
        value = member(region, "value", dict, there, default={})
        labels = value.get(kind, value.get("labels"))
        if kind == "choices" and others:
            notes.add(_PART_CHOICES, named)
            continue
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            if "labels" not in others:  # which name the class of a shape
                notes.add(_NO_CLASS, named)
            if kind in _SHAPES:
                record.shapes.append(r.Shape(r.BACKGROUND))
            continue
        labels = [r.class_name(label, there) for label in labels]
        if kind in ("choices", "labels"):
            record.class_names.update(labels)
            continue
        size = r.size_of(region.get("original_height"), region.get("original_width"))
        record.size = size or record.size
        found, enough = _polygon(kind, value, there)
        if kind == "brushlabels":
            notes.add(_BRUSH, named)
        if enough:
            record.shapes += [r.Shape(label, found) for label in labels]
        else:
            notes.add(r.NO_POINTS, named)


def _polygon(kind, value, where):
    """Return (tuple of polygons in fractions of the picture, whether there are enough points)."""
    if kind == "polygonlabels":
        points = r.polygon(member(value, "points", list, where, default=[]), where)
        return ((), False) if points is None else ((points / 100,), True)
    if kind == "ellipselabels" and not value.get("rotation"):
        keys = ("x", "y", "radiusX", "radiusY")
        points = r.ellipse(*(member(value, key, (int, float), where) / 100 for key in keys))
        return (r.polygon(points, where),), True
    if kind == "rectanglelabels":
        sides = [member(value, key, (int, float), where, default=0) for key in ("width", "height")]
        return (), min(sides) > 0
    return (), True
