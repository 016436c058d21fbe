"""What IRN learns from: pictures, and labels where two dense CRFs are sure of them."""

import dataclasses
import pathlib

import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from wsss_tf.data.affinity import image_size
from wsss_tf.data.transforms import (
    compose,
    normalize,
    random_crop,
    random_flip,
    resize_as_pillow,
)
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.run_folder import RunFolder


def with_ir_labels(source, cam_run=None):
    """Return a source with the labels for IRN beside each picture.

    Args:
      source: `data.source.Source`.
      cam_run: run folder in which `wsss_tf.ir_labels` has been run on this split.

    Returns:
      `Source` whose "mask" is that label, uint8 [h, w]: 0 confident background, a class, or 255.

    Raises:
      UserError: a file is missing, broken, or of another size than its picture.
    """
    if cam_run is None:
        raise UserError(
            "with_ir_labels.cam_run is not set: the run folder of the CAMs, after "
            "wsss_tf.ir_labels; for example --gin_bindings='with_ir_labels.cam_run=\"RUN\"'."
        )
    paths = tuple(str(RunFolder(cam_run).ir_label(image_id)) for image_id in source.ids)
    _check(source, cam_run, paths)
    read_image = source.without_masks().read

    def read(index):
        contents = tf.io.read_file(tf.gather(tf.constant(paths), index))
        return {**read_image(index), "mask": images.decode_mask(contents)}

    return dataclasses.replace(source, read=read, has_masks=True, mask_paths=paths)


def _check(source, cam_run, paths):
    """See `with_ir_labels`; reads the headers of the files only."""
    missing = [path for path in paths if not pathlib.Path(path).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(paths)} labels for IRN are missing for split "
            f"{source.split!r} (the first: {missing[0]}); first run: python -m wsss_tf.ir_labels "
            f"--run_dir={cam_run} --split={source.split}"
        )
    for i, path in enumerate(tqdm(paths, "checking labels", leave=False, delay=1)):
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a label: {error}; delete it.") from error
        wanted = image_size(source, i)
        if wanted not in (None, (height, width)):
            raise UserError(
                f"{path}: is {height} x {width}, the image {source.ids[i]!r} {wanted[0]} x "
                f"{wanted[1]} (height x width); make it anew with --overwrite."
            )


def irn_augmentation(crop_size=512, stride=4, min_scale=0.5, max_scale=1.5, flip=True):
    """Return IRN's training augmentation.

    Args:
      crop_size: side of the square output, pixels, a multiple of `stride`; smaller pictures lie on
        a canvas of mean colour, whose labels are 255.
      stride: of the network's boundaries, pixels.
      min_scale, max_scale: the factor on the size is uniform between them.
      flip: mirror half of the pictures.

    Returns:
      Function of (example, rng_seed int32 [2]) to the example with "image" float32 [crop_size,
      crop_size, 3], normalised, and in place of "mask" "affinity_labels" uint8 [crop_size / stride,
      crop_size / stride], the pixels in the middle of each cell.

    Raises:
      ValueError: an argument out of range.

    Source: IRN, official `step/train_irn.py` and `voc12/dataloader.py`.
    """
    if crop_size % stride:
        raise ValueError(
            f"crop_size = {crop_size}; it must be a multiple of the labels' stride, {stride}."
        )
    steps = [random_pillow_scale(min_scale, max_scale), normalize]
    if flip:
        steps.append(random_flip)
    return compose(*steps, random_crop(crop_size), _label(stride))


def _label(stride):
    def label(example, rng_seed=None):
        example = dict(example)
        mask = example.pop("mask")
        return {**example, "affinity_labels": mask[stride // 2 :: stride, stride // 2 :: stride]}

    return label


def random_pillow_scale(smallest, largest):
    """Return the transform that resizes image and mask by a random factor, as Pillow does.

    The image by its bicubic filter (antialiased, 8-bit), the mask to its nearest pixel.

    Args:
      smallest, largest: the factor is uniform between them.

    Raises:
      ValueError: an argument out of range.
    """
    if not 0 < smallest <= largest:
        raise ValueError(f"scales from {smallest} to {largest}: need 0 < smallest <= largest.")

    def transform(example, rng_seed):
        scale = tf.random.stateless_uniform([], rng_seed, smallest, largest)
        old = tf.cast(tf.shape(example["image"])[:2], tf.float64)
        size = tf.maximum(tf.cast(tf.round(old * tf.cast(scale, tf.float64)), tf.int32), 1)
        image = resize_as_pillow(example["image"], size)
        return {**example, "image": image, "mask": resize_nearest(example["mask"], size)}

    return transform


def resize_nearest(mask, size):
    """Resize an index mask to the nearest pixel as Pillow does.

    Args:
      mask: uint8 [h, w].
      size: (height, width), int32.

    Returns:
      uint8 [height, width]. Pillow adds up the positions, in float64, so that one size in five has
      a row or two that a product would take from beside.
    """
    for axis in (0, 1):
        old, new = tf.shape(mask)[axis], size[axis]
        step = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
        steps = tf.concat([[step * 0.5], tf.fill([new - 1], step)], axis=0)
        index = tf.cast(tf.floor(tf.cumsum(steps)), tf.int32)
        mask = tf.gather(mask, tf.minimum(index, old - 1), axis=axis)
    return mask
