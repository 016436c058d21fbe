"""Annotations as the tools themselves write them, of the same four pictures.

a.jpg shows a cat (a triangle) and a dog (a rectangle, over it), sub/b.png a traffic light, c.jpg
nothing; d.jpg is mentioned nowhere. All are of 8 x 12 pixels.
"""

import json

import numpy as np
import pytest
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations.draw import draw_mask
from wsss_tf.interop.annotations.read import READERS

SIZE = (8, 12)  # height, width
CLASSES = {"a": {"cat", "dog"}, "sub/b": {"traffic light"}, "c": set()}

CAT = [[0, 0], [5.8, 0], [0, 5.8]]
DOG = [[1, 3], [5, 3], [5, 6], [1, 6]]
LIGHT = [[9.3, 1.2], [11.4, 1.2], [11.4, 6.4], [9.3, 6.4]]
# With the classes in the order cat, dog, traffic light. A pixel counts if its centre is inside.
MASK_A = """
111110000000
111100000000
111000000000
122220000000
122220000000
022220000000
000000000000
000000000000
"""
MASK_B = """
000000000000
000000000330
000000000330
000000000330
000000000330
000000000330
000000000000
000000000000
"""


def drawn(text):
    """Return the mask, uint8 [8, 12], of a drawing."""
    return np.array([[int(c) for c in line] for line in text.split()], np.uint8)


def write_pictures(folder, names=("a.jpg", "sub/b.png", "c.jpg", "d.jpg"), size=SIZE):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def coco(with_shapes=True):
    """Return an instances file, category ids with gaps and not in the order of their names."""
    images = [
        {
            "license": 1,
            "file_name": name,
            "coco_url": f"http://images.cocodataset.org/val2017/{name}",
            "height": SIZE[0],
            "width": SIZE[1],
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": "",
            "id": i,
        }
        for i, name in enumerate(["a.jpg", "sub/b.png", "c.jpg"], 139)
    ]
    flat = {name: [v for point in points for v in point] for name, points in
            {"dog": DOG, "cat": CAT, "light": LIGHT}.items()}  # fmt: skip
    objects = [(139, 3, flat["dog"], 12), (139, 1, flat["cat"], 18), (140, 10, flat["light"], 11)]
    annotations = [
        {
            "segmentation": [points] if with_shapes else [],
            "area": area,
            "iscrowd": 0,
            "image_id": image,
            "bbox": [1, 3, 4, 3],
            "category_id": category,
            "id": 1000 + i,
        }
        for i, (image, category, points, area) in enumerate(objects)
    ]
    return {
        "info": {"description": "COCO 2017 Dataset", "year": 2017, "version": "1.0"},
        "licenses": [{"url": "http://creativecommons.org/", "id": 1, "name": "Attribution"}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"supercategory": "outdoor", "id": 10, "name": "traffic light"},
            {"supercategory": "animal", "id": 1, "name": "cat"},
            {"supercategory": "animal", "id": 3, "name": "dog"},
        ],
    }


def write_coco(folder):
    path = folder / "instances.json"
    path.write_text(json.dumps(coco()))
    return path


def voc_xml(filename, names):
    objects = "".join(
        f"""
\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>2</xmin>
\t\t\t<ymin>1</ymin>
\t\t\t<xmax>7</xmax>
\t\t\t<ymax>6</ymax>
\t\t</bndbox>
\t\t<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>
\t</object>"""
        for name in names
    )
    return f"""<annotation>
\t<folder>JPEGImages</folder>
\t<filename>{filename}</filename>
\t<path>C:\\Users\\me\\JPEGImages\\{filename}</path>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>12</width>
\t\t<height>8</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>{objects}
</annotation>
"""


def write_voc_xml(folder):
    source = folder / "Annotations"
    (source / "sub").mkdir(parents=True)
    (source / "a.xml").write_text(voc_xml("a.jpg", ["dog", "cat", "dog"]))
    (source / "sub/b.xml").write_text(voc_xml("b.png", ["traffic light"]))
    (source / "c.xml").write_text(voc_xml("000.jpg", []))  # renamed since
    return source


def labelme_shape(label, points, kind="polygon", **more):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        **more,
    }


def labelme(image_path, shapes, size=SIZE):
    return json.dumps(
        {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": image_path,
            "imageData": None,
            "imageHeight": size[0],
            "imageWidth": size[1],
        },
        indent=2,
    )


def write_labelme(folder):
    source = folder / "labelme"
    source.mkdir()
    shapes = [labelme_shape("cat", CAT), labelme_shape("dog", DOG)]
    (source / "a.json").write_text(labelme("..\\a.jpg", shapes))
    light = [labelme_shape("traffic light", LIGHT)]
    (source / "b.json").write_text(labelme("..\\sub\\b.png", light))
    (source / "c.json").write_text(labelme("../c.jpg", []))
    return source


CVAT_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job>
      <id>7</id>
      <size>3</size>
      <mode>annotation</mode>
      <labels>
        <label><name>traffic light</name><color>#fa3253</color><type>any</type>
          <attributes></attributes></label>
        <label><name>dog</name><color>#3d3df5</color><type>any</type><attributes></attributes></label>
        <label><name>cat</name><color>#34d1b7</color><type>any</type><attributes></attributes></label>
      </labels>
    </job>
    <dumped>2024-05-06 09:12:24.713826+00:00</dumped>
  </meta>
"""


def cvat_points(points):
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


def cvat(a, b):
    """Return annotations.xml with what stands in the elements of two pictures."""
    return f"""{CVAT_HEAD}  <image id="0" name="a.jpg" width="12" height="8">
{a}
  </image>
  <image id="1" name="sub/b.png" width="12" height="8">
{b}
  </image>
  <image id="2" name="c.jpg" width="12" height="8">
  </image>
</annotations>
"""


def cvat_polygon(label, points, z_order=0):
    return (
        f'    <polygon label="{label}" source="manual" occluded="0" '
        f'points="{cvat_points(points)}" z_order="{z_order}">\n    </polygon>'
    )


def write_cvat(folder):
    path = folder / "annotations.xml"
    a = f"{cvat_polygon('dog', DOG, 1)}\n{cvat_polygon('cat', CAT)}"
    b = f"""{cvat_polygon("traffic light", LIGHT)}
    <tag label="traffic light" source="manual">
    </tag>"""
    path.write_text(cvat(a, b))
    return path


def label_studio_region(kind, label, **value):
    return {
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "image_rotation": 0,
        "value": {**value, kind: [label]},
        "id": f"Dx_{label}_{kind}",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def label_studio_polygon(label, points):
    points = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in points]
    return label_studio_region("polygonlabels", label, points=points, closed=True)


def label_studio_choice(*labels):
    return {
        "value": {"choices": list(labels)},
        "id": "choice",
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }


def label_studio_task(i, data, results, **more):
    """Return a task; `results` are those of each person's annotation."""
    annotations = [
        {
            "id": 10 * i + k,
            "completed_by": 1,
            "result": result,
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": "2024-05-06T09:12:24.713826Z",
            "lead_time": 12.5,
            "task": i,
            **more,
        }
        for k, result in enumerate(results)
    ]
    upload = data.rpartition("/")[2] if data.startswith("/data/upload") else None
    return {
        "id": i,
        "annotations": annotations,
        "file_upload": upload,
        "drafts": [],
        "predictions": [],
        "data": {"image": data},
        "meta": {},
        "inner_id": i,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
    }


def write_label_studio(folder):
    path = folder / "project-1-at-2024-05-06.json"
    a = [label_studio_polygon("cat", CAT), label_studio_polygon("dog", DOG)]
    b = [label_studio_choice("traffic light"), label_studio_polygon("traffic light", LIGHT)]
    tasks = [
        label_studio_task(1, "/data/upload/1/0a1b2c3d-a.jpg", [a]),
        label_studio_task(2, "/data/local-files/?d=pictures/sub/b.png", [b]),
        label_studio_task(3, "s3://bucket/c.jpg", [[]]),
    ]
    path.write_text(json.dumps(tasks))
    return path


def yolo_line(index, points):
    return " ".join([str(index), *(f"{x / SIZE[1]:.6f} {y / SIZE[0]:.6f}" for x, y in points)])


def write_yolo(folder):
    """Write obj.names, for which no YAML is needed, and a folder of labels."""
    source = folder / "labels"
    (source / "sub").mkdir(parents=True)
    (folder / "obj.names").write_text("cat\ndog\ntraffic light\n")
    (source / "a.txt").write_text(f"{yolo_line(1, DOG)}\n{yolo_line(0, CAT)}\n")
    (source / "sub/b.txt").write_text(f"{yolo_line(2, LIGHT)}\n")
    (source / "c.txt").write_text("")
    return source


def write_csv(folder):
    path = folder / "export.csv"
    text = "filename, traffic light, cat, dog\r\na.jpg,0,1,1\r\nsub/b.png,1,0,0\r\nc.jpg,0,0,0\r\n"
    path.write_bytes(text.encode("utf-8-sig"))
    return path


WRITERS = {
    "coco": write_coco,
    "voc_xml": write_voc_xml,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "label_studio": write_label_studio,
    "yolo": write_yolo,
    "csv": write_csv,
}
WITH_OUTLINES = ("coco", "labelme", "cvat", "label_studio", "yolo")


# === What is read of them ===

VALUES = {"background": 0, "cat": 1, "dog": 2, "traffic light": 3}


def read(kind, path, text=None, **options):
    """Return the annotations of a file, after writing it if its text, or JSON value, is given."""
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    return READERS[kind](path, **options)


def classes(annotations):
    """Return {picture's first name: its classes}."""
    return {record.names[0]: record.classes() for record in annotations.records}


def refused(message, kind, path, text=None, **options):
    """Check that a file ends in a line that names it."""
    with pytest.raises(UserError, match=message) as error:
        read(kind, path, text, **options)
    assert str(path) in str(error.value)


def pixels(record, largest_first=False):
    """Return the mask of a picture."""
    mask, _ = draw_mask(record.shapes, SIZE, VALUES, record.is_relative, largest_first)
    return mask
