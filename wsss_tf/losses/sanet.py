"""SANet's categorical loss: which classes an image shows."""

from keras import ops

from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.masks import IGNORE


def class_presence(mask, num_classes):
    """Return which classes a mask shows, background included where it is a class.

    Args:
      mask: integer [B, H, W], values 0..K-1; 255 is no class.
      num_classes: K.

    Returns:
      float32 [B, K] in {0, 1}; all zero where everything is ignored.
    """
    batch = ops.shape(mask)[0]
    flat = ops.cast(ops.reshape(mask, (batch, -1)), "int32")
    row = ops.arange(batch)[:, None] * ops.ones_like(flat)
    index = ops.reshape(ops.stack([row, flat], axis=-1), (-1, 2))
    counts = ops.scatter(index, ops.ones_like(index[:, 0]), (batch, IGNORE + 1))
    return ops.cast(counts[:, :num_classes] > 0, "float32")


def categorical_loss(presence, logits, reduction="mean"):
    """Return the binary cross entropy of the classes an image shows.

    Args:
      presence: [B, K] in {0, 1}.
      logits: [B, K].
      reduction: over the classes. "sum" is the paper's equation 8 to the letter; "mean" is ours,
        since K times as much would outweigh the other losses at the paper's weight of 0.2.

    Returns:
      float32 [B].

    Raises:
      ValueError: another reduction.

    Source: SANet (Zhong et al., CVPR 2020), equation 8, whose minus sign is missing in print.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction={reduction!r}; choose 'mean' or 'sum'.")
    loss = sigmoid_cross_entropy(presence, logits)
    return loss * logits.shape[-1] if reduction == "sum" else loss
