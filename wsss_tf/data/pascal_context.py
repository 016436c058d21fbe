"""PASCAL-Context: VOC 2010 with every pixel annotated; 59 classes, with background 60."""

import pathlib

import numpy as np
import scipy.io
import tqdm
from absl import logging

from wsss_tf.data.folder import labels_from_masks, read_id_list, read_text
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.picture_files import find_files
from wsss_tf.masks import IGNORE

# The 59 most frequent of the 459 categories, in alphabetical order, with their numbers in the
# files; the background is all others. (The data set's own list of 59 begins with VOC's classes.)
_CATEGORIES = {
    "aeroplane": 2,
    "bag": 9,
    "bed": 18,
    "bedclothes": 19,
    "bench": 22,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "book": 33,
    "bottle": 34,
    "building": 44,
    "bus": 45,
    "cabinet": 46,
    "car": 59,
    "cat": 65,
    "ceiling": 68,
    "chair": 72,
    "cloth": 80,
    "computer": 85,
    "cow": 98,
    "cup": 104,
    "curtain": 105,
    "dog": 113,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "horse": 207,
    "keyboard": 220,
    "light": 232,
    "motorbike": 258,
    "mountain": 259,
    "mouse": 260,
    "person": 284,
    "plate": 295,
    "platform": 296,
    "pottedplant": 308,
    "road": 324,
    "rock": 326,
    "sheep": 347,
    "shelves": 349,
    "sidewalk": 354,
    "sign": 355,
    "sky": 360,
    "snow": 366,
    "sofa": 368,
    "table": 397,
    "track": 415,
    "train": 416,
    "tree": 420,
    "truck": 424,
    "tvmonitor": 427,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
_NUM_CATEGORIES = 459
CLASS_NAMES = ("background", *_CATEGORIES)
SPLITS = ("train", "val")

# SciPy has an error of its own beside those of an array that is not there.
_BROKEN_MAT = (scipy.io.matlab.MatReadError, OSError, ValueError, KeyError, TypeError)


def class_of_category():
    """Return the class 0..59 of each category number 0..459, uint8 [460]."""
    classes = np.zeros(_NUM_CATEGORIES + 1, np.uint8)
    classes[list(_CATEGORIES.values())] = np.arange(1, len(CLASS_NAMES))
    return classes


def pascal_context_source(
    split, devkit=None, background=True, annotations=None, masks=None, image_labels=False
):
    """Return a split of PASCAL-Context, read from VOC 2010 and its annotations.

        DEVKIT/VOC2010/JPEGImages/ID.jpg
        DEVKIT/VOC2010/ImageSets/SegmentationContext/SPLIT.txt, else ImageSets/Main/SPLIT.txt
        DEVKIT/VOC2010/SegmentationClassContext/ID.png    grey, 0..59; or
        ANNOTATIONS/ID.mat, labels.txt                    LabelMap of 459 categories

    Args:
      split: "train" (4998 images) or "val" (5105).
      devkit: a VOCdevkit folder, or VOC2010 inside it.
      background: True for 60 classes, everything outside the 59 being "background"; False for 59,
        where that is ignored.
      annotations: the folder "trainval" of .mat files, where SegmentationClassContext is not there.
      masks: folder for those as PNG, into which they are converted once (minutes; may be
        interrupted); None for masks_png beside them.
      image_labels: as in `data.ade20k.ade20k_source`.

    Returns:
      `data.source.Source`.

    Raises:
      UserError: unknown split; missing or broken files.
    """
    if split not in SPLITS:
        raise UserError(f"pascal_context: no split {split!r}; there is {', '.join(SPLITS)}.")
    voc = _voc_folder(devkit)
    ids = read_id_list(_split_list(voc, split))
    image_files = find_files(voc / "JPEGImages", (".jpg",))
    if missing := [image_id for image_id in ids if image_id not in image_files]:
        raise UserError(
            f"pascal_context: {len(missing)} of {len(ids)} images of split {split!r} are not in "
            f"{voc / 'JPEGImages'}, the first is {missing[0]!r}."
        )
    mask_paths = _mask_paths(voc, ids, annotations, masks)
    values = None
    names = CLASS_NAMES
    if not background:
        names = CLASS_NAMES[1:]
        values = (np.arange(256) - 1).astype(np.uint8)  # 0 becomes 255
        values[IGNORE] = IGNORE
    labels = np.zeros([len(ids), len(CLASS_NAMES) - 1], np.float32)
    if image_labels:
        labels, _ = labels_from_masks(mask_paths, names, values)
    image_paths = [image_files[image_id] for image_id in ids]
    return file_source("pascal_context", split, names, ids, labels, image_paths, mask_paths, values)


def _voc_folder(devkit):
    """Return the folder that holds JPEGImages: the given one, or VOC2010 below it."""
    if not devkit:
        raise UserError("pascal_context_source.devkit is not set; bind it to VOC 2010's VOCdevkit.")
    devkit = pathlib.Path(devkit).expanduser()
    for folder in (devkit, devkit / "VOC2010", devkit / "VOCdevkit" / "VOC2010"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"pascal_context_source.devkit = {str(devkit)!r}: no VOC2010/JPEGImages in it.")


def _split_list(voc, split):
    lists = [voc / "ImageSets" / kind / f"{split}.txt" for kind in ("SegmentationContext", "Main")]
    for path in lists:
        if path.is_file():
            return path
    raise UserError(f"pascal_context: split {split!r} needs the list {lists[0]} or {lists[1]}.")


def _mask_paths(voc, ids, annotations, masks):
    prepared = voc / "SegmentationClassContext"
    if prepared.is_dir():
        files = find_files(prepared, (".png",))
        if missing := [image_id for image_id in ids if image_id not in files]:
            raise UserError(
                f"pascal_context: {len(missing)} of {len(ids)} masks are not in {prepared}, the "
                f"first is {missing[0]!r}."
            )
        return [files[image_id] for image_id in ids]
    if not annotations:
        raise UserError(
            f"pascal_context: no {prepared}; bind pascal_context_source.annotations to the folder "
            "of .mat files (trainval)."
        )
    annotations = pathlib.Path(annotations).expanduser()
    if not annotations.is_dir():
        raise UserError(
            f"pascal_context_source.annotations = {str(annotations)!r}: no such folder."
        )
    _compare_names(annotations)
    return _convert(annotations, ids, masks)


def _compare_names(annotations):
    """Warn where labels.txt, beside the annotations or above, calls a category another name."""
    for path in (annotations / "labels.txt", annotations.parent / "labels.txt"):
        if not path.is_file():
            continue
        lines = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
        given = {number.strip(): name.strip() for number, name in lines}
        for name, number in _CATEGORIES.items():
            if given.get(str(number)) != name:
                logging.warning(
                    "%s: category %d is %r there, %r here; masks may be of another release.",
                    path,
                    number,
                    given.get(str(number)),
                    name,
                )
        return


def _convert(annotations, ids, folder):
    """Write the annotations as PNGs of 0..59, those that are not there yet; return their paths."""
    folder = pathlib.Path(folder).expanduser() if folder else annotations / "masks_png"
    classes = class_of_category()
    done = find_files(folder, (".png",))
    to_convert = [image_id for image_id in ids if image_id not in done]
    for image_id in tqdm.tqdm(to_convert, "converting annotations", leave=False, delay=1):
        source = annotations / f"{image_id}.mat"
        try:
            category = np.asarray(scipy.io.loadmat(source)["LabelMap"], np.int64)
            if category.ndim != 2 or category.min() < 0 or category.max() > _NUM_CATEGORIES:
                raise ValueError(f"LabelMap is not [h, w] of 0..{_NUM_CATEGORIES}")
        except _BROKEN_MAT as error:
            raise UserError(
                f"{source}: cannot be read as a PASCAL-Context annotation: {error}"
            ) from error
        try:
            images.save_mask(folder / f"{image_id}.png", classes[category])
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); bind pascal_context_source.masks "
                "to a folder for the annotations as PNG."
            ) from error
    return [str(folder / f"{image_id}.png") for image_id in ids]
