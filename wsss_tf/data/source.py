"""What a data set looks like to the rest of the package: names, labels, and access by position."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from wsss_tf.errors import UserError, last_line
from wsss_tf.files import images
from wsss_tf.masks import IGNORE


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
      name: for messages, such as "voc".
      split: the split's name, such as "train".
      class_names: the K names in mask order. If the first is "background", the set can be learnt
        weakly: C = K - 1 foreground classes, and mask value c is foreground class c. Otherwise
        C = K and mask value c is class c + 1 of the labels' 1-based numbering.
      ids: n strings, unique.
      labels: float32 [n, C], multi-hot; all zero where an image has none.
      read: function of a scalar integer tensor (a position in `ids`) to
        {"image": uint8 [h, w, 3], "mask": uint8 [h, w]}; traceable, deterministic. The mask is left
        out where `has_masks` is false; it is 255 everywhere for an image without one.
      has_masks: whether `read` gives masks.
      paths: image file per id, for messages; None where there are no files.
      mask_paths: likewise of the masks, "" where an image has none.
      max_side: long side, pixels, that larger pictures are read at; None for their own sizes.
      warnings: lines on what was found beside the pictures, such as files that are not read.
      tagged: whether an image's labels were given by hand, bool per id, so that they can be
        compared with its mask; None where they are not to be.
      negative: whether an image is known to show none of the classes, bool per id; None where that
        is known of no image.
    """

    name: str
    split: str
    class_names: tuple
    ids: tuple
    labels: np.ndarray
    read: Callable
    has_masks: bool
    paths: tuple | None = None
    mask_paths: tuple | None = None
    max_side: int | None = None
    warnings: tuple = ()
    tagged: tuple | None = None
    negative: tuple | None = None

    def __post_init__(self):
        if not self.ids:
            raise UserError(f"{self.name}: split {self.split!r} is empty; nothing to do.")
        if self.labels.shape != (len(self.ids), self.num_classes):
            raise ValueError(
                f"labels {self.labels.shape} for {len(self.ids)} ids, {self.num_classes} classes."
            )

    def __len__(self):
        return len(self.ids)

    @property
    def has_background(self):
        """Whether mask value 0 means background, so that image labels can teach the classes."""
        return self.class_names[0] == "background"

    @property
    def num_classes(self):
        """C, the classes that image labels speak of (foreground only, if there is a background)."""
        return len(self.class_names) - self.has_background

    @property
    def foreground_names(self):
        """The C class names in the order of the label vector."""
        return self.class_names[int(self.has_background) :]

    def load(self, index):
        """Return the example at a position, as tensors: the package's example format.

        Args:
          index: scalar integer tensor in [0, n).

        Returns:
          {"id": string, "image": uint8 [h, w, 3] RGB, "labels": float32 [C]} and, with masks,
          "mask": uint8 [h, w] with values 0..K-1 and 255 for ignored pixels.
        """
        example = self.read(index)
        example["id"] = tf.gather(tf.constant(self.ids), index)
        example["labels"] = tf.gather(tf.constant(self.labels), index)
        return example

    def unlabelled(self):
        """Return bool [n]: the images of which nothing is known, neither classes nor their lack."""
        known = self.labels.any(axis=1)
        return ~known if self.negative is None else ~(known | np.asarray(self.negative, bool))

    def without_masks(self):
        """Return the same split, reading no masks: what weakly supervised training sees."""

        def read(index):
            return {"image": self.read(index)["image"]}

        return dataclasses.replace(self, read=read, has_masks=False, mask_paths=None)

    def select(self, positions):
        """Return a source of the examples at `positions` (sequence of ints), in that order."""
        chosen = np.asarray(positions, np.int64)

        def of(values):
            return None if values is None else tuple(values[i] for i in chosen)

        def read(index):
            return self.read(tf.gather(tf.constant(chosen), index))

        return dataclasses.replace(
            self,
            ids=of(self.ids),
            labels=self.labels[chosen],
            read=read,
            paths=of(self.paths),
            mask_paths=of(self.mask_paths),
            tagged=of(self.tagged),
            negative=of(self.negative),
        )


def file_source(
    name,
    split,
    class_names,
    ids,
    labels,
    image_paths,
    mask_paths=None,
    mask_values=None,
    warnings=(),
    tagged=None,
    negative=None,
):
    """Return a `Source` that reads image and mask files inside the graph.

    Args:
      name, split, class_names, ids, labels: as in `Source`.
      image_paths: n paths of JPEG or PNG files.
      mask_paths: n paths of palette or grey PNGs, "" where an image has none; None for no masks.
      mask_values: uint8 [256], the class (or 255) that each value in the files stands for; None
        where the files hold classes.
      warnings, tagged, negative: as in `Source`.
    """
    image_paths = tuple(map(str, image_paths))
    has_masks = mask_paths is not None and any(map(str, mask_paths))
    mask_paths = tuple(map(str, mask_paths)) if has_masks else None
    # As bytes: names need not be UTF-8. `data.checks` sees to those that are not.
    image_files = list(map(os.fsencode, image_paths))
    mask_files = list(map(os.fsencode, mask_paths or ()))

    def read_mask(path):
        mask = images.decode_mask(tf.io.read_file(path))
        if mask_values is None:
            return mask
        return tf.gather(tf.constant(mask_values, tf.uint8), tf.cast(mask, tf.int32))

    def read(index):
        image = images.decode_image(tf.io.read_file(tf.gather(tf.constant(image_files), index)))
        example = {"image": image}
        if has_masks:
            path = tf.gather(tf.constant(mask_files), index)
            example["mask"] = tf.cond(
                path == "",
                lambda: tf.fill(tf.shape(image)[:2], tf.constant(IGNORE, tf.uint8)),
                lambda: read_mask(path),
            )
        return example

    return Source(
        name=name,
        split=split,
        class_names=tuple(class_names),
        ids=tuple(ids),
        labels=np.asarray(labels, np.float32).reshape(len(ids), -1),
        read=read,
        has_masks=has_masks,
        paths=image_paths,
        mask_paths=mask_paths,
        warnings=tuple(warnings),
        tagged=None if tagged is None else tuple(tagged),
        negative=None if negative is None else tuple(negative),
    )


def reduced_source(source, max_side):
    """Return the same split, pictures and masks reduced to a long side of at most `max_side`.

    Of larger pictures the mean colour of each new pixel's area is taken as they are read (a tenth
    of a bicubic filter's time), of masks the nearest pixel. Files are left as they are.
    """
    if max_side < 1:
        raise UserError(f"{source.name}: max_side = {max_side}; give at least 1 pixel.")

    def read(index):
        example = dict(source.read(index))
        example["image"] = images.reduce_area(example["image"], max_side)
        if "mask" in example:
            # By its own size: that of another picture is not to be brought to this one's.
            mask = example["mask"][:, :, None]
            size = images.reduced_size(tf.shape(mask)[:2], max_side)
            example["mask"] = tf.image.resize(mask, size, "nearest")[:, :, 0]
        return example

    return dataclasses.replace(source, read=read, max_side=max_side)


def loader(source):
    """Return a function of a position in `source` to its example as NumPy arrays.

    It is compiled: run op by op, reading a JPEG takes thirty times as long, most of it for the loop
    over its segments. It raises `UserError`, naming the file, where image or mask cannot be read.
    """
    read = tf.function(source.load, autograph=False, input_signature=[tf.TensorSpec([], tf.int64)])

    def load(position):
        try:
            example = read(tf.constant(position, tf.int64))
        except tf.errors.OpError as error:
            name = source.paths[position] if source.paths else source.ids[position]
            reason = error_in_short(error)
            raise UserError(f"{name}: image or mask cannot be read: {reason}") from error
        return {key: value.numpy() for key, value in example.items()}

    return load


def error_in_short(error):
    """Return what the message of a `tf.errors.OpError` says, without stack and node names."""
    # `images.decode_mask` complains through the operation that reads numbers.
    return last_line(error.message).split("convert string: ")[-1] or type(error).__name__
