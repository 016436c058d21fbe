"""What describes a data set on disk: text files, lists of ids, and the classes that masks show."""

import collections
import concurrent.futures
import os

import numpy as np
import tqdm

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.picture_files import SUFFIXES
from wsss_tf.files.text import read_text
from wsss_tf.masks import IGNORE


def read_id_list(path):
    """Return the lines of a split list, without suffixes and blank lines.

    Raises:
      UserError: the list is empty or names an image twice.
    """
    lines = read_text(path).split("\n")
    ids = [without_suffix(line.strip()) for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty.")
    image_id, times = collections.Counter(ids).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {image_id!r} is in the list {times} times.")
    return ids


def without_suffix(name):
    """Return a file name without the suffix of a picture, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def evenly_spread(values, most):
    """Return at most so many values of a sequence, from its first to its last."""
    places = np.linspace(0, len(values) - 1, min(most, len(values)))
    return [values[round(place)] for place in places]


def files_of(ids, files, data_set, what, folder):
    """Return the file of each id.

    Args:
      ids: n strings.
      files: {id: path} of the files that are there.
      data_set, what, folder: for the message, such as "voc", "images of split 'train'", and where
        the files were looked for.

    Raises:
      UserError: one is missing.
    """
    if missing := [image_id for image_id in ids if image_id not in files]:
        raise UserError(
            f"{data_set}: {len(missing)} of {len(ids)} {what} are not in {folder}, the first is "
            f"{missing[0]!r}."
        )
    return [files[image_id] for image_id in ids]


def labels_from_masks(mask_paths, class_names, mask_values=None):
    """Read which classes masks show.

    Args:
      mask_paths: n paths.
      class_names: K names in mask order.
      mask_values: as in `source.file_source`.

    Returns:
      Labels float32 [n, C], and bool [n], false for masks that cannot be read (their labels are
      zero). Values from K on are passed over; `data.checks` reports them.
    """
    class_names = tuple(class_names)
    first = int(class_names[0] == "background")

    def classes(path):
        try:
            mask = images.load_mask(path)
        except UserError:
            return None
        if mask_values is not None:
            mask = np.asarray(mask_values)[mask]
        return np.bincount(mask.ravel(), minlength=IGNORE)[first : len(class_names)] > 0

    labels = np.zeros([len(mask_paths), len(class_names) - first], np.float32)
    is_readable = np.zeros(len(mask_paths), bool)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = pool.map(classes, mask_paths)
        bar = tqdm.tqdm(found, "reading labels from masks", len(mask_paths), leave=False, delay=1)
        for i, present in enumerate(bar):
            if present is not None:
                labels[i], is_readable[i] = present, True
    return labels, is_readable
