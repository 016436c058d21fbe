"""What AffinityNet learns from: pictures, and labels where the dense CRF is sure of them."""

import dataclasses
import pathlib

import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from wsss_tf.data import transforms
from wsss_tf.errors import UserError
from wsss_tf.files import images, png
from wsss_tf.files.pictures import ORIENTATION_TAG
from wsss_tf.files.run_folder import CRF_NAMES, RunFolder
from wsss_tf.masks import IGNORE

_NO_SCORE = 1e-5


def with_crf_maps(source, cam_run=None):
    """Return a source with the CRF's marginals of an earlier run beside each picture.

    Args:
      source: `data.source.Source`.
      cam_run: run folder in which `wsss_tf.refine` has been run on this split.

    Returns:
      `Source` whose `read` adds "crf_low" and "crf_high", float32 [h, w, P + 1] in [0, 1]:
      background and the P classes of the image, P varying from image to image.

    Raises:
      UserError: a file is missing, broken, or of another size than its picture.
    """
    if cam_run is None:
        raise UserError(
            "with_crf_maps.cam_run is not set: the run folder of the CAMs, after "
            "wsss_tf.refine; for example --gin_bindings='with_crf_maps.cam_run=\"RUN\"'."
        )
    paths = {
        name: tuple(str(RunFolder(cam_run).crf(name, i)) for i in source.ids) for name in CRF_NAMES
    }
    _check(source, cam_run, paths)

    def read(index):
        example = source.read(index)
        size = tf.shape(example["image"])[:2]
        for name in CRF_NAMES:
            path = tf.gather(tf.constant(paths[name]), index)
            example[name] = decode_probabilities(tf.io.read_file(path), size)
        return example

    return dataclasses.replace(source, read=read)


def decode_probabilities(contents, size):
    """Decode a file of `png.save_probabilities` inside a graph.

    Args:
      contents: scalar string tensor, the bytes.
      size: (h, w) of one map, int32 [2].

    Returns:
      float32 [h, w, P] in [0, 1].

    Raises:
      InvalidArgumentError: it is no PNG, or of maps of another size.
    """
    stack = tf.io.decode_png(contents, channels=1, dtype=tf.uint16)[:, :, 0]
    stack = tf.cast(stack, tf.float32) / png.PROBABILITY_ONE
    fits = (tf.shape(stack)[1] == size[1]) & (tf.shape(stack)[0] % size[0] == 0)
    with tf.control_dependencies([tf.debugging.Assert(fits, ["map size", tf.shape(stack), size])]):
        return tf.transpose(tf.reshape(stack, [-1, size[0], size[1]]), [1, 2, 0])


def affinity_augmentation(crop_size=448, stride=8, jitter=0.3, hue=0.1, flip=True):
    """Return AffinityNet's training augmentation: pictures keep their size.

    Args:
      crop_size: side of the square output, pixels, a multiple of `stride`; smaller pictures lie on
        a black canvas (not the mean colour, as in SEAM's training).
      stride: of the network's features, pixels.
      jitter, hue: as in `transforms.seam_augmentation`.
      flip: mirror half of the pictures.

    Returns:
      Function of (example, rng_seed int32 [2]) to the example with "image" float32 [crop_size,
      crop_size, 3], normalised, and instead of the CRF's maps "affinity_labels" uint8
      [crop_size / stride, crop_size / stride], see `confident_labels`.

    Raises:
      ValueError: an argument out of range.

    Source: AffinityNet, official `train_aff.py` and `voc12/data.py`.
    """
    if crop_size % stride:
        raise ValueError(
            f"crop_size = {crop_size}; it must be a multiple of the labels' stride, {stride}."
        )
    steps = [_stack, transforms.random_crop(crop_size), _unstack, transforms.normalize]
    if jitter or hue:
        steps.insert(0, transforms.color_jitter(jitter, hue))
    if flip:
        steps.insert(steps.index(_unstack), transforms.random_flip)
    return transforms.compose(*steps, _label(stride))


def _stack(example, rng_seed=None):
    """Put the CRF's maps behind the picture's channels, so that both are cut and turned as one."""
    parts = [tf.cast(example["image"], tf.float32), example["crf_low"], example["crf_high"]]
    return {**example, "image": tf.concat(parts, axis=-1)}


def _unstack(example, rng_seed=None):
    image, maps = example["image"][..., :3], example["image"][..., 3:]
    low, high = tf.split(maps, 2, axis=-1)
    return {**example, "image": image, "crf_low": low, "crf_high": high}


def _label(stride):
    def label(example, rng_seed=None):
        example = dict(example)
        low, high = example.pop("crf_low"), example.pop("crf_high")
        return {**example, "affinity_labels": confident_labels(low, high, stride)}

    return label


def confident_labels(low, high, stride=8):
    """Return what the CRF is sure of, at the network's output stride.

    Args:
      low, high: [H, W, P + 1] marginals with a low and a high power of the background score,
        background first; all zero outside of the picture.
      stride: pixels; H and W are multiples of it.

    Returns:
      uint8 [H / stride, W / stride]: 0 for background (with a high power, which leaves it a low
      score), the position 1..P of a class in the maps (its score beats even a low power's
      background), 255 where neither is so or no picture is.

    Source: AffinityNet, section 3.3; official `ExtractAffinityLabelInRadius` and its data set.
    """
    low, high = _pooled(low, stride), _pooled(high, stride)
    low_label = tf.cast(tf.argmax(low, axis=-1), tf.uint8)
    is_background = tf.argmax(high, axis=-1) == 0
    has_no_score = tf.reduce_max(tf.concat([low, high], -1), axis=-1) < _NO_SCORE
    ignore = tf.constant(IGNORE, tf.uint8)
    # In the official order: a pixel that only the low power calls a class can end as background.
    label = tf.where(low_label == 0, ignore, low_label)
    label = tf.where(is_background, tf.constant(0, tf.uint8), label)
    return tf.where(has_no_score, ignore, label)


def _pooled(maps, stride):
    """Return the means of square blocks."""
    height, width = maps.shape[:2]
    blocks = [height // stride, stride, width // stride, stride, -1]
    return tf.reduce_mean(tf.reshape(maps, blocks), axis=[1, 3])


# === Checks, before training ===


def _check(source, cam_run, paths):
    """See `with_crf_maps`; reads the headers of the files only."""
    missing = [p for of_name in paths.values() for p in of_name if not pathlib.Path(p).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {2 * len(source)} files of CRF marginals are missing for split "
            f"{source.split!r} (the first: {missing[0]}); first run: python -m wsss_tf.refine "
            f"--run_dir={cam_run} --split={source.split}"
        )
    pairs = zip(*paths.values())
    for i, (low, high) in enumerate(
        tqdm(pairs, "checking CRF maps", len(source), leave=False, delay=1)
    ):
        class_ids, size = png.probabilities_header(low)
        high_ids, high_size = png.probabilities_header(high)
        if size != high_size or class_ids.tolist() != high_ids.tolist():
            raise UserError(f"{low} and {high} are not of the same CAMs; infer with --overwrite.")
        size_of_image = image_size(source, i)
        if size_of_image not in (None, size):
            raise UserError(
                f"{low}: its maps are {size[0]} x {size[1]}, the image {source.ids[i]!r} is "
                f"{size_of_image[0]} x {size_of_image[1]} (height x width); infer with --overwrite."
            )


def image_size(source, position):
    """Return (h, w) of a picture as `images.decode_image` turns it, None if that is not known."""
    if source.paths is None:  # drawn: making a picture may take long, so only the first is
        return tuple(source.read(tf.constant(0))["image"].shape[:2]) if position == 0 else None
    with Image.open(source.paths[position]) as picture:
        width, height = picture.size
        orientation = picture.getexif().get(ORIENTATION_TAG, 1)
        is_turned = picture.format == "JPEG" and orientation in (5, 6, 7, 8)
    size = (width, height) if is_turned else (height, width)
    if source.max_side is None:
        return size
    return tuple(images.reduced_size(size, source.max_side).numpy())
