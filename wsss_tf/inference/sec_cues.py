"""SEC's localisation cues: from class scores and saliency to labelled pixels, and their files.

Cues of one image are an index map, uint8 [h, w] on the segmentation network's grid: 0 background, a
class's mask value, or 255 for no cue. CUES/<id>.png holds it as an index PNG, which training reads
inside its graph and any viewer shows. The published format, rows of (class, row, column), is read
and written as CUES/<id>.npz.
"""

import keras
import numpy as np
import scipy.ndimage
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.npz import read_npz

NO_CUE = 255

# === From maps to cues ===


def foreground_masks(scores, share=0.2):
    """Return where class scores exceed a share of their maximum.

    Args:
      scores: [h, w, C], any sign; a class that is negative everywhere gets no pixel.
      share: in [0, 1].

    Returns:
      bool [h, w, C].

    Source: SEC, section 4.1; the maximum is over the pixels of one class.
    """
    return scores > share * scores.max(axis=(0, 1))


def saliency(gradient):
    """Return the saliency [h, w] of gradients [h, w, D]: median-filtered strongest channel.

    The median is of 3 x 3 pixels; edge pixels are repeated outside.
    """
    return scipy.ndimage.median_filter(np.abs(gradient).max(axis=-1), size=3, mode="reflect")


def background_mask(scores, share=0.1):
    """Return where a map [h, w] is below its own quantile at a given share.

    Returns:
      bool [h, w], at most floor(share h w) pixels: fewer where values are equal.
    """
    ranked = np.sort(scores, axis=None)
    return scores < ranked[min(int(share * ranked.size), ranked.size - 1)]


def merge(background, class_ids, masks):
    """Return the index map of overlapping masks, each pixel with one label at most.

    Args:
      background: bool [h, w].
      class_ids: ints [P], mask values of the classes.
      masks: bool [h, w, P].

    Returns:
      uint8 [h, w]: foreground hides background, and of classes the smaller mask hides the larger
      (of equal ones the later class the earlier).

    Source: our reading of the published cues; the rule itself is not published.
    """
    index = np.where(background, 0, NO_CUE).astype(np.uint8)
    sizes = masks.sum(axis=(0, 1))
    for i in sorted(range(len(class_ids)), key=lambda i: -sizes[i]):
        index[masks[..., i]] = class_ids[i]
    return index


# === Files ===


def to_rows(index):
    """Return the cues of an index map as int32 [3, N], rows class, row and column, sorted."""
    rows, columns = np.nonzero(index != NO_CUE)
    cues = np.stack([index[rows, columns].astype(np.int32), rows, columns]).astype(np.int32)
    return cues[:, np.lexsort(cues[::-1])]


def to_index(cues, size):
    """Return the index map, uint8 [h, w], of cues int [3, N] as in the published file.

    Raises:
      ValueError: a pixel outside of `size`, or with two classes; a class out of 0..254.
    """
    cues = np.asarray(cues, np.int64)
    classes, rows, columns = cues
    if cues.size and not (
        cues.min() >= 0
        and classes.max() < NO_CUE
        and rows.max() < size[0]
        and columns.max() < size[1]
    ):
        raise ValueError(
            f"cues up to class, row, column {cues.max(axis=1).tolist()} do not lie on a grid of "
            f"{size[0]} x {size[1]}."
        )
    index = np.full(size, NO_CUE, np.uint8)
    index[rows, columns] = classes
    if (index[rows, columns] != classes).any():
        raise ValueError("a pixel is a cue for two classes.")
    return index


def save_rows(path, index):
    """Write an index map to an .npz of `labels` int32 [L] (1 and above) and `cues` int32 [3, N]."""
    cues = to_rows(index)
    labels = np.unique(cues[0])
    with run_folder.atomic_path(path) as temporary:
        np.savez(temporary, labels=labels[labels > 0].astype(np.int32), cues=cues)


def load_rows(path):
    """Return the cues, int32 [3, N], of an .npz such as `save_rows` writes.

    Raises:
      UserError: it is no such file.
    """
    try:
        cues = read_npz(path, ["cues"])["cues"].astype(np.int32)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as cues: {error}") from error
    if cues.ndim != 2 or len(cues) != 3:
        raise UserError(f"{path}: cues have the shape {cues.shape}, not (3, N).")
    return cues


# === From networks to maps ===


class LocalizationMaps(tf.Module):
    """The maps that cues are made of, as one compiled function.

    Args:
      foreground: `models.sec.foreground_network`, trained.
      background: `models.sec.background_network`, trained.
      layer: name of the layer of `background` that the gradient is taken at; None for conv4_1
        before its ReLU, as in the paper, where there is one, and for the backbone's second stage
        elsewhere.

    Call: `module(images)` with `images` [B, H, W, 3] as `ops.normalize_image` gives; returns
    {"heat": [B, h, w, C], "gradient": [B, h', w', D]}: class scores, and the gradient of the sum of
    all class logits with respect to that layer.

    Raises:
      UserError: a network without the outputs of these two, or a layer that is not there or that
        some of the picture's ways to the logits lead past.

    Source: SEC, section 4.1; that all classes are summed, present or not, is the official code's.
    """

    def __init__(self, foreground, background, layer=None):
        super().__init__()
        if "heat" not in foreground.output:
            raise UserError(
                f"the foreground network has no output 'heat', only {sorted(foreground.output)}; "
                "train it with gin/sec_foreground.gin."
            )
        names = {x.name for x in background.layers}
        if "fc8_bg" not in names:
            raise UserError(
                "the background network has no layer fc8_bg; train it with gin/sec_background.gin."
            )
        if layer is None and "conv4_1_relu" in names:
            features = background.get_layer("conv4_1_relu").input
        elif layer is None:
            features = background.output["stage2"]
        elif layer in names:
            features = background.get_layer(layer).output
        else:
            raise UserError(f"the background network has no layer {layer!r}.")
        self.foreground = foreground
        self.lower = keras.Model(background.input, features)
        try:
            self.upper = keras.Model(features, background.output["class_logits"])
        except ValueError as error:
            raise UserError(
                f"not every way from the picture to the class logits leads through {layer!r}; name "
                "a layer where that is so, such as the last of a block."
            ) from error

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3])])
    def __call__(self, images):
        features = self.lower(images, training=False)
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(self.upper(features, training=False))
        return {
            "heat": self.foreground(images, training=False)["heat"],
            "gradient": tape.gradient(total, features),
        }


def cues_of_maps(heat, gradient, labels, foreground_share=0.2, background_share=0.1, size=None):
    """Return the index map of one image from the two networks' maps.

    Args:
      heat: [h, w, C] class scores; gradient: [h', w', D].
      labels: [C] multi-hot; only these classes get cues.
      foreground_share, background_share: as in `foreground_masks` and `background_mask`.
      size: (height, width) of the grid of the segmentation network; None takes that of `heat`. Both
        maps (of the gradient its saliency) are brought to it, with aligned corners.
    """
    size = heat.shape[:2] if size is None else tuple(size)
    present = np.flatnonzero(labels)
    masks = foreground_masks(_on_grid(heat, size)[..., present], foreground_share)
    strength = _on_grid(saliency(gradient)[..., None], size)[..., 0]
    return merge(background_mask(strength, background_share), present + 1, masks)


def cues_of_cams(class_ids, cams, size, foreground_share=0.2, background_threshold=0.05):
    """Return the index map of one image from the score maps of another method.

    Args:
      class_ids: int [P]; cams: [P, H, W] in [0, 1], as `run_folder.load_cams` gives them.
      size: (h, w) of the grid; the maps are sampled with aligned corners.
      foreground_share: as in `foreground_masks`.
      background_threshold: a pixel whose scores are all below it is background.
    """
    if not len(class_ids):
        return np.full(size, NO_CUE, np.uint8)
    scores = _on_grid(np.transpose(cams.astype(np.float32), (1, 2, 0)), size)
    masks = foreground_masks(scores, foreground_share)
    return merge(scores.max(axis=-1) < background_threshold, class_ids, masks)


def _on_grid(maps, size):
    """Return maps [h, w, D] on another grid; on their own they stay as they are, without a copy."""
    if maps.shape[:2] == tuple(size):
        return maps
    return ops.resize_bilinear(maps[None], size, align_corners=True).numpy()[0]
