import pathlib
import re
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wsss_tf.data import folder, lists
from wsss_tf.data.source import loader
from wsss_tf.errors import UserError
from wsss_tf.files import images

SHARED = pathlib.Path(__file__).parents[2] / "shared"


def write_image(path, value=100, size=(6, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def plain(tmp_path):
    """Only pictures and a table."""
    for name in ("b.JPG", "a.jpeg", "sub/c.png"):
        write_image(tmp_path / name)
    (tmp_path / "image_labels.csv").write_text(
        "image,labels\na,dog\nb.JPG,cat dog\nsub/c.png,cat\n"
    )
    return tmp_path


@pytest.fixture
def voc_layout(tmp_path):
    """Two lists, masks for some, five class names."""
    root = tmp_path / "set"
    for i in range(4):
        write_image(root / "JPEGImages" / f"{i}.jpg", 20 * i)
    for i, values in enumerate([(0, 1), (2, 255, 4), (0, 9)]):
        mask = np.resize(values, (6, 9))
        images.save_mask(root / "SegmentationClass" / f"{i}.png", mask)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2\n0\n3\n\n")
    (lists / "val.txt").write_text("1.jpg\n")
    (root / "class_names.txt").write_text("background\ncat\ndog\ntraffic light\ncow\n")
    return root


def test_large_pictures_are_read_smaller(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {"large": (64, 30), "wide": (7, 64), "small": (12, 20)}.items():
        picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = 1
        images.save_mask(tmp_path / f"SegmentationClass/{name}.png", mask)
    (tmp_path / "image_labels.csv").write_text("image,labels\nlarge,cat\nwide,cat\nsmall,cat\n")
    source = folder.folder_source(root=tmp_path, max_side=32)
    load = loader(source)
    large, small, wide = map(load, range(3))
    sizes = [example["image"].shape[:2] for example in (large, small, wide)]
    assert sizes == [(32, 15), (12, 20), (4, 32)]
    assert [example["mask"].shape for example in (large, small, wide)] == sizes
    blocks = np.asarray(Image.open(tmp_path / "large.png")).reshape(32, 2, 15, 2, 3)
    np.testing.assert_array_equal(large["image"], np.round(blocks.mean((1, 3))))
    assert np.flatnonzero(np.diff(large["mask"][:, 0].astype(int))).tolist() == [15]
    np.testing.assert_array_equal(small["image"], np.asarray(Image.open(tmp_path / "small.png")))
    assert source.without_masks().select([0]).max_side == 32
    with pytest.raises(UserError, match="max_side = 0"):
        folder.folder_source(root=tmp_path, max_side=0)


def names_of(source):
    return [
        {name for name, present in zip(source.foreground_names, row) if present}
        for row in source.labels
    ]


# === What there is to train on ===


@pytest.mark.parametrize(
    ("lists", "training", "validation"),
    [
        ([], "all", None),
        (["train", "val", "test", "train_small"], "train", "val"),
        (["trainaug", "trainval", "val"], "trainaug", "val"),
        (["mine"], "mine", None),
        (["mine", "val"], "mine", "val"),
    ],
)
def test_splits_that_are_there(lists, training, validation, tmp_path):
    for name in lists:
        path = tmp_path / f"ImageSets/Segmentation/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
    assert folder.training_split(tmp_path) == training
    assert folder.validation_split(tmp_path) == validation


@pytest.mark.parametrize("lists", [["val"], ["a", "b", "val"]])
def test_no_list_is_clearly_the_one_to_train_on(lists, tmp_path):
    for name in lists:
        path = tmp_path / f"ImageSets/Segmentation/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
    with pytest.raises(UserError, match=f"which of the lists {', '.join(lists)}"):
        folder.training_split(tmp_path)


def test_a_folder_without_labels_is_none_to_train_on(tmp_path):
    with pytest.raises(UserError, match=r"--data.*nope.*no such folder"):
        folder.training_folder(tmp_path / "nope")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"no image_labels\.csv in it"):
        folder.training_folder(tmp_path)


# === Layouts ===


def test_pictures_and_a_table(plain):
    source = folder.folder_source(root=plain)
    assert source.class_names == ("background", "cat", "dog")
    assert source.ids == ("a", "b", "sub/c")
    assert names_of(source) == [{"dog"}, {"cat", "dog"}, {"cat"}]
    assert (source.name, source.split) == (plain.name, "all")
    assert not source.has_masks
    example = source.load(tf.constant(2))
    assert example["id"] == b"sub/c"
    assert example["image"].shape == (6, 9, 3)
    assert example["labels"].numpy().tolist() == [1, 0]


def test_voc_layout_without_a_table(voc_layout):
    source = folder.folder_source("train", str(voc_layout))
    assert source.ids == ("2", "0", "3")
    assert names_of(source) == [set(), {"cat"}, set()]  # 9 is no class
    assert source.has_masks
    np.testing.assert_array_equal(source.load(1)["mask"], np.resize([0, 1], (6, 9)))
    assert (source.load(2)["mask"].numpy() == 255).all()
    assert int(source.load(0)["image"].numpy().mean()) == 40
    assert names_of(folder.folder_source("val", voc_layout)) == [{"dog", "cow"}]


def test_loader_gives_arrays_and_names_the_file_that_it_cannot_read(voc_layout):
    source = folder.folder_source("train", voc_layout)
    load = loader(source)
    for position in np.arange(3):
        example = load(position)
        expected = source.load(tf.constant(position))
        assert example.keys() == expected.keys() == {"id", "image", "labels", "mask"}
        for key, value in expected.items():
            np.testing.assert_array_equal(example[key], value.numpy())
    (voc_layout / "JPEGImages/0.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.jpg: image or mask cannot be read: ") as caught:
        load(1)
    assert "node" not in str(caught.value)
    assert load(0)["image"].shape == (6, 9, 3)


def test_table_comes_before_masks(voc_layout):
    table = "\ufeffimage,labels\n0.jpg,cow\n3,traffic light\n3,cat\n"
    (voc_layout / "image_labels.csv").write_text(table, encoding="utf-8")
    source = folder.folder_source("train", voc_layout)
    assert names_of(source) == [set(), {"cow"}, {"traffic light", "cat"}]
    assert names_of(folder.folder_source("val", voc_layout)) == [{"dog", "cow"}]  # has no row


def test_semicolons_separate_names_with_spaces(voc_layout):
    table = 'image,labels\n0,"traffic light; cat"\n3,traffic light\n2,\n'
    (voc_layout / "image_labels.csv").write_text(table)
    source = folder.folder_source("train", voc_layout)
    assert names_of(source) == [set(), {"traffic light", "cat"}, {"traffic light"}]


def test_names_without_background_count_from_mask_value_zero(voc_layout):
    (voc_layout / "class_names.txt").write_text("\n".join("abcde"))
    source = folder.folder_source("val", voc_layout)
    assert source.num_classes == 5
    assert not source.has_background
    assert names_of(source) == [{"c", "e"}]


def test_many_classes(tmp_path):
    write_image(tmp_path / "x.jpg")
    (tmp_path / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(150)))
    (tmp_path / "image_labels.csv").write_text("image,labels\nx,c149 c0\n")
    assert np.flatnonzero(folder.folder_source(root=tmp_path).labels).tolist() == [0, 149]


def test_hidden_files_are_no_pictures(plain):
    (plain / "._a.jpeg").write_bytes(b"resource fork")
    (plain / ".trash").mkdir()
    write_image(plain / ".trash" / "x.png")
    assert len(folder.folder_source(root=plain)) == 3


def test_pictures_source(plain):
    source = folder.pictures_source(plain, ["background", "cat", "dog", "cow"])
    assert source.ids == ("a", "b", "sub/c")
    assert source.labels.shape == (3, 3)
    assert not source.labels.any()
    assert not source.has_masks


def test_labels_from_masks_tells_which_could_be_read(voc_layout):
    broken = voc_layout / "SegmentationClass" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    paths = [broken, voc_layout / "SegmentationClass" / "1.png"]
    labels, is_readable = lists.labels_from_masks(paths, ["background", "a", "b", "c", "d"])
    assert is_readable.tolist() == [False, True]
    assert labels.tolist() == [[0, 0, 0, 0], [0, 1, 0, 1]]


# === What a user can get wrong ===


def test_unknown_split_lists_those_there_are(plain, voc_layout):
    with pytest.raises(UserError, match="no split 'val'; there is all"):
        folder.folder_source("val", plain)
    with pytest.raises(UserError, match="no split 'all'; there is train, val"):
        folder.folder_source("all", voc_layout)


@pytest.mark.parametrize("root", [None, "", "/no/such/folder"])
def test_missing_folder(root):
    with pytest.raises(UserError, match=r"folder_source\.root"):
        folder.folder_source(root=root)
    with pytest.raises(UserError, match="input folder"):
        folder.pictures_source(root, ["background", "a"])


def test_folder_without_pictures(tmp_path):
    (tmp_path / "image.gif").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"no image \(\.jpg, \.jpeg, \.png\)"):
        folder.folder_source(root=tmp_path)


def test_listed_image_that_is_not_there(voc_layout):
    (voc_layout / "ImageSets/Segmentation/train.txt").write_text("0\n17\n18\n")
    with pytest.raises(
        UserError, match=r"train\.txt: no image '17' \(and 1 more\) in .*JPEGImages"
    ):
        folder.folder_source("train", voc_layout)


@pytest.mark.parametrize(("text", "message"), [("\n\n", "empty"), ("0\n1\n0.jpg\n", "'0' is .* 2")])
def test_bad_list(voc_layout, text, message):
    (voc_layout / "ImageSets/Segmentation/train.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        folder.folder_source("train", voc_layout)


def test_label_that_is_no_class(voc_layout):
    (voc_layout / "image_labels.csv").write_text("image,labels\n0,cat horse\n")
    with pytest.raises(UserError, match=r"image '0' has label 'horse'.*background, cat, dog"):
        folder.folder_source("train", voc_layout)


def test_row_without_picture(plain):
    with open(plain / "image_labels.csv", "a") as file:
        file.write("d.jpg,cat\n")
    with pytest.raises(UserError, match=r"image_labels\.csv: no image 'd\.jpg' \(row 5\)"):
        folder.folder_source(root=plain)


def test_image_without_label(voc_layout):
    with pytest.raises(UserError, match=r"image '3' of split 'train' has no label, but"):
        folder.folder_source("train", voc_layout, require_labels=True)
    assert folder.folder_source("val", voc_layout, require_labels=True).labels.any()


def test_pictures_that_show_no_class(masked):
    """Said by the label background, or by a mask of nothing else; an empty cell says nothing."""
    rows = ("0000,disc", "0001,background", "0002,")
    (masked / "image_labels.csv").write_text("\n".join(["image,labels", *rows]))
    images.save_mask(masked / "SegmentationClass/0003.png", np.zeros((6, 9), np.uint8))
    source = folder.folder_source(root=masked, compare_masks=False)
    assert source.labels.any(axis=1).tolist() == [True, False, False, False]
    assert source.negative == (False, True, False, True)
    assert source.select([1, 2]).negative == (True, False)
    with pytest.raises(UserError, match=r"image '0002' .* the label background if it shows"):
        folder.folder_source(root=masked, require_labels=True)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("image_labels.csv", b"a,dog\nb,cat\n", "first line must be image,labels"),
        ("image_labels.csv", b"image|labels\na|dog\n", "first line must be image,labels"),
        ("image_labels.csv", b"", "first line must be image,labels"),
        ("image_labels.csv", b"image,labels\n,\n", "nor image_labels.csv with a row"),
        ("class_names.txt", b"cat\nk\xe4se\n", "class_names.txt: not a UTF-8 text file"),
        (
            "class_names.txt",
            "cat\ntraffic\u2028light\n".encode(),
            r"'traffic\\u2028light' .* ends a",
        ),
        ("class_names.txt", b"cat\ntraffic\x0clight\n", "class_names.txt: .* ends a line"),
        ("image_labels.csv", "image,labels\na,x\u2029y\n".encode(), r"csv: row 2: .*'x\\u2029y'"),
        (
            "image_labels.csv",
            "image,labels\na,dog\nb,d\x85g\n".encode(),
            "csv: row 3: .* ends a line",
        ),
        (
            "image_labels.csv",
            b"image,labels\na,dog\nb,Dog\n",
            "'Dog' and 'dog' differ only in capit",
        ),
        ("image_labels.csv", b"image,labels\na,k\xe4se\n", "UTF-8"),
        ("class_names.txt", b"cat\nbackground\ndog\n", "background must be the first"),
        ("class_names.txt", b"cat\ncat\ndog\n", "names must differ"),
        ("class_names.txt", b"background\n", "1 names"),
        ("class_names.txt", b"\n", "0 names"),
        ("class_names.txt", "\n".join(map(str, range(256))).encode(), "256 names"),
    ],
)
def test_bad_text_files(plain, file, text, message):
    (plain / file).write_bytes(text)
    with pytest.raises(UserError, match=message):
        folder.folder_source(root=plain)


def test_neither_names_nor_table(tmp_path):
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"class_names\.txt.*image_labels\.csv"):
        folder.folder_source(root=tmp_path)


def test_two_files_of_one_name(plain):
    write_image(plain / "a.png")
    with pytest.raises(UserError, match=r"a\.(png|jpeg) .*same name"):
        folder.folder_source(root=plain)


# === Nothing is dropped in silence ===


@pytest.fixture
def masked(tmp_path):
    """Four pictures with tags and masks that agree."""
    for i in range(4):
        write_image(tmp_path / f"JPEGImages/{i:04d}.jpg")
        images.save_mask(tmp_path / f"SegmentationClass/{i:04d}.png", np.full((6, 9), 1 + i % 2))
    (tmp_path / "class_names.txt").write_text("background\nsquare\ndisc\n")
    rows = [f"{i:04d}.jpg,{['square', 'disc'][i % 2]}" for i in range(4)]
    (tmp_path / "image_labels.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    return tmp_path


def test_a_complete_folder_has_no_warnings(masked):
    source = folder.folder_source(root=masked)
    assert source.warnings == ()
    assert source.tagged == (True,) * 4
    assert source.select([0, 2]).tagged == (True, True)
    assert folder.folder_source(root=masked, compare_masks=False).tagged is None


@pytest.mark.parametrize("pattern", ["{}.jpg.png", "{}_mask.png", "mask_{}.png", "0{}.png"])
def test_masks_named_as_no_picture(pattern, masked):
    for path in sorted((masked / "SegmentationClass").iterdir()):
        path.rename(path.with_name(pattern.format(path.stem)))
    source = folder.folder_source(root=masked)
    assert not source.has_masks
    assert source.warnings == (
        f"{masked}/SegmentationClass: 4 of 4 masks are named as no picture, such as "
        f"{pattern.format('0000')!r}; the nearest picture is '0000', whose mask would be 0000.png.",
    )


def test_masks_in_a_folder_of_another_name(masked):
    (masked / "SegmentationClass").rename(masked / "masks")
    source = folder.folder_source(root=masked)
    assert not source.has_masks
    [line] = source.warnings
    assert line.startswith(f"{masked}/masks: 4 PNG files are named as pictures; ")
    assert "SegmentationClass" in line


def test_masks_of_some_pictures_and_of_other_formats(masked):
    folder_of_masks = masked / "SegmentationClass"
    (folder_of_masks / "0003.png").rename(folder_of_masks / "zebra.png")
    (folder_of_masks / "0001.png").rename(folder_of_masks / "0001.tif")
    no_picture, few = (
        "1 of 3 masks are named as no picture",
        "2 of 4 pictures of 'all' have no mask",
    )
    formats, *rest = folder.folder_source(root=masked).warnings
    assert formats.endswith("pictures passed over (.tif 1): a mask must be a PNG.")
    assert [line.split(": ")[1].split(",")[0] for line in rest] == [no_picture, f"{few}."]


def test_names_composed_in_another_way_are_the_same(tmp_path):
    apart, composed = [unicodedata.normalize(form, "Größe") for form in ("NFD", "NFC")]
    assert apart != composed
    write_image(tmp_path / f"JPEGImages/{apart}.png")
    images.save_mask(tmp_path / f"SegmentationClass/{composed}.png", np.ones((6, 9), int))
    (tmp_path / "image_labels.csv").write_text(f"image,labels\n{composed}.png,{apart}\n")
    (tmp_path / "class_names.txt").write_text(f"background\n{composed}\n")
    path = tmp_path / "ImageSets/Segmentation/train.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{composed}\n")
    source = folder.folder_source("train", root=tmp_path)
    assert (source.ids, source.warnings) == ((apart,), ())
    assert source.has_masks
    assert names_of(source) == [{composed}]
    path.write_text(f"{composed}\n{apart}\n")
    with pytest.raises(UserError, match="in the list twice, in two spellings"):
        folder.folder_source("train", root=tmp_path)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("00001.jpg,disc", r"no image '00001\.jpg' \(row 6\) in .*; the nearest is '0001'\."),
        ("0001.webp,disc", r"a \.webp file is not read: convert it to PNG or JPEG\."),
        ("another thing,disc", r"no image 'another thing' \(row 6\) in .*JPEGImages\."),
    ],
)
def test_rows_that_name_no_picture(row, hint, masked):
    with open(masked / "image_labels.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=hint):
        folder.folder_source(root=masked)
    path = masked / "ImageSets/Segmentation/train.txt"
    path.parent.mkdir(parents=True)
    path.write_text("0001\n")
    [line] = folder.folder_source("train", root=masked).warnings
    assert re.search(hint, line)


@pytest.mark.parametrize(
    "head", ["JPEGImages/", "JPEGImages\\", "./JPEGImages/", "{root}/JPEGImages/"]
)
def test_rows_with_the_folder_before_the_name(head, masked):
    rows = [f"{head.format(root=masked)}{i:04d}.jpg,disc" for i in range(4)]
    (masked / "image_labels.csv").write_text("\n".join(["image,labels", *rows]))
    assert names_of(folder.folder_source(root=masked)) == [{"disc"}] * 4


# === Real files ===


def test_camvid_tiles():
    root = SHARED / "data" / "camvid_tiles"
    if not root.is_dir():
        pytest.skip("skipped: no shared data")
    source = folder.folder_source("train", root, require_labels=True)
    assert source.class_names == ("background", "sky", "road", "tree", "car")
    assert len(source) == 2004
    assert source.labels.any(1).all()
    example = source.load(tf.constant(5))
    assert example["image"].shape == (120, 120, 3)
    assert example["mask"].shape == (120, 120)
