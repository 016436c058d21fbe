import importlib.util
import os
import pathlib
import pickle
import tarfile
import unittest
import urllib.error

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from wsss_tf.data import checks, voc, voc_archives, voc_tfds
from wsss_tf.errors import UserError
from wsss_tf.files import images

SHARED = pathlib.Path(__file__).parents[2] / "shared"
SIZE = (8, 11)

# id: value of the mask's lower half, names of the objects
IMAGES = {
    "train1": (1, ["aeroplane", "person"]),
    "train2": (20, ["tvmonitor", "tvmonitor"]),
    "val1": (12, ["dog"]),
    "aug1": (8, ["cat"]),
    "aug2": (15, ["person"]),
    "test1": (0, []),
}
LISTS = {"train": ["train1", "train2"], "val": ["val1"], "trainval": ["train1", "train2", "val1"]}
ANNOTATION = """<annotation><object><name>{}</name><difficult>1</difficult>
<part><name>head</name></part></object></annotation>"""


def mask_of(image_id):
    mask = np.zeros(SIZE, np.uint8)
    mask[SIZE[0] // 2 :] = IMAGES[image_id][0]
    mask[:, -1] = 255
    return mask


def write_voc(root):
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for i, (image_id, (_, names)) in enumerate(IMAGES.items()):
        image = np.full((*SIZE, 3), 30 * i, np.uint8)
        Image.fromarray(image).save(folder / "JPEGImages" / f"{image_id}.jpg")
        text = "".join(ANNOTATION.format(name) for name in names).replace(
            "</annotation><annotation>", ""
        )
        (folder / "Annotations" / f"{image_id}.xml").write_text(text or "<annotation/>")
        if image_id in LISTS["trainval"]:
            images.save_mask(folder / "SegmentationClass" / f"{image_id}.png", mask_of(image_id))
    for name, ids in LISTS.items():
        (folder / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    return folder


def write_sbd(root):
    """SBD has masks of VOC images too; here they are all 19, which must not be used."""
    folder = root / "benchmark_RELEASE" / "dataset"
    (folder / "cls").mkdir(parents=True)
    for image_id in ("aug1", "aug2", "train1", "val1"):
        mask = mask_of(image_id) if image_id.startswith("aug") else np.full(SIZE, 19, np.uint8)
        struct = {"Boundaries": 0, "Segmentation": mask, "CategoriesPresent": 1}
        scipy.io.savemat(folder / "cls" / f"{image_id}.mat", {"GTcls": struct})
    (folder / "train.txt").write_text("aug2\ntrain1\n")
    (folder / "val.txt").write_text("val1\naug1\n")
    return folder


@pytest.fixture
def devkit(tmp_path):
    return write_voc(tmp_path).parent


def names_of(source):
    return [
        {name for name, present in zip(source.foreground_names, row) if present}
        for row in source.labels
    ]


# === The source ===


@pytest.mark.parametrize("below", ["", "VOC2012"])
def test_train(devkit, below):
    source = voc.voc_source("train", devkit=str(devkit / below))
    assert source.ids == ("train1", "train2")
    assert source.class_names == voc.CLASS_NAMES
    assert len(source.class_names) == 21
    assert names_of(source) == [{"aeroplane", "person"}, {"tvmonitor"}]
    example = source.load(tf.constant(1))
    np.testing.assert_array_equal(example["mask"], mask_of("train2"))
    assert int(example["image"][0, 0, 0]) == 30
    assert checks.check(source) == (source, [])


def test_labels_from_masks_without_annotations(devkit):
    for path in (devkit / "VOC2012" / "Annotations").iterdir():
        path.unlink()
    (devkit / "VOC2012" / "Annotations").rmdir()
    source = voc.voc_source("trainval", devkit=devkit)
    assert names_of(source) == [{"aeroplane"}, {"tvmonitor"}, {"dog"}]


def test_trainaug_from_sbd(devkit, tmp_path):
    sbd = write_sbd(tmp_path)
    source = voc.voc_source("trainaug", devkit=devkit, sbd=tmp_path / "benchmark_RELEASE")
    assert source.ids == ("aug1", "aug2", "train1", "train2")
    assert names_of(source)[:2] == [{"cat"}, {"person"}]
    for i, image_id in enumerate(source.ids):
        np.testing.assert_array_equal(source.load(tf.constant(i))["mask"], mask_of(image_id))
    assert sorted(os.listdir(sbd / "cls_png")) == ["aug1.png", "aug2.png"]


def test_sbd_conversion_is_resumed(devkit, tmp_path):
    sbd = write_sbd(tmp_path)
    masks = tmp_path / "masks"
    broken = sbd / "cls" / "aug2.mat"
    contents = broken.read_bytes()
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"aug2\.mat: cannot be read as an SBD mask"):
        voc.voc_source("trainaug", devkit=devkit, sbd=sbd, sbd_masks=masks)
    assert os.listdir(masks) == ["aug1.png"]
    (sbd / "cls" / "aug1.mat").unlink()  # is not needed any more
    broken.write_bytes(contents)
    source = voc.voc_source("trainaug", devkit=devkit, sbd=sbd, sbd_masks=masks)
    np.testing.assert_array_equal(source.load(tf.constant(1))["mask"], mask_of("aug2"))
    assert not (sbd / "cls_png").exists()


def test_trainaug_with_prepared_masks(devkit):
    folder = devkit / "VOC2012"
    ids = ["train2", "aug2", "train1"]
    (folder / "ImageSets/Segmentation/trainaug.txt").write_text("\n".join(ids))
    for image_id in ("aug2", "train1"):
        mask = Image.fromarray(np.full(SIZE, 19, np.uint8))  # grey, as they circulate
        (folder / "SegmentationClassAug").mkdir(exist_ok=True)
        mask.save(folder / "SegmentationClassAug" / f"{image_id}.png")
    source = voc.voc_source("trainaug", devkit=devkit)
    assert source.ids == tuple(ids)
    values = [np.unique(source.load(tf.constant(i))["mask"]).tolist() for i in range(3)]
    assert values == [[0, 20, 255], [19], [0, 1, 255]]


def test_trainaug_without_the_other_masks_is_enough_for_labels(devkit, monkeypatch):
    (devkit / "VOC2012/ImageSets/Segmentation/trainaug.txt").write_text("train1\naug1\n")
    warnings = []
    monkeypatch.setattr(
        voc.logging, "warning", lambda text, *values: warnings.append(text % values)
    )
    source = voc.voc_source("trainaug", devkit=devkit)
    assert names_of(source) == [{"aeroplane", "person"}, {"cat"}]
    assert (source.load(tf.constant(1))["mask"].numpy() == 255).all()
    assert "1 of 2 images of trainaug have no mask" in warnings[0]


def test_test_split_has_neither_masks_nor_labels(devkit):
    (devkit / "VOC2012/ImageSets/Segmentation/test.txt").write_text("test1\n")
    source = voc.voc_source("test", devkit=devkit)
    assert not source.has_masks
    assert not source.labels.any()


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("training", None, "no split 'training'; there is train, val"),
        ("trainaug", None, r"trainaug needs the list .*voc_source\.sbd"),
        ("test", None, "split 'test' needs the list"),
        ("train", ("JPEGImages/train2.jpg", None), "the first is 'train2'"),
        ("train", ("SegmentationClass/train2.png", None), "1 of 2 masks .* 'train2'"),
        ("train", ("Annotations/train2.xml", None), r"train2\.xml: cannot be read"),
        ("train", ("Annotations/train2.xml", "<annotation>"), r"train2\.xml: cannot be read"),
        ("train", ("Annotations/train2.xml", ANNOTATION.format("tv")), r"train2\.xml: cannot be"),
    ],
)
def test_user_errors(devkit, split, change, message):
    if change:
        path = devkit / "VOC2012" / change[0]
        path.unlink() if change[1] is None else path.write_text(change[1])
    with pytest.raises(UserError, match=message):
        voc.voc_source(split, devkit=devkit)


def test_wrong_folders(tmp_path, devkit):
    with pytest.raises(UserError, match=r"voc_source\.devkit"):
        voc.voc_source("train", devkit=tmp_path / "nothing")
    with pytest.raises(UserError, match=r"voc_source\.sbd"):
        voc.voc_source("trainaug", devkit=devkit, sbd=tmp_path / "nothing")


def test_without_data_and_network(tmp_path, monkeypatch):
    def no_network(request, timeout):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr(voc_archives.urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as error:
        voc.voc_source("train", download_dir=tmp_path)
    message = str(error.value)
    assert "bind voc_source.devkit to an existing VOCdevkit folder" in message
    assert f"VOCtrainval_11-May-2012.tar into TFDS' manual folder, {tmp_path}/manual" in message
    assert "\n" not in message


def test_folders_and_archives_in_the_manual_folder(tmp_path):
    write_voc(tmp_path / "manual")
    write_sbd(tmp_path)
    with tarfile.open(tmp_path / "manual" / "benchmark.tgz", "w:gz") as archive:
        archive.add(tmp_path / "benchmark_RELEASE", "benchmark_RELEASE")
    source = voc.voc_source("trainaug", download_dir=tmp_path)
    assert source.ids == ("aug1", "aug2", "train1", "train2")


def test_what_was_extracted_before_needs_no_network(tmp_path):
    write_voc(tmp_path / "extracted" / "TAR.VOCtrainval")
    assert len(voc.voc_source("trainval", download_dir=tmp_path)) == 3


def test_shared_sample():
    devkit = SHARED / "data" / "VOCdevkit"
    if not devkit.is_dir():
        pytest.skip("skipped: no shared data")
    for split in ("train", "val", "trainaug"):
        source = voc.voc_source(split, devkit=devkit)
        assert source.labels.any(1).all()
        assert checks.check(source) == (source, [])
        assert source.load(tf.constant(0))["image"].shape[1] == 500


# === The builder, in TFDS' own test ===


# TFDS does not install all that its test case imports.
LACKING = [name for name in ("dill", "importlib_resources") if not importlib.util.find_spec(name)]


@pytest.mark.skipif(bool(LACKING), reason=f"tfds.testing needs {', '.join(LACKING)}")
class VocSegmentationTest(
    unittest.TestCase if LACKING else tfds.testing.DatasetBuilderTestCase,
):
    DATASET_CLASS = voc_tfds.VocSegmentation
    SPLITS = {"train": 2, "val": 1, "trainval": 3, "trainaug": 4, "test": 1}  # noqa: RUF012
    OVERLAPPING_SPLITS = ("trainval", "trainaug")

    @classmethod
    def setUpClass(cls):
        cls.EXAMPLE_DIR = pathlib.Path(tfds.testing.make_tmp_dir())
        folder = write_voc(cls.EXAMPLE_DIR)
        (folder / "ImageSets/Segmentation/test.txt").write_text("test1\n")
        write_sbd(cls.EXAMPLE_DIR)
        super().setUpClass()

    def test_registered(self):  # shows as skipped where TFDS' own tests are not there
        super().test_registered()


def test_builder_writes_the_same_examples(devkit, tmp_path):
    sbd = write_sbd(tmp_path)
    builder = voc_tfds.VocSegmentation(data_dir=tmp_path / "tfds", devkit=devkit, sbd=sbd)
    builder = pickle.loads(pickle.dumps(builder))
    builder.download_and_prepare()
    source = voc.voc_source("trainaug", devkit=devkit, sbd=sbd)
    written = {example["id"]: example for example in tfds.as_numpy(builder.as_dataset("trainaug"))}
    assert len(written) == len(source) == 4
    for i in range(len(source)):
        expected = source.load(tf.constant(i))
        example = written[expected["id"].numpy()]
        np.testing.assert_array_equal(example["mask"][:, :, 0], expected["mask"])
        np.testing.assert_allclose(example["image"], expected["image"], atol=3)
        assert example["labels"].tolist() == np.flatnonzero(expected["labels"]).tolist()
    names = builder.info.features["labels"].feature.names
    assert tuple(names) == source.foreground_names
