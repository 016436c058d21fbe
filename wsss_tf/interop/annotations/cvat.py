"""CVAT for images 1.1, one XML file: tags, polygons, ellipses, masks, boxes and other shapes."""

import functools

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.xml_file import number, read_xml, text_of

_OTHER_SHAPES = ("box", "polyline", "points", "cuboid", "skeleton")


def read_cvat(source):
    """Return the `Annotations` of annotations.xml.

    Raises:
      UserError: it is no such file, or one for videos.
    """
    path = r.one_file(source, "annotations.xml")
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}: the root is <{root.tag}>, not <annotations> of CVAT.")
    if root.find("track") is not None:
        raise UserError(f"{path}: this is CVAT for video; export it as 'CVAT for images 1.1'.")
    labels = [
        r.class_name(text_of(label, "name"), f"{path}, label {i}")
        for i, label in enumerate(root.iterfind("meta/*/labels/label"), 1)
        if label.find("parent") is None  # the points of a skeleton are no classes
    ]
    result = r.Annotations([], r.declared(labels) if labels else None)
    for i, image in enumerate(root.iterfind("image"), 1):
        where = f"{path}, image {i}"
        name = image.get("name")
        if not name:
            raise UserError(f"{where}: has no name.")
        record = r.Record((name,), where, r.size_of(image.get("height"), image.get("width")))
        layered = []
        for k, element in enumerate(image, 1):
            there = f"{where} ({name}), shape {k}"
            if element.tag == "tag":
                record.class_names.add(_label(element, labels, there))
            elif element.tag in ("polygon", "ellipse", "mask", *_OTHER_SHAPES):
                shape = _shape(element, _label(element, labels, there), there)
                if shape is None:
                    result.notes.add(r.NO_POINTS, f"{name}, shape {k}")
                else:
                    layered.append((number(element, "z_order", there, default=0.0), shape))
        record.shapes = [shape for _, shape in sorted(layered, key=lambda pair: pair[0])]
        result.records.append(record)
    return result


def _label(element, labels, where):
    name = r.class_name(element.get("label"), where)
    if labels and name not in labels:
        raise UserError(f"{where}: the label {name!r} is not among those of <meta>.")
    return name


def _shape(element, class_name, where):
    """Return a shape, None if it has too few points."""
    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair.strip()]
        points = r.polygon(pairs, where)
        return None if points is None else r.Shape(class_name, (points,))
    if element.tag == "ellipse":
        values = [number(element, key, where) for key in ("cx", "cy", "rx", "ry")]
        if min(values[2:]) <= 0:
            return None
        points = r.ellipse(*values, number(element, "rotation", where, default=0.0))
        return r.Shape(class_name, (r.polygon(points, where),))
    if element.tag == "mask":
        names = ("top", "left", "height", "width")
        box = [int(number(element, key, where)) for key in names]
        runs = functools.partial(_bitmap, element.get("rle", ""), box, where)
        return r.Shape(class_name, bitmap=runs)
    return r.Shape(class_name)


def _bitmap(runs, box, where, size):
    """Return the pixels of runs along the rows of a box."""
    top, left, height, width = box
    inside = min(top, left) >= 0 and top + height <= size[0] and left + width <= size[1]
    if not inside or min(height, width) < 1:
        raise UserError(f"{where}: its mask reaches outside of the picture.")
    counts = runs.split(",")
    try:
        counts = [int(count) for count in counts]
    except ValueError as error:
        raise UserError(f"{where}: rle must be whole numbers.") from error
    return top, left, r.runs_to_bitmap(counts, height, width, where)
