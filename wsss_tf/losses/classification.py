"""Multi-label classification losses."""

from keras import ops


def sigmoid_cross_entropy(labels, logits):
    """Mean sigmoid cross entropy over the classes ("multi-label soft margin").

    Args:
      labels: [B, C] in {0, 1}.
      logits: [B, C].

    Returns:
      float32 [B].
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "float32")
    # max(z, 0) - z y + ln(1 + e^-|z|): finite for every z.
    loss = ops.maximum(logits, 0) - logits * labels + ops.softplus(-ops.abs(logits))
    return ops.mean(loss, axis=-1)
