"""Losses on dense predictions and index masks."""

from keras import ops

IGNORE = 255


def softmax_cross_entropy(logits, mask, over_all_pixels=False):
    """Sum the softmax cross entropy over the pixels of each example, ignored ones left out.

    Args:
      logits: [B, H, W, K], any float dtype; computed in float32.
      mask: integers [B, H, W]: 0..K-1, and 255 for pixels that count nowhere.
      over_all_pixels: count ignored pixels too (as zeros, their loss stays out), as hosts that
        divide by the size of the mask do. Then the mean depends on how much is ignored.

    Returns:
      total, count: float32 [B] each. The mean over the pixels of a batch is sum(total) /
      sum(count); `training.step.global_mean` makes that the mean over the global batch.
    """
    target = ops.cast(mask, "int32")
    is_valid = target != IGNORE
    valid = ops.cast(is_valid, "float32")
    loss = ops.sparse_categorical_crossentropy(
        ops.where(is_valid, target, 0), ops.cast(logits, "float32"), from_logits=True
    )
    total = ops.sum(loss * valid, axis=(1, 2))
    counted = ops.ones_like(valid) if over_all_pixels else valid
    return total, ops.sum(counted, axis=(1, 2))
