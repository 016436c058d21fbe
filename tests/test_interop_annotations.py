"""Readers of annotations: what each form means, and which are refused."""

import annotation_files as files
import pytest
from annotation_files import classes, pixels, read, refused

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations.pictures import Pictures
from wsss_tf.interop.annotations.write import write_labels

# === COCO ===


def test_boxes_and_bare_classes_of_coco(tmp_path):
    content = files.coco(with_shapes=False)
    for key in ("segmentation", "bbox", "area"):
        content["annotations"][2].pop(key)
    annotations = read("coco", tmp_path / "a.json", content)
    a, b, c = annotations.records
    assert [x.classes() for x in (a, b, c)] == [{"cat", "dog"}, {"traffic light"}, set()]
    assert not any(shape.has_pixels for shape in a.shapes)
    assert b.class_names == {"traffic light"}
    assert annotations.class_names == ["cat", "dog", "traffic light"]  # by id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), "no list 'categories'"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotation 2: 'image_id' is missing"),
        (lambda c: c["annotations"][1].update(category_id="x"), "'category_id' is a str"),
        (lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3]]), "annotation 2: points"),
        (lambda c: c["annotations"][1].update(segmentation=[[1e9] * 6]), "far outside"),
        (lambda c: c["annotations"][1].update(segmentation="x"), "neither polygons nor run"),
        (lambda c: c["annotations"][1].update(segments_info=[]), "panoptic"),
        (lambda c: c["images"][1].update(id=139), "image 2: id 139 is there twice"),
        (lambda c: c["images"].insert(0, 5), "image 1: is no object with 'id', but int"),
        (lambda c: c["categories"].insert(0, []), "category 1: is no object"),
        (lambda c: c["annotations"].insert(0, None), "annotation 1: is no object"),
        (lambda c: c["categories"][0].update(name=" "), "category 1: a class without a name"),
        (lambda c: c["categories"][0].update(name="a\0"), "category 1: .* control character"),
        (lambda c: c["categories"][0].update(name="\ud800"), "category 1: .* control character"),
        (lambda c: c["categories"][0].update(name="a;b"), "category 1: the class 'a;b' holds ';'"),
    ],
)
def test_wrong_coco_files(change, message, tmp_path):
    content = files.coco()
    change(content)
    refused(message, "coco", tmp_path / "a.json", content)


def test_a_format_of_one_file_is_no_folder(tmp_path):
    refused("is a folder; name the JSON file", "coco", tmp_path)
    refused("no such file", "cvat", tmp_path / "annotations.xml")


@pytest.mark.parametrize("text", ["", "[1, 2", "\0", "[" * 100_000, '{"images": NaN}'])
def test_broken_json(text, tmp_path):
    refused("no JSON|no COCO instances", "coco", tmp_path / "a.json", text)


# === XML ===


def test_xml_with_entities_is_refused(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    refused("document type", "voc_xml", tmp_path / "a.xml", bomb)
    outside = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>'
    refused("document type", "cvat", tmp_path / "b.xml", outside)


def test_wrong_voc_files(tmp_path):
    refused("no XML: .*line 1", "voc_xml", tmp_path / "a.xml", "<annotation>")
    refused("not <annotation> of Pascal VOC", "voc_xml", tmp_path / "a.xml", "<html></html>")
    text = files.voc_xml("a.jpg", ["cat", ""])
    refused("a.xml, object 2: a class without a name", "voc_xml", tmp_path / "a.xml", text)
    (tmp_path / "empty").mkdir()
    refused(r"no file \*.xml in it", "voc_xml", tmp_path / "empty")


def test_parts_of_voc_objects_are_no_classes(tmp_path):
    annotations = read("voc_xml", tmp_path / "a.xml", files.voc_xml("a.jpg", ["dog"]))
    assert annotations.records[0].classes() == {"dog"}


def test_other_shapes_of_cvat_give_classes(tmp_path):
    a = """
    <box label="cat" source="manual" occluded="0" xtl="1.0" ytl="1.0" xbr="3.0" ybr="3.0"
      z_order="0">
      <attribute name="age">2</attribute>
    </box>
    <polyline label="dog" source="manual" points="1.0,1.0;2.0,2.0" z_order="0"></polyline>"""
    annotations = read("cvat", tmp_path / "a.xml", files.cvat(a, '<tag label="cat"></tag>'))
    assert classes(annotations) == {"a.jpg": {"cat", "dog"}, "sub/b.png": {"cat"}, "c.jpg": set()}
    assert annotations.class_names == ["traffic light", "dog", "cat"]
    assert not any(shape.has_pixels for shape in annotations.records[0].shapes)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ('<tag label="cow"></tag>', "image 1 .a.jpg., shape 1: the label 'cow' is not among"),
        ('<polygon label="cat" points="1,2;x,3"></polygon>', "shape 1: points must be pairs"),
        ('<polygon label="cat" points="1,2;nan,3;4,5"></polygon>', "not finite"),
        ('<ellipse label="cat" cx="1" cy="x" rx="1" ry="1"></ellipse>', "cy='x' is not a number"),
    ],
)
def test_wrong_cvat_shapes(element, message, tmp_path):
    refused(message, "cvat", tmp_path / "a.xml", files.cvat(element, ""))


def test_a_cvat_mask_must_lie_in_its_picture(tmp_path):
    a = '<mask label="cat" rle="0, 1" left="12" top="0" width="1" height="1"></mask>'
    annotations = read("cvat", tmp_path / "a.xml", files.cvat(a, ""))
    with pytest.raises(UserError, match="shape 1: its mask reaches outside"):
        pixels(annotations.records[0])


def test_cvat_for_video_is_refused(tmp_path):
    text = '<annotations><version>1.1</version><track id="0" label="cat"></track></annotations>'
    refused("CVAT for images 1.1", "cvat", tmp_path / "a.xml", text)


# === LabelMe ===


def test_rectangles_points_and_other_files_of_labelme(tmp_path):
    shapes = [
        files.labelme_shape("cat", [[1, 1], [5, 4]], "rectangle"),
        files.labelme_shape("dog", [], "polygon"),
        files.labelme_shape("traffic light", [[2, 2]], "point"),
    ]
    (tmp_path / "instances.json").write_text("{}")
    (tmp_path / "a.json").write_text(files.labelme("a.jpg", shapes))
    annotations = read("labelme", tmp_path)
    assert classes(annotations) == {"a.jpg": {"cat", "traffic light"}}
    assert not any(shape.has_pixels for shape in annotations.records[0].shapes)
    assert [*annotations.notes.lines()] == [
        "shapes with too few points, passed over: 1 (a.json, shape 2)",
        "files of another kind, passed over: 1 (instances.json)",
    ]


def test_wrong_labelme_files(tmp_path):
    refused("no LabelMe JSON", "labelme", tmp_path / "a.json", {})
    refused("no such file or folder", "labelme", tmp_path / "none")
    shapes = [files.labelme_shape("cat", [[1, "x"], [2, 3], [4, 5]])]
    text = files.labelme("a.jpg", shapes)
    refused("a.json, shape 1: points must be pairs", "labelme", tmp_path / "a.json", text)
    shapes = [files.labelme_shape("cat", [[0, 0], [1, 1]], "mask", mask="bm8=")]
    annotations = read("labelme", tmp_path / "a.json", files.labelme("a.jpg", shapes))
    with pytest.raises(UserError, match="shape 1: its mask cannot be read"):
        pixels(annotations.records[0])


# === Label Studio ===


def test_what_label_studio_has_besides_outlines(tmp_path):
    box = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0}
    brush = files.label_studio_region("brushlabels", "dog", format="rle", rle=[0, 0, 1])
    about_a_part = {**files.label_studio_choice("blurred"), "id": brush["id"]}
    box = files.label_studio_region("rectanglelabels", "cat", **box)
    cat = files.label_studio_polygon("cat", files.CAT)
    tasks = [
        files.label_studio_task(1, "https://example.com/a.jpg?x=1", [[box]]),
        files.label_studio_task(2, "/data/upload/1/0a1b2c3d-b.jpg", [[brush, about_a_part]]),
        files.label_studio_task(3, "c.jpg", [[files.label_studio_choice("cat", "traffic light")]]),
        files.label_studio_task(4, "d.jpg", []),
        files.label_studio_task(5, "e.jpg", [[]], was_cancelled=True),
        files.label_studio_task(6, "f.jpg", [[cat], [files.label_studio_choice("dog")]]),
    ]
    annotations = read("label_studio", tmp_path / "a.json", tasks)
    assert list(classes(annotations).values()) == [
        {"cat"},
        {"dog"},
        {"cat", "traffic light"},
        {"cat", "dog"},
    ]
    assert annotations.records[1].names == ("/data/upload/1/0a1b2c3d-b.jpg", "b.jpg",
                                            "0a1b2c3d-b.jpg")  # fmt: skip
    assert not any(s.has_pixels for record in annotations.records for s in record.shapes)
    assert [*annotations.notes.lines()] == [
        "brush strokes, which give a class but are not converted to masks: 1 "
        "(/data/upload/1/0a1b2c3d-b.jpg, result 1)",
        "choices about a part of a picture, passed over: 1 "
        "(/data/upload/1/0a1b2c3d-b.jpg, result 2)",
        "tasks without an annotation, or skipped: 2 (d.jpg, e.jpg)",
        "tasks that several people annotated: all their classes, no mask: 1 (f.jpg)",
    ]


def test_label_studio_s_shapes_with_labels_apart(tmp_path):
    polygon = files.label_studio_polygon("cat", files.CAT)
    del polygon["value"]["polygonlabels"]
    apart = {**polygon, "type": "labels", "value": {"labels": ["cat"]}}
    polygon["type"] = "polygon"
    unnamed = {**polygon, "id": "other"}
    taxonomy = {"type": "taxonomy", "value": {"taxonomy": [["animal", "cat"]]}, "id": "t"}
    choice = files.label_studio_choice("dog")
    del choice["id"]
    tasks = [
        files.label_studio_task(1, "a.jpg", [[polygon, apart]]),
        files.label_studio_task(2, "b.jpg", [[unnamed, choice]]),
        files.label_studio_task(3, "c.jpg", [[taxonomy]]),
    ]
    annotations = read("label_studio", tmp_path / "a.json", tasks)
    assert classes(annotations) == {"a.jpg": {"cat"}, "b.jpg": {"dog"}, "c.jpg": set()}
    assert [s.has_pixels for record in annotations.records for s in record.shapes] == [False] * 2
    assert [*annotations.notes.lines()] == [
        "results that name no class, passed over: 2 (b.jpg, result 1, c.jpg, result 1)"
    ]


def test_wrong_label_studio_files(tmp_path):
    path = tmp_path / "a.json"
    refused("not a list of tasks", "label_studio", path, {"a": 1})
    refused("as JSON, not JSON-MIN", "label_studio", path, [{"image": "a.jpg", "choice": "cat"}])
    refused(
        "task 1, result 2: is no object",
        "label_studio",
        path,
        [files.label_studio_task(1, "a.jpg", [[files.label_studio_choice("cat"), 5]])],
    )
    refused("task 1: no picture", "label_studio", path, [files.label_studio_task(1, "text", [[]])])


# === YOLO ===


def test_boxes_of_yolo_and_names_of_yaml(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "data.yaml").write_text(
        "path: ../datasets/mine\ntrain: images/train\nnc: 2\nnames:\n  0: cat\n  3: traffic light\n"
    )
    text = "0 0.5 0.5 0.2 0.2\n3 0.1 0.1 0.2 0.2 0.87\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0\n"
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(text)
    (tmp_path / "labels/README.roboflow.txt").write_text("This dataset was exported")
    annotations = read("yolo", tmp_path / "labels")
    [record] = annotations.records
    assert record.classes() == {"cat", "traffic light"}
    assert not any(shape.has_pixels for shape in record.shapes)
    assert annotations.class_names == ["cat", "traffic light"]
    path = tmp_path / "labels/train/a.txt"
    assert [*annotations.notes.lines()] == [
        f"annotations of unknown classes, passed over: 1 (class 7 in {path}, line 3)",
        f"shapes with too few points, passed over: 1 ({path}, line 4)",
    ]
    assert read("yolo", tmp_path).records[0].names[0] == "images/train/a"
    (tmp_path / "data.yaml").write_text("names: [cat, 'traffic light']\n")
    assert read("yolo", tmp_path).class_names == ["cat", "traffic light"]
    for wrong in ("names: 5", "names: {a: b}", "names: [yes]", "names: [", "x"):
        (tmp_path / "data.yaml").write_text(wrong)
        with pytest.raises(UserError, match=r"data.yaml: "):
            read("yolo", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 0.5 0.5 0.1 0.1", "not a class number"),
        ("0.5 0.5 0.5 0.1 0.1", "not a class number"),
        ("0 0.5 0.5 0.1", "3 numbers after the class"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "7 numbers after the class"),
        ("0 120 80 30 40", "120 is no coordinate"),
        ("0 nan 0.5 0.1 0.1", "not a class number"),
    ],
)
def test_wrong_yolo_lines(line, message, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    refused(f"a.txt, line 3: .*{message}", "yolo", tmp_path)


def test_lists_among_yolo_s_labels(tmp_path):
    (tmp_path / "obj.names").write_text("cat\n")
    for name in ("a.txt", "test.txt"):
        (tmp_path / name).write_text("0 0.5 0.5 0.1 0.1\n")
    for name in ("train.txt", "classes.txt"):
        (tmp_path / name).write_text("data/obj_train_data/a.jpg\n")
    assert list(classes(read("yolo", tmp_path))) == ["a", "test"]


def test_names_of_yolo_must_be_somewhere(tmp_path):
    path = tmp_path / "deep/down/labels/a.txt"
    path.parent.mkdir(parents=True)
    path.write_text("0 0.5 0.5 0.1 0.1\n")
    refused("--names=FILE", "yolo", path.parent)
    (tmp_path / "x.names").write_text("cat\n")
    names = tmp_path / "x.names"
    assert read("yolo", path.parent, names=names).records[0].classes() == {"cat"}


# === Folders ===


def test_wrong_folders(tmp_path):
    files.write_pictures(tmp_path, ["train/cat/1.jpg", "val/cat/2.jpg"])
    refused("are splits .train, val.", "folders", tmp_path)
    assert classes(read("folders", tmp_path / "train")) == {"cat/1": {"cat"}}
    files.write_pictures(tmp_path, ["train/beside.jpg"])
    refused("beside.jpg: lies in no class' folder", "folders", tmp_path / "train")


# === Tables ===


TABLES = {
    "cells": "a.jpg,cat,dog\nb.jpg,traffic light\nc.jpg\n",
    "header and cells": "image,labels\na.jpg,cat,dog\nb.jpg,traffic light\nc.jpg,\n",
    "semicolon": "Image;Labels\r\na.jpg;cat,dog\r\nb.jpg;traffic light\r\nc.jpg;\r\n",
    "tab": "file_name\ttags\na.jpg\tcat|dog\nb.jpg\ttraffic light\nc.jpg\t\n",
    "quoted": '"image","labels"\n"a.jpg","cat, dog"\n"b.jpg","traffic light"\n"c.jpg",""\n',
    "old Mac": "image,labels\ra.jpg,cat;dog\rb.jpg,traffic light\rc.jpg,\r",
    "Excel's": "sep=;\nimage;labels\na.jpg;cat,dog\n;\n\nb.jpg;traffic light\nc.jpg;\n;;\n",
    "0 and 1": "name,cat,traffic light,dog\na.jpg,1,0,1\nb.jpg,0,1,0\nc.jpg,0,0,0\n",
    "truth": "cat,image,dog,traffic light\nTRUE,a.jpg,True,\n,b.jpg,,true\n0.0,c.jpg,0,false\n",
    "a row an object": "filename,width,height,class,xmin\na.jpg,9,9,cat,1\na.jpg,9,9,dog,2\n"
    "b.jpg,9,9,traffic light,3\nc.jpg,9,9,,\n",
    "several columns": "id,image,label_1,label_2\n"
    "1,a.jpg,cat,dog\n2,b.jpg,traffic light,\n3,c.jpg,,\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(TABLES[name].encode())
    options = {"label_separator": "none"} if name == "a row an object" else {}
    found = {}
    for record in read("csv", path, **options).records:
        found.setdefault(record.names[0], set()).update(record.classes())
    assert found == {"a.jpg": {"cat", "dog"}, "b.jpg": {"traffic light"}, "c.jpg": set()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_of_tables(encoding, tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes("image,labels\nBär.jpg,Größe\n".encode(encoding))
    annotations = read("csv", path)
    assert classes(annotations) == {"Bär.jpg": {"Größe"}}
    assert len([*annotations.notes.lines()]) == (encoding == "cp1252")


def test_spaces_in_cells_are_asked_about_unless_plain(tmp_path):
    path = tmp_path / "in.csv"
    text = "image,labels\na.jpg,traffic light\nb.jpg,car\n"
    refused("is 'traffic light' one class, or one for each word", "csv", path, text)
    assert classes(read("csv", path, label_separator="none"))["a.jpg"] == {"traffic light"}
    assert classes(read("csv", path, label_separator="space"))["a.jpg"] == {"traffic", "light"}
    plain = "image,labels\na.jpg,cat dog\nb.jpg,cat\nc.jpg,dog\n"
    assert classes(read("csv", path, plain))["a.jpg"] == {"cat", "dog"}


def test_open_images_says_what_is_not_there(tmp_path):
    text = "ImageID,Source,LabelName,Confidence\n1a,verification,/m/01,1\n1a,verification,/m/02,0\n"
    found = [record.classes() for record in read("csv", tmp_path / "in.csv", text).records]
    assert found == [{"/m/01"}, set()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("image,labels\n", "only one line"),
        ("a.jpg,1,0\n", "line 1: columns of 0 and 1 need a first line"),
        ("cat,a.jpg\n", "line 1: the picture must be in the first column"),
        ("image,cat,dog\na.jpg,1,0\nb.jpg,2,0\n", "line 3: '2' in the column 'cat' is neither"),
        ("image,cat,dog\na.jpg,1,0,1\n", "line 2: 4 cells, but the first line names 3"),
        ("labels,image\ncat,a.jpg,dog\n", "line 2: 3 cells"),
        ("image,labels\na.jpg,cat\n,dog\n", "line 3: names no picture"),
    ],
)
def test_wrong_tables(text, message, tmp_path):
    refused(message, "csv", tmp_path / "in.csv", text)


# === Pictures ===


def test_which_picture_a_name_means(tmp_path):
    files.write_pictures(tmp_path, ["a/x.jpg", "b/x.jpg", "b/Größe.png", "t.v2.jpg", "Case.jpg"])
    pictures = Pictures(tmp_path)
    assert pictures.find(["a/x.jpg"])[0] == "a/x"
    assert pictures.find(["C:\\data\\b\\X.JPG"])[0] == "b/x"
    assert pictures.find(["t/v/a/x.jpg"])[0] == "a/x"
    assert pictures.find(["x.jpg"]) == (None, ["a/x", "b/x"])
    assert pictures.find(["c/x.jpg"]) == (None, [])
    assert pictures.find(["c/x.jpg", "t.v2"])[0] == "t.v2"
    assert pictures.find(["./Gro\u0308ße.tif"])[0] == "b/Größe"
    assert pictures.find(["case.jpeg"])[0] == "Case"
    assert pictures.find(["", "/", ".."]) == (None, [])


def test_too_many_classes(tmp_path):
    files.write_pictures(tmp_path, ["a.jpg"])
    text = f"image,{','.join(map(str, range(1000, 1255)))}\na.jpg,{','.join(['1'] * 255)}\n"
    annotations = read("csv", tmp_path / "in.csv", text)
    with pytest.raises(UserError, match="255 classes; masks have room for 254"):
        write_labels(annotations, tmp_path / "image_labels.csv")


def test_a_folder_that_links_to_itself_is_searched_once(tmp_path):
    path = tmp_path / "labels/a.json"
    shapes = [files.labelme_shape("cat", files.CAT)]
    read("labelme", path, files.labelme("a.jpg", shapes))
    (tmp_path / "labels/again").symlink_to(tmp_path / "labels", target_is_directory=True)
    assert len(read("labelme", tmp_path / "labels").records) == 1
