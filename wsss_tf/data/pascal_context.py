"""PASCAL-Context: VOC 2010 with every pixel annotated; 59 classes, with background 60."""

import pathlib

import numpy as np
from absl import logging

from wsss_tf.data.devkit import convert_masks, devkit_folder
from wsss_tf.data.lists import files_of, labels_from_masks, read_id_list
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import find_files
from wsss_tf.files.text import read_text
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
    voc = devkit_folder(devkit, "VOC2010", "pascal_context_source.devkit")
    ids = read_id_list(_find_list(voc, split))
    image_files = find_files(voc / "JPEGImages", (".jpg",))
    pictures = f"images of split {split!r}"
    image_paths = files_of(ids, image_files, "pascal_context", pictures, voc / "JPEGImages")
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
    return file_source("pascal_context", split, names, ids, labels, image_paths, mask_paths, values)


def _find_list(voc, split):
    lists = [voc / "ImageSets" / kind / f"{split}.txt" for kind in ("SegmentationContext", "Main")]
    for path in lists:
        if path.is_file():
            return path
    raise UserError(f"pascal_context: split {split!r} needs the list {lists[0]} or {lists[1]}.")


def _mask_paths(voc, ids, annotations, masks):
    prepared = voc / "SegmentationClassContext"
    if prepared.is_dir():
        files = find_files(prepared, (".png",))
        return files_of(ids, files, "pascal_context", "masks", prepared)
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
    paths = convert_masks(
        ids,
        annotations,
        masks or annotations / "masks_png",
        _read_annotation,
        "a PASCAL-Context annotation",
        "pascal_context_source.masks",
    )
    return list(paths.values())


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


def _read_annotation(contents):
    """Return the classes 0..59 of an annotation, uint8 [h, w]."""
    category = np.asarray(contents["LabelMap"], np.int64)
    if category.ndim != 2 or category.min() < 0 or category.max() > _NUM_CATEGORIES:
        raise ValueError(f"LabelMap is not [h, w] of 0..{_NUM_CATEGORIES}")
    return class_of_category()[category]
