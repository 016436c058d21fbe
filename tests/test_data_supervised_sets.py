"""ADE20K, Cityscapes and PASCAL-Context, on tiny folders of the true layout."""

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from PIL import Image

from wsss_tf.data import ade20k, checks, cityscapes, pascal_context
from wsss_tf.errors import UserError
from wsss_tf.files import images

SIZE = (6, 9)


def write_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)


def write_grey(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(path)


def halves(top, bottom, corner=0):
    mask = np.full(SIZE, top)
    mask[SIZE[0] // 2 :] = bottom
    mask[0, 0] = corner
    return mask


def mask_of(source, position):
    return source.load(tf.constant(position))["mask"].numpy()


def names_of(source):
    return [
        {name for name, present in zip(source.foreground_names, row) if present}
        for row in source.labels
    ]


# === ADE20K ===

ADE = {"training": {"ADE_train_00000001": (1, 150), "ADE_train_00000002": (0, 13)}}
ADE["validation"] = {"ADE_val_00000001": (4, 21)}


@pytest.fixture
def ade(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for folder, scenes in ADE.items():
        for i, (image_id, values) in enumerate(scenes.items()):
            write_image(root / "images" / folder / f"{image_id}.jpg", 40 * i)
            write_grey(root / "annotations" / folder / f"{image_id}.png", halves(*values))
    return root


def test_ade20k(ade):
    source = ade20k.ade20k_source("train", root=str(ade.parent), image_labels=True)
    assert source.ids == ("ADE_train_00000001", "ADE_train_00000002")
    assert len(source.class_names) == source.num_classes == 150
    assert len(set(source.class_names)) == 150
    assert source.class_names[:10] == (
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass"
    )  # fmt: skip
    np.testing.assert_array_equal(mask_of(source, 0), halves(0, 149, 255))
    np.testing.assert_array_equal(mask_of(source, 1), halves(255, 12, 255))
    assert int(source.load(tf.constant(1))["image"][0, 0, 0]) == 40
    assert names_of(source) == [{"wall", "flag"}, {"person"}]
    assert checks.check(source) == (source, [])
    plain = ade20k.ade20k_source("val", root=ade)
    assert plain.ids == ("ADE_val_00000001",)
    assert not plain.labels.any()
    assert not plain.has_background


def test_ade20k_value_that_is_no_class(ade):
    write_grey(ade / "annotations/validation/ADE_val_00000001.png", halves(151, 1))
    with pytest.raises(UserError, match=r"ADE_val_00000001.*there are 150 classes"):
        checks.check(ade20k.ade20k_source("val", root=ade))


def test_ade20k_user_errors(ade, tmp_path):
    with pytest.raises(UserError, match="no split 'test'; there is train, val"):
        ade20k.ade20k_source("test", root=ade)
    with pytest.raises(UserError, match=r"ade20k_source\.root is not set"):
        ade20k.ade20k_source("train")
    with pytest.raises(UserError, match="no ADEChallengeData2016/images"):
        ade20k.ade20k_source("train", root=tmp_path / "nothing")
    (ade / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(UserError, match=r"1 of 2 masks .* 'ADE_train_00000002'"):
        ade20k.ade20k_source("train", root=ade)
    (ade / "images/validation/ADE_val_00000001.jpg").unlink()
    with pytest.raises(UserError, match=r"no image in .*validation"):
        ade20k.ade20k_source("val", root=ade)


# === Cityscapes ===

CITY = {
    "train": {"bochum_000000_000313": (7, 33), "aachen_000001_000019": (30, 11)},
    "val": {"lindau_000000_000019": (24, 4)},
    "test": {"berlin_000000_000019": (3, 3)},
}


@pytest.fixture
def cities(tmp_path):
    for split, scenes in CITY.items():
        for i, (name, values) in enumerate(scenes.items()):
            folder = f"{split}/{name.split('_')[0]}"
            write_image(tmp_path / f"leftImg8bit/{folder}/{name}_leftImg8bit.png", 40 * i)
            stem = tmp_path / f"gtFine/{folder}/{name}_gtFine"
            write_grey(stem.with_name(f"{stem.name}_labelIds.png"), halves(*values))
            write_grey(stem.with_name(f"{stem.name}_instanceIds.png"), halves(77, 78))
            write_image(stem.with_name(f"{stem.name}_color.png"), 3)
    return tmp_path


def test_cityscapes(cities):
    source = cityscapes.cityscapes_source("train", root=str(cities), image_labels=True)
    assert source.ids == ("aachen/aachen_000001_000019", "bochum/bochum_000000_000313")
    assert len(source.class_names) == 19
    np.testing.assert_array_equal(mask_of(source, 0), halves(255, 2, 255))
    np.testing.assert_array_equal(mask_of(source, 1), halves(0, 18, 255))
    assert int(source.load(tf.constant(0))["image"][0, 0, 0]) == 40
    assert names_of(source) == [{"building"}, {"road", "bicycle"}]
    assert checks.check(source) == (source, [])
    test = cityscapes.cityscapes_source("test", root=cities)
    assert test.ids == ("berlin/berlin_000000_000019",)
    assert not test.has_masks


def test_cityscapes_table_is_the_official_one():
    values = cityscapes.mask_values()
    order = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [int(values[i]) for i in order] == list(range(19))
    assert {int(values[i]) for i in set(range(34)) - set(order)} == {255}
    assert set(values[34:]) == {254}
    np.testing.assert_array_equal(cityscapes.label_ids(), order)


def test_cityscapes_user_errors(cities):
    with pytest.raises(UserError, match="no split 'train_extra'"):
        cityscapes.cityscapes_source("train_extra", root=cities)
    with pytest.raises(UserError, match=r"cityscapes_source\.root is not set"):
        cityscapes.cityscapes_source("val")
    with pytest.raises(UserError, match="no image"):
        cityscapes.cityscapes_source("val", root=cities / "gtFine")
    (cities / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match=r"1 of 1 masks .*lindau_000000_000019_gtFine_labelIds"):
        cityscapes.cityscapes_source("val", root=cities)


# === PASCAL-Context ===

CONTEXT = {"2008_000002": (427, 440), "2008_000003": (1, 458), "2008_000007": (2, 360)}


@pytest.fixture
def devkit(tmp_path):
    voc = tmp_path / "VOCdevkit" / "VOC2010"
    for i, (image_id, values) in enumerate(CONTEXT.items()):
        write_image(voc / "JPEGImages" / f"{image_id}.jpg", 40 * i)
        path = tmp_path / "trainval" / f"{image_id}.mat"
        path.parent.mkdir(exist_ok=True)
        scipy.io.savemat(path, {"LabelMap": halves(*values, 459).astype(np.uint16)})
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_000003\n2008_000002\n")
    (lists / "val.txt").write_text("2008_000007\n")
    return voc.parent


def context(devkit, split="train", **options):
    return pascal_context.pascal_context_source(
        split, devkit=devkit, annotations=devkit.parent / "trainval", **options
    )


def test_pascal_context_of_60_classes(devkit):
    source = context(devkit, image_labels=True)
    assert source.ids == ("2008_000003", "2008_000002")
    assert len(source.class_names) == 60
    assert source.has_background
    assert list(source.class_names[1:]) == sorted(source.class_names[1:])
    np.testing.assert_array_equal(mask_of(source, 0), halves(0, 59, 0))
    np.testing.assert_array_equal(mask_of(source, 1), halves(55, 56, 0))
    assert names_of(source) == [{"wood"}, {"tvmonitor", "wall"}]
    assert checks.check(source) == (source, [])
    # Written once, as palette PNGs of the 60 classes.
    written = devkit.parent / "trainval/masks_png/2008_000003.png"
    np.testing.assert_array_equal(images.load_mask(written), halves(0, 59, 0))


def test_pascal_context_of_59_classes(devkit):
    source = context(devkit, background=False, image_labels=True)
    assert len(source.class_names) == source.num_classes == 59
    assert source.class_names[0] == "aeroplane"
    np.testing.assert_array_equal(mask_of(source, 0), halves(255, 58, 255))
    np.testing.assert_array_equal(mask_of(source, 1), halves(54, 55, 255))
    assert names_of(source) == [{"wood"}, {"tvmonitor", "wall"}]
    assert checks.check(source) == (source, [])


def test_pascal_context_conversion_is_resumed(devkit, tmp_path):
    broken = tmp_path / "trainval" / "2008_000002.mat"
    contents = broken.read_bytes()
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"2008_000002\.mat: cannot be read"):
        context(devkit, masks=tmp_path / "masks")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["2008_000003.png"]
    (tmp_path / "trainval" / "2008_000003.mat").unlink()  # is not needed any more
    broken.write_bytes(contents)
    assert len(context(devkit, masks=tmp_path / "masks")) == 2
    assert not (tmp_path / "trainval" / "masks_png").exists()


def test_pascal_context_with_prepared_masks_and_lists(devkit):
    voc = devkit / "VOC2010"
    write_grey(voc / "SegmentationClassContext/2008_000007.png", halves(3, 59))
    lists = voc / "ImageSets/SegmentationContext"
    lists.mkdir()
    (lists / "train.txt").write_text("2008_000007\n")
    source = pascal_context.pascal_context_source("train", devkit=voc)
    assert source.ids == ("2008_000007",)
    np.testing.assert_array_equal(mask_of(source, 0), halves(3, 59, 0))


def test_pascal_context_names_are_compared(devkit, monkeypatch):
    lines = {number: name for name, number in pascal_context._CATEGORIES.items()}
    path = devkit.parent / "trainval/labels.txt"
    path.write_text("\n".join(f"{number}: {name}" for number, name in lines.items()))
    warnings = []
    monkeypatch.setattr(
        pascal_context.logging, "warning", lambda text, *values: warnings.append(text % values)
    )
    context(devkit)
    assert not warnings
    path.write_text(path.read_text().replace("440: wall", "440: wallpaper"))
    context(devkit)
    assert len(warnings) == 1
    assert "440 is 'wallpaper' there, 'wall' here" in warnings[0]


def test_pascal_context_user_errors(devkit, tmp_path):
    with pytest.raises(UserError, match="no split 'test'"):
        context(devkit, "test")
    with pytest.raises(UserError, match=r"source\.devkit is not set"):
        pascal_context.pascal_context_source("train")
    with pytest.raises(UserError, match="no VOC2010/JPEGImages"):
        pascal_context.pascal_context_source("train", devkit=tmp_path / "trainval")
    with pytest.raises(UserError, match=r"bind pascal_context_source\.annotations"):
        pascal_context.pascal_context_source("train", devkit=devkit)
    with pytest.raises(UserError, match="'nothing': no such folder"):
        pascal_context.pascal_context_source("train", devkit=devkit, annotations="nothing")
    mat = tmp_path / "trainval" / "2008_000007.mat"
    scipy.io.savemat(mat, {"LabelMap": np.full(SIZE, 460)})
    with pytest.raises(UserError, match=r"2008_000007\.mat: .*0\.\.459"):
        context(devkit, "val")
    (devkit / "VOC2010/JPEGImages/2008_000003.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images .* '2008_000003'"):
        context(devkit)
    (devkit / "VOC2010/ImageSets/Main/val.txt").unlink()
    with pytest.raises(UserError, match="split 'val' needs the list"):
        context(devkit, "val")


def test_conversion_comes_before_padding(ade):
    """What augmentation pads is 255, though file value 0 is 255 too and 255 no class there."""
    from wsss_tf.data.segmentation_transforms import supervised_augmentation

    source = ade20k.ade20k_source("train", root=ade)
    augment = supervised_augmentation(crop_size=16, min_scale=1.0, max_scale=1.0, flip=False)
    example = augment(source.load(tf.constant(0)), tf.constant([0, 1]))
    values, counts = np.unique(example["mask"], return_counts=True)
    assert values.tolist() == [0, 149, 255]
    assert counts[2] == 16 * 16 - SIZE[0] * SIZE[1] + 1
