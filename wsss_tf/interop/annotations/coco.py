"""COCO's instances JSON: polygons and run lengths, boxes, or classes alone."""

import functools

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.json_file import member, read_json


def read_coco(source):
    """Return the `Annotations` of an instances file.

    Raises:
      UserError: it is no such file.
    """
    path = r.one_file(source, "the JSON file")
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: no COCO instances file: it has no list {key!r} of its own.")
    names = {}
    for i, category in enumerate(content["categories"], 1):
        where = f"{path}, category {i}"
        key = member(category, "id", int, where)
        names[key] = r.class_name(category.get("name"), where)
    result = r.Annotations([], r.declared(names[key] for key in sorted(names)), largest_first=True)
    records = {}
    for i, image in enumerate(content["images"], 1):
        where = f"{path}, image {i}"
        key = member(image, "id", (int, str), where)
        # LVIS has only the address.
        name = image.get("file_name") or str(image.get("coco_url") or "").rpartition("/")[2]
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: 'file_name' is missing.")
        if key in records:
            raise UserError(f"{where}: id {key!r} is there twice.")
        size = r.size_of(image.get("height"), image.get("width"))
        records[key] = r.Record((name,), where, size)
    for i, annotation in enumerate(content["annotations"], 1):
        where = f"{path}, annotation {i}"
        if isinstance(annotation, dict) and "segments_info" in annotation:
            raise UserError(f"{where}: COCO's panoptic format is not read; give the instances.")
        key = member(annotation, "image_id", (int, str), where)
        if key not in records:
            result.notes.add(r.UNLISTED_PICTURE, f"annotation {i}: image_id {key}")
            continue
        category = member(annotation, "category_id", int, where)
        if category not in names:
            result.notes.add(r.UNKNOWN_CLASS, f"annotation {i}: category_id {category}")
            continue
        shape = _shape(annotation, names[category], records[key].size, where)
        if shape is None:
            result.notes.add(r.NO_POINTS, f"annotation {i} of {records[key].names[0]}")
        elif shape.has_pixels or "bbox" in annotation or "segmentation" in annotation:
            records[key].shapes.append(shape)
        else:
            records[key].class_names.add(shape.class_name)
    result.records = list(records.values())
    return result


def _shape(annotation, class_name, size, where):
    """Return the shape of an annotation, None if it has too few points."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        runs_size = member(segmentation, "size", list, where)
        if size is None or r.size_of(*(runs_size * 2)[:2]) != size:
            raise UserError(f"{where}: the size of its mask, {runs_size}, is not the picture's.")
        counts = member(segmentation, "counts", (list, str), where)
        return r.Shape(class_name, bitmap=functools.partial(_bitmap, counts, where))
    if segmentation:
        if not isinstance(segmentation, list):
            raise UserError(f"{where}: 'segmentation' is neither polygons nor run lengths.")
        if not isinstance(segmentation[0], list):
            segmentation = [segmentation]  # some converters leave out the inner list
        polygons = [r.polygon(points, where) for points in segmentation]
        polygons = tuple(points for points in polygons if points is not None)
        if polygons:
            return r.Shape(class_name, polygons)
    box = member(annotation, "bbox", list, where, default=[])
    is_tag = "bbox" not in annotation and "segmentation" not in annotation
    has_box = len(box) == 4 and all(isinstance(v, int | float) for v in box) and min(box[2:]) > 0
    return r.Shape(class_name) if is_tag or has_box else None


def _bitmap(counts, where, size):
    if isinstance(counts, list):
        bitmap = r.runs_to_bitmap(counts, *size, where, order="F")
    else:
        bitmap = _packed_bitmap(counts, where, size)
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    if not len(rows):
        return 0, 0, bitmap[:0, :0]
    top, left = rows[0], columns[0]
    return top, left, bitmap[top : rows[-1] + 1, left : columns[-1] + 1].copy()


def _packed_bitmap(counts, where, size):
    """Return the pixels of run lengths packed into a text, as pycocotools writes them."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise UserError(
            f"{where}: run lengths packed into a text need pycocotools: "
            "pip install 'wsss_tf[labels]'."
        ) from error
    try:
        packed = {"size": list(size), "counts": counts.encode("ascii")}
        area = int(coco_mask.area(packed))
        bitmap = coco_mask.decode(packed).astype(bool)
    except (ValueError, TypeError, UnicodeError) as error:
        raise UserError(f"{where}: the run lengths cannot be read: {error}.") from error
    if bitmap.sum() != area:
        raise UserError(f"{where}: the runs of the mask are not {size[0]} x {size[1]} pixels.")
    return bitmap
