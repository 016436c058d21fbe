"""Cityscapes: street scenes, 19 evaluated classes, pixel-exact masks."""

import pathlib

import numpy as np

from wsss_tf.data.lists import files_of, labels_from_masks
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import find_files
from wsss_tf.masks import IGNORE

# Class: its number in the files ("label id"); the order is that of the official "train ids".
_LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
CLASS_NAMES = tuple(_LABEL_IDS)
SPLITS = ("train", "val", "test")
_LAST_LABEL_ID = 33
_NO_CLASS = 254
_IMAGE_ENDING, _MASK_ENDING = "_leftImg8bit", "_gtFine_labelIds"


def mask_values():
    """Return the class of each label id, uint8 [256].

    Ids that are not evaluated are 255. Values that are no id become 254, for `data.checks` to find.
    """
    values = np.full(256, _NO_CLASS, np.uint8)
    values[: _LAST_LABEL_ID + 1] = IGNORE
    values[list(_LABEL_IDS.values())] = np.arange(len(_LABEL_IDS))
    return values


def label_ids():
    """Return the label id of each class, uint8 [K]: what the official server wants in masks."""
    return np.array(list(_LABEL_IDS.values()), np.uint8)


def cityscapes_source(split, root=None, image_labels=False):
    """Return a split of Cityscapes with fine masks, read from the two extracted archives.

        ROOT/leftImg8bit/SPLIT/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png
        ROOT/gtFine/SPLIT/CITY/CITY_SSSSSS_FFFFFF_gtFine_labelIds.png

    Args:
      split: "train" (2975 images), "val" (500) or "test" (1525, whose masks are not public).
      root: folder that holds leftImg8bit and gtFine. The archives need registration.
      image_labels: as in `data.ade20k.ade20k_source`.

    Returns:
      `data.source.Source`, without a background class; an id is CITY/CITY_SSSSSS_FFFFFF. Masks hold
      0..18, the official train ids, and 255.

    Raises:
      UserError: unknown split; missing folders or files.
    """
    if split not in SPLITS:
        raise UserError(f"cityscapes: no split {split!r}; there is {', '.join(SPLITS)}.")
    if not root:
        raise UserError(
            "cityscapes_source.root is not set; bind it to the folder of leftImg8bit and gtFine."
        )
    root = pathlib.Path(root).expanduser()
    image_folder, mask_folder = root / "leftImg8bit" / split, root / "gtFine" / split
    image_files = {
        key.removesuffix(_IMAGE_ENDING): path
        for key, path in find_files(image_folder, (".png",)).items()
        if key.endswith(_IMAGE_ENDING)
    }
    if not image_files:
        raise UserError(f"cityscapes: no image CITY/*{_IMAGE_ENDING}.png in {image_folder}.")
    ids = list(image_files)
    mask_paths = None
    labels = np.zeros([len(ids), len(CLASS_NAMES)], np.float32)
    if split != "test":
        mask_paths = files_of(
            [image_id + _MASK_ENDING for image_id in ids],
            find_files(mask_folder, (".png",)),
            "cityscapes",
            f"masks of split {split!r}",
            mask_folder,
        )
        if image_labels:
            labels, _ = labels_from_masks(mask_paths, CLASS_NAMES, mask_values())
    return file_source(
        "cityscapes",
        split,
        CLASS_NAMES,
        ids,
        labels,
        list(image_files.values()),
        mask_paths,
        mask_values(),
    )
