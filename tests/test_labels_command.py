"""Labels from other tools' annotations as a user makes them, read back by the folder's source."""

import json
import os

import annotation_files as files
import as_user
import numpy as np
import pytest
from PIL import Image

from wsss_tf.data.folder import folder_source
from wsss_tf.errors import UserError
from wsss_tf.interop.annotations.read import READERS
from wsss_tf.interop.annotations.write import write_labels


def labels(*arguments):
    """Run the command; it needs no TensorFlow, so a process of its own is quick."""
    return as_user.run("labels", *arguments, fresh=True)


def ok(kind, source, root, **options):
    """Do what the command does, which `test_the_command` runs; return what it prints."""
    read = {key: options.pop(key) for key in ("label_separator",) if key in options}
    annotations = READERS[kind](source, **read)
    return "\n".join(write_labels(annotations, root / "image_labels.csv", **options).lines())


def output(root):
    return f"--output={root / 'image_labels.csv'}"


def classes_of(root):
    """Return {id: classes} of a folder, as it is trained on."""
    source = folder_source(root=root)
    foreground = np.array(source.class_names[1:])
    return {i: set(foreground[row > 0]) for i, row in zip(source.ids, source.labels)}


def mask(root, name):
    with Image.open(root / "SegmentationClass" / name) as picture:
        assert picture.mode == "P"
        return np.array(picture)


@pytest.fixture
def root(tmp_path):
    files.write_pictures(tmp_path / "set")
    return tmp_path / "set"


def test_help_explains_every_format():
    explained = labels("--help").stdout
    assert all(f"\n{kind} " in explained for kind in READERS)


def test_the_command(root, tmp_path):
    source = files.write_coco(tmp_path)
    result = labels("--from=coco", f"--source={source}", output(root), "--masks")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"{root / 'image_labels.csv'}: 3 pictures",
        f"{root / 'class_names.txt'}: background and 3 classes",
        "pictures that show each class: cat 1, dog 1, traffic light 1",
        f"{root / 'SegmentationClass'}: 3 masks",
        "pictures without any class, written as background: 1 (c.jpg)",
        "pictures that the annotations do not mention, left out: 1 (d.jpg)",
    ]


@pytest.mark.parametrize("kind", files.WRITERS)
def test_labels_of_a_tool(kind, root, tmp_path):
    printed = ok(kind, files.WRITERS[kind](tmp_path), root)
    assert classes_of(root) == {**files.CLASSES, "d": set()}
    assert "3 pictures" in printed
    assert "pictures that the annotations do not mention, left out: 1 (d.jpg)" in printed
    assert "pictures without any class, written as background: 1 (c.jpg)" in printed
    names = (root / "class_names.txt").read_text().splitlines()
    assert names[0] == "background"
    assert set(names[1:]) == {"cat", "dog", "traffic light"}


@pytest.mark.parametrize("kind", files.WITH_OUTLINES)
def test_masks_of_a_tool(kind, root, tmp_path):
    printed = ok(kind, files.WRITERS[kind](tmp_path), root, masks=True)
    names = (root / "class_names.txt").read_text().splitlines()
    # The drawings have the classes in the order of their names.
    values = np.array([names.index(n) for n in ("background", "cat", "dog", "traffic light")])
    np.testing.assert_array_equal(mask(root, "a.png"), values[files.drawn(files.MASK_A)])
    np.testing.assert_array_equal(mask(root, "sub/b.png"), values[files.drawn(files.MASK_B)])
    assert not mask(root, "c.png").any()
    assert not (root / "SegmentationClass/d.png").exists()
    assert "3 masks" in printed
    assert classes_of(root) == {**files.CLASSES, "d": set()}


def test_the_table_is_in_the_folder_s_own_form(root, tmp_path):
    ok("coco", files.write_coco(tmp_path), root)
    assert (root / "image_labels.csv").read_text() == (
        "image,labels\na.jpg,cat;dog\nc.jpg,background\nsub/b.png,traffic light\n"
    )
    assert (root / "class_names.txt").read_text() == "background\ncat\ndog\ntraffic light\n"


def test_a_name_with_a_space_alone_in_all_cells(root, tmp_path):
    """Where no cell has two labels, a semicolon says that a space separates none."""
    table = tmp_path / "in.csv"
    table.write_text("a.jpg;traffic light\nc.jpg;car\n")
    ok("csv", table, root, label_separator="none")
    assert (root / "image_labels.csv").read_text() == (
        "image,labels\na.jpg,traffic light;\nc.jpg,car\n"
    )
    expected = {"a": {"traffic light"}, "c": {"car"}, "d": set(), "sub/b": set()}
    assert classes_of(root) == expected
    (root / "class_names.txt").unlink()
    assert classes_of(root) == expected


def test_odd_names(tmp_path):
    names = ['p, "q".jpg', "#1;2.jpg", "Größe.v2.png", "日本/x y.jpg"]
    classes = ["a,b", '"q"', "l'été  d'or", "日本"]
    files.write_pictures(tmp_path, names)
    shapes = [files.labelme_shape(name, files.CAT) for name in classes]
    (tmp_path / "json").mkdir()
    for i, name in enumerate(names):
        text = files.labelme(f"../{name}", shapes[i : i + 2])
        (tmp_path / f"json/{i}.json").write_text(text)
    ok("labelme", tmp_path / "json", tmp_path)
    assert classes_of(tmp_path) == {
        'p, "q"': {"a,b", '"q"'},
        "#1;2": {'"q"', "l'été d'or"},
        "Größe.v2": {"l'été d'or", "日本"},
        "日本/x y": {"日本"},
    }


def test_a_folder_for_each_class(tmp_path):
    names = (
        "cat/1.jpg",
        "traffic light/1.jpg",
        "traffic light/deep, er/2.png",
        "_background_/x.jpg",
    )
    files.write_pictures(tmp_path, names)
    ok("folders", tmp_path, tmp_path)
    assert classes_of(tmp_path) == {
        "cat/1": {"cat"},
        "traffic light/1": {"traffic light"},
        "traffic light/deep, er/2": {"traffic light"},
        "_background_/x": set(),
    }


def test_pictures_that_lie_elsewhere(root, tmp_path):
    other = tmp_path / "other"
    (root / "JPEGImages").mkdir()
    for name in ("a.jpg", "c.jpg", "d.jpg", "sub"):
        (root / name).rename(root / "JPEGImages" / name)
    ok("coco", files.write_coco(tmp_path), other, pictures=root, masks=True)
    assert (other / "image_labels.csv").read_text().splitlines()[1] == "a.jpg,cat;dog"
    np.testing.assert_array_equal(mask(other, "a.png"), files.drawn(files.MASK_A))


def test_what_is_passed_over_is_counted_and_named(root, tmp_path):
    content = files.coco()
    content["images"].append({"id": 5, "file_name": "gone.jpg", "height": 8, "width": 12})
    content["categories"].append({"id": 90, "name": "zebra"})
    wrong = [
        {"image_id": 5, "category_id": 1, "bbox": [1, 1, 2, 2]},
        {"image_id": 139, "category_id": 77, "bbox": [1, 1, 2, 2]},
        {"image_id": 999, "category_id": 1, "bbox": [1, 1, 2, 2]},
        {"image_id": 141, "category_id": 1, "bbox": [], "segmentation": [[1, 1, 2, 2]]},
    ]
    content["annotations"] += wrong
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(content))
    printed = ok("coco", source, root)
    for line in (
        "annotated pictures that are not in the folder: 1 (gone.jpg)",
        "classes that no picture shows: 1 (zebra)",
        "annotations of unknown classes, passed over: 1 (annotation 5: category_id 77)",
        "pictures that the file does not list, passed over: 1 (annotation 6: image_id 999)",
        "shapes with too few points, passed over: 1 (annotation 7 of c.jpg)",
        "pictures that show each class: cat 1, dog 1, traffic light 1",
    ):
        assert line in printed
    assert classes_of(root) == {**files.CLASSES, "d": set()}


def test_lists_of_names_are_bounded(tmp_path):
    files.write_pictures(tmp_path, [f"{i:02d}.jpg" for i in range(9)])
    (tmp_path / "in.csv").write_text("00.jpg,cat\n")
    printed = ok("csv", tmp_path / "in.csv", tmp_path)
    assert "left out: 8 (01.jpg, 02.jpg, 03.jpg, 04.jpg, 05.jpg and 3 more)" in printed


def test_a_picture_with_a_box_has_no_mask(root, tmp_path):
    content = files.coco()
    content["annotations"][0]["segmentation"] = []
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(content))
    printed = ok("coco", source, root, masks=True)
    assert "a part of what they show has no outline: 1 (a.jpg)" in printed
    assert not (root / "SegmentationClass/a.png").exists()
    assert (root / "SegmentationClass/sub/b.png").exists()
    assert classes_of(root)["a"] == {"cat", "dog"}


def test_a_picture_annotated_at_another_size_has_no_mask(root, tmp_path):
    files.write_pictures(root, ["a.jpg"], size=(12, 8))
    printed = ok("cvat", files.write_cvat(tmp_path), root, masks=True)
    assert "annotated at another size: 1 (a.jpg)" in printed
    assert not (root / "SegmentationClass/a.png").exists()


def test_a_mask_is_upright_as_the_picture_is_shown(root, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 12)).save(root / "a.jpg", exif=exif)  # shown as 12 wide, 8 high
    ok("coco", files.write_coco(tmp_path), root, masks=True)
    np.testing.assert_array_equal(mask(root, "a.png"), files.drawn(files.MASK_A))


# === What ends it ===


def refused(root, kind, source, *words, **options):
    with pytest.raises(UserError) as error:
        ok(kind, source, root, **options)
    assert all(word in str(error.value) for word in words), error.value
    assert not (root / "image_labels.csv").exists()


def test_existing_files_are_kept(root, tmp_path):
    source = files.write_coco(tmp_path)
    (root / "class_names.txt").write_text("background\ndog\n")
    refused(root, "coco", source, "class_names.txt is there already", "--overwrite")
    (root / "class_names.txt").unlink()
    kept = root / "SegmentationClass/sub/b.png"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    refused(root, "coco", source, "b.png is there already", masks=True)
    assert kept.read_bytes() == b"mine"
    printed = ok("coco", source, root)
    assert "there before; their values must follow class_names.txt: 1 (sub/b.png)" in printed
    assert kept.read_bytes() == b"mine"
    with pytest.raises(UserError, match=r"labels\.csv is there already; say --overwrite"):
        ok("coco", source, root)
    ok("coco", source, root, masks=True, overwrite=True)
    np.testing.assert_array_equal(mask(root, "sub/b.png"), files.drawn(files.MASK_B))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from=coco", "--output=x.csv"], ["--source is missing"]),
        (["--from=pdf"], ["pdf", "coco"]),
        (["--from=coco", "--source=no.json", "--output=x.csv"], ["no.json: no such file"]),
        (["--from=cvat", "--source=x", "--output=x.csv", "--names=y"], ["is for --from=yolo"]),
        (["--from=voc_xml", "--source=x", "--output=x.csv", "--masks"], ["boxes are no masks"]),
        (["--from=coco", "--source=x", f"--output={os.sep}"], ["is a folder; name the file"]),
    ],
)
def test_flags(arguments, words):
    as_user.user_error(labels(*arguments), *words)


def test_pictures_that_are_not_there(root, tmp_path):
    source = files.write_coco(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    files.write_pictures(elsewhere, ["x.jpg"])
    refused(root, "coco", source, "none of the 3 pictures", "'a.jpg'", pictures=elsewhere)
    refused(root, "coco", source, "nowhere: no such folder", pictures="nowhere")


def test_two_annotations_of_one_picture(root, tmp_path):
    (tmp_path / "in.csv").write_text("train/a.jpg,cat\nval/a.jpg,dog\n")
    refused(root, "csv", tmp_path / "in.csv", "in.csv, line 2", "train/a", "val/a", "both fit")
