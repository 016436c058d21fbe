"""Losses on dense predictions and index masks."""

import math

from keras import ops

from wsss_tf.masks import IGNORE


def softmax_cross_entropy(
    logits, mask, over_all_pixels=False, hard_probability=None, hard_share=1 / 16
):
    """Sum the softmax cross entropy over the pixels of each example, ignored ones left out.

    Args:
      logits: [B, H, W, K], any float dtype; computed in float32.
      mask: integers [B, H, W]: 0..K-1, and 255 for pixels that count nowhere.
      over_all_pixels: count ignored pixels too (as zeros, their loss stays out), as hosts that
        divide by the size of the mask do. Then the mean depends on how much is ignored.
      hard_probability: count only the pixels that `hard_pixels` chooses; None counts all.
      hard_share: for `hard_pixels`.

    Returns:
      total, count: float32 [B] each. The mean over the pixels of a batch is sum(total) /
      sum(count); `training.step.global_mean` makes that the mean over the global batch.

    Raises:
      ValueError: both `over_all_pixels` and `hard_probability`, which exclude each other.
    """
    if over_all_pixels and hard_probability is not None:
        raise ValueError("over_all_pixels and hard_probability exclude each other.")
    target = ops.cast(mask, "int32")
    is_valid = target != IGNORE
    loss = ops.sparse_categorical_crossentropy(
        ops.where(is_valid, target, 0), ops.cast(logits, "float32"), from_logits=True
    )
    if hard_probability is not None:
        is_valid = hard_pixels(loss, is_valid, hard_probability, hard_share)
    valid = ops.cast(is_valid, "float32")
    total = ops.sum(loss * valid, axis=(1, 2))
    counted = ops.ones_like(valid) if over_all_pixels else valid
    return total, ops.sum(counted, axis=(1, 2))


def hard_pixels(loss, is_valid, probability, share):
    """Choose the pixels that a network is unsure of: those of online hard example mining.

    Args:
      loss: float32 [B, H, W], cross entropy in natural logarithms.
      is_valid: bool [B, H, W], which pixels may be chosen.
      probability: in (0, 1]: pixels whose true class has at most this probability are hard.
      share: in [0, 1]: of an image's pixels so many at least are chosen, the hardest ones, as far
        as there are valid pixels.

    Returns:
      bool [B, H, W]; no gradient flows through it.

    Source: bootstrapped cross entropy (Wu et al., "Bridging Category-level and Instance-level
    Semantic Image Segmentation", 2016). Implementations choose the hardest pixels of what one GPU
    has at a time; here it is those of each image, so that the number of devices does not matter.
    """
    if not 0 < probability <= 1 or not 0 <= share <= 1:
        raise ValueError(f"hard pixels of probability {probability}, at least a share of {share}.")
    loss = ops.stop_gradient(loss)
    batch = ops.shape(loss)[0]
    # Pixels that are not valid come last.
    flat = ops.reshape(ops.where(is_valid, loss, -1.0), (batch, -1))
    least = ops.cast(ops.ceil(share * ops.cast(ops.shape(flat)[1], "float32")), "int32")
    valid = ops.sum(ops.cast(flat >= 0, "int32"), axis=1, keepdims=True)
    last = ops.maximum(ops.minimum(least, valid) - 1, 0)
    hardest_first = -ops.sort(-flat, axis=1)
    bound = ops.take_along_axis(hardest_first, last, axis=1)
    if share == 0:
        bound = ops.full_like(bound, math.inf)
    bound = ops.minimum(bound, -math.log(probability))
    return is_valid & (loss >= bound[..., None])
