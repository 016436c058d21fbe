"""Pseudo labels: masks that a network made, in place of a data set's own."""

import dataclasses
import pathlib

import tensorflow as tf

from wsss_tf.errors import UserError
from wsss_tf.files import images


def with_pseudo_labels(source, folder):
    """Return a source whose masks are the files `folder/<id>.png`.

    Args:
      source: `data.source.Source`, with masks of its own or without.
      folder: of palette or 8-bit grey PNGs as large as the images, values 0..K-1, and 255 for
        pixels to be ignored; such as `RUN/pseudo_labels` or `RUN/predictions`.

    Raises:
      UserError: no such folder, or a file is missing. Files that are broken, of a wrong size or
        hold a value that is no class are found by `data.checks`.
    """
    folder = pathlib.Path(folder).expanduser()
    paths = _paths(source, folder)
    if missing := missing_pseudo_labels(source, folder):
        raise UserError(
            f"{len(missing)} of {len(paths)} images of split {source.split!r} of {source.name} "
            f"have no pseudo label, the first is {missing[0]}; first run: "
            f"python -m wsss_tf.infer --run_dir={folder.parent} --split={source.split}"
        )
    read_image = source.without_masks().read

    def read(index):
        contents = tf.io.read_file(tf.gather(tf.constant(paths), index))
        return {**read_image(index), "mask": images.decode_mask(contents)}

    return dataclasses.replace(source, read=read, has_masks=True, mask_paths=paths)


def missing_pseudo_labels(source, folder):
    """Return the paths of the pseudo labels that `with_pseudo_labels` would miss.

    Raises:
      UserError: no such folder.
    """
    if not pathlib.Path(folder).expanduser().is_dir():
        raise UserError(f"pseudo labels {folder}: no such folder.")
    return [path for path in _paths(source, folder) if not pathlib.Path(path).is_file()]


def _paths(source, folder):
    folder = pathlib.Path(folder).expanduser()
    return tuple(str(folder / f"{image_id}.png") for image_id in source.ids)
