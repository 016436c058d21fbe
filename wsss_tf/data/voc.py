"""PASCAL VOC 2012 segmentation with the SBD masks ("trainaug").

`voc_source` reads the extracted files at random positions in the graph: the batches ask for
examples by position, and the records of TFDS (`data.voc_tfds`) can only be read in sequence.
"""

import pathlib
from xml.etree import ElementTree

import numpy as np
from absl import logging

from wsss_tf.data.devkit import convert_masks, devkit_folder
from wsss_tf.data.lists import files_of, labels_from_masks, read_id_list
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import find_files

CLASS_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SPLITS = ("train", "val", "trainval", "trainaug", "test")


def voc_source(split, devkit=None, sbd=None, sbd_masks=None, download_dir=None):
    """Return a split of VOC 2012, read from extracted files.

    Args:
      split: "train", "val", "trainval", "trainaug" or "test".
      devkit: a VOCdevkit folder, or VOC2012 inside it. None: the archives are taken from
        `download_dir`/manual, or downloaded there (2 GB; 1.4 GB more for trainaug).
      sbd: a benchmark_RELEASE folder, or dataset inside it; for trainaug without
        SegmentationClassAug in the devkit.
      sbd_masks: folder for SBD's masks as PNG, into which its .mat files are converted once
        (a minute or two; may be interrupted); None for cls_png beside them.
      download_dir: None for that of TFDS, ~/tensorflow_datasets/downloads.

    Returns:
      `data.source.Source`. trainaug takes its list from ImageSets/Segmentation/trainaug.txt, else
      from SBD's lists. The masks of its images outside VOC train are those in SegmentationClassAug,
      else SBD's; without either they are 255 everywhere, with a warning. test has neither masks nor
      labels.

    Raises:
      UserError: unknown split; missing or broken files; no data, and none to be downloaded.
    """
    if split not in SPLITS:
        raise UserError(f"voc: no split {split!r}; there is {', '.join(SPLITS)}.")
    if devkit is None:
        from wsss_tf.data import voc_archives  # imports TensorFlow Datasets

        archives = voc_archives.download_manager(download_dir)
        voc, sbd = acquire_folders(archives, sbd, wants_sbd=split == "trainaug")
    else:
        voc, sbd = find_folders(devkit, sbd)
    ids, image_paths, mask_paths, labels = index(split, voc, sbd, sbd_masks)
    return file_source("voc", split, CLASS_NAMES, ids, labels, image_paths, mask_paths)


# === Folders ===


def find_folders(devkit, sbd=None):
    """Return the folders VOC2012, which holds JPEGImages, and of SBD, which holds cls, or None.

    Args:
      devkit, sbd: as in `voc_source`.

    Raises:
      UserError: they are not there.
    """
    voc = devkit_folder(devkit, "VOC2012", "voc_source.devkit")
    return voc, None if sbd is None else _sbd_folder(sbd)


def acquire_folders(archives, sbd=None, wants_sbd=True):
    """Return what `find_folders` does, of archives that may have to be downloaded.

    Args:
      archives: `tfds.download.DownloadManager`.
      sbd: as in `voc_source`; None to acquire it too, if it is wanted and VOC's folder lacks the
        masks of trainaug.
      wants_sbd: whether these masks are needed.

    Raises:
      UserError: they are not there and cannot be downloaded.
    """
    from wsss_tf.data import voc_archives

    devkit = voc_archives.acquire_voc(archives)
    voc, _ = find_folders(devkit)
    has_all_masks = (
        split_list(voc, "trainaug").is_file() and (voc / "SegmentationClassAug").is_dir()
    )
    if sbd is None and wants_sbd and not has_all_masks:
        sbd = voc_archives.acquire_sbd(archives)
    return find_folders(devkit, sbd)


def _sbd_folder(sbd):
    """Return the folder that holds cls: the given one, or dataset below it."""
    sbd = pathlib.Path(sbd).expanduser()
    for folder in (sbd, sbd / "dataset", sbd / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir():
            return folder
    raise UserError(f"voc_source.sbd = {str(sbd)!r}: no dataset/cls in it.")


def split_list(voc, split):
    """Return the path of a split's list of ids, whether it is there or not."""
    return voc / "ImageSets" / "Segmentation" / f"{split}.txt"


# === Index ===


def index(split, voc, sbd, sbd_masks=None):
    """Return ids, image paths, mask paths ("" where there is none), labels [n, 20] of a split.

    Args:
      split, sbd_masks: as in `voc_source`.
      voc, sbd: what `find_folders` gives.

    Raises:
      UserError: missing or broken files.
    """
    ids = _ids(split, voc, sbd)
    image_files = find_files(voc / "JPEGImages", (".jpg",))
    pictures = f"images of split {split!r}"
    image_paths = files_of(ids, image_files, "voc", pictures, voc / "JPEGImages")
    if split == "test":
        return ids, image_paths, [""] * len(ids), np.zeros([len(ids), len(CLASS_NAMES) - 1])
    mask_paths = _mask_paths(split, voc, sbd, ids, sbd_masks)
    return ids, image_paths, mask_paths, _labels(voc, ids, mask_paths)


def _ids(split, voc, sbd):
    path = split_list(voc, split)
    if path.is_file():
        return read_id_list(path)
    if split != "trainaug":
        raise UserError(f"voc: split {split!r} needs the list {path}.")
    if sbd is None:
        raise UserError(
            f"voc: trainaug needs the list {path}, or SBD: bind voc_source.sbd to an existing "
            "benchmark_RELEASE folder."
        )
    lists = [sbd / "train.txt", sbd / "val.txt", *(split_list(voc, s) for s in ("train", "val"))]
    for path in lists:
        if not path.is_file():
            raise UserError(f"voc: trainaug needs the list {path}.")
    sbd_train, sbd_val, voc_train, voc_val = [set(read_id_list(path)) for path in lists]
    return sorted((sbd_train | sbd_val | voc_train) - voc_val)


def _mask_paths(split, voc, sbd, ids, sbd_masks):
    own = find_files(voc / "SegmentationClass", (".png",))
    if split != "trainaug":
        if not own:
            return [""] * len(ids)
        masks = f"masks of split {split!r}"
        return files_of(ids, own, "voc", masks, voc / "SegmentationClass")

    # VOC's own masks are more exact than SBD's, and its train split keeps them.
    train_list = split_list(voc, "train")
    keep = set(read_id_list(train_list)) if train_list.is_file() else set()
    own = {image_id: path for image_id, path in own.items() if image_id in keep}
    others = [image_id for image_id in ids if image_id not in own]
    prepared = find_files(voc / "SegmentationClassAug", (".png",))
    if sbd is not None and not prepared:
        prepared = convert_masks(
            others,
            sbd / "cls",
            sbd_masks or sbd / "cls_png",
            lambda contents: contents["GTcls"]["Segmentation"][0, 0],
            "an SBD mask",
            "voc_source.sbd_masks",
        )
    if missing := [image_id for image_id in others if image_id not in prepared]:
        logging.warning(
            "voc: %d of %d images of trainaug have no mask (neither SegmentationClassAug nor "
            "voc_source.sbd has them). Weak training does not need them; supervised training does.",
            len(missing),
            len(ids),
        )
    return [own.get(image_id) or prepared.get(image_id, "") for image_id in ids]


def _labels(voc, ids, mask_paths):
    """Return labels [n, 20]: from the annotations, else from the masks."""
    if (voc / "Annotations").is_dir():
        return np.stack([_annotated_labels(voc / "Annotations" / f"{i}.xml") for i in ids])
    if "" in mask_paths:
        without = ids[mask_paths.index("")]
        raise UserError(
            f"voc: no labels for image {without!r}: neither the folder {voc / 'Annotations'} nor a "
            "mask of it is there."
        )
    return labels_from_masks(mask_paths, CLASS_NAMES)[0]


def _annotated_labels(path):
    """Return float32 [20]; objects count whether or not they are marked difficult."""
    labels = np.zeros([len(CLASS_NAMES) - 1], np.float32)
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
        for name in (thing.findtext("name").strip() for thing in objects):
            labels[CLASS_NAMES.index(name, 1) - 1] = 1
    except (OSError, ElementTree.ParseError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a VOC annotation: {error}") from error
    return labels
