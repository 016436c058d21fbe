"""ADE20K scene parsing: 150 classes, every pixel of a scene."""

import pathlib

import numpy as np

from wsss_tf.data.lists import files_of, labels_from_masks
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import find_files
from wsss_tf.masks import IGNORE

CLASS_NAMES = tuple(
    """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman,
bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food,
step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
monitor, bulletin board, shower, radiator, glass, clock, flag
""".replace("\n", " ")
    .strip()
    .split(", ")
)
_FOLDERS = {"train": "training", "val": "validation"}


def mask_values():
    """Return the class of each value in the annotations, uint8 [256].

    There 0 is "other", which is not evaluated, and c is class c - 1. A value above the last class
    stays one that is no class, for `data.checks` to find.
    """
    values = np.arange(256) - 1
    values[0] = IGNORE
    return values.astype(np.uint8)


def ade20k_source(split, root=None, image_labels=False):
    """Return a split of ADE20K, read from the extracted ADEChallengeData2016.zip.

        ROOT/images/{training,validation}/ADE_*.jpg
        ROOT/annotations/{training,validation}/ADE_*.png      0 other, 1..150 classes

    Args:
      split: "train" (20210 images) or "val" (2000).
      root: folder ADEChallengeData2016, or the one that holds it.
      image_labels: read from the masks which classes each image shows, which takes minutes;
        otherwise all labels are zero. Supervised training does not use them.

    Returns:
      `data.source.Source`, without a background class; mask value c is the class of number c + 1 in
      the files, and "other" is 255.

    Raises:
      UserError: unknown split; missing folders or files.
    """
    if split not in _FOLDERS:
        raise UserError(f"ade20k: no split {split!r}; there is {', '.join(_FOLDERS)}.")
    root = _folder(root)
    image_folder = root / "images" / _FOLDERS[split]
    mask_folder = root / "annotations" / _FOLDERS[split]
    image_files = find_files(image_folder, (".jpg",))
    if not image_files:
        raise UserError(f"ade20k: no image in {image_folder}.")
    mask_files = find_files(mask_folder, (".png",))
    masks = f"masks of split {split!r}"
    mask_paths = files_of(list(image_files), mask_files, "ade20k", masks, mask_folder)
    labels = np.zeros([len(image_files), len(CLASS_NAMES)], np.float32)
    if image_labels:
        labels, _ = labels_from_masks(mask_paths, CLASS_NAMES, mask_values())
    return file_source(
        "ade20k",
        split,
        CLASS_NAMES,
        list(image_files),
        labels,
        list(image_files.values()),
        mask_paths,
        mask_values(),
    )


def _folder(root):
    """Return the folder that holds images: the given one, or ADEChallengeData2016 below it."""
    if not root:
        raise UserError("ade20k_source.root is not set; bind it to ADEChallengeData2016.")
    root = pathlib.Path(root).expanduser()
    for folder in (root, root / "ADEChallengeData2016"):
        if (folder / "images").is_dir():
            return folder
    raise UserError(f"ade20k_source.root = {str(root)!r}: no ADEChallengeData2016/images in it.")
