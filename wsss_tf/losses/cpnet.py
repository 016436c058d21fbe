"""CPNet's affinity loss: compares the context prior with which positions share a class.

Letters: B batch, h w size of the prior's map, N = h * w, K classes.
"""

from keras import ops

from wsss_tf.masks import IGNORE

_CLAMP = 100.0  # of -ln(v), where PyTorch's binary cross entropy clamps it


def downsample_mask(mask, size):
    """Pick the label of each cell's first pixel: nearest resizing as PyTorch does it.

    Args:
      mask: integer [B, H, W].
      size: (h, w).

    Returns:
      int32 [B, h, w], from row floor(i H / h) and column likewise. TensorFlow's own nearest
      resizing takes the pixel at a cell's centre.
    """
    mask = ops.cast(mask, "int32")
    for axis, count in ((1, size[0]), (2, size[1])):
        index = ops.arange(count) * ops.shape(mask)[axis] // count
        mask = ops.take(mask, index, axis=axis)
    return mask


def _one_hot(mask, num_classes, masked):
    """Return float32 [B, N, K + 1], ignored pixels as class K; or, masked, [B, N, K] without."""
    mask = ops.cast(mask, "int32")
    mask = ops.where(mask == IGNORE, num_classes, mask)
    flat = ops.reshape(mask, (ops.shape(mask)[0], ops.shape(mask)[1] * ops.shape(mask)[2]))
    hot = ops.one_hot(flat, num_classes + 1, dtype="float32")
    return hot[..., :num_classes] if masked else hot


def affinity_terms(prior, mask, num_classes, masked=False):
    """Return the terms of the affinity loss, each a mean over an image's positions.

    Args:
      prior: [B, N, N] logits.
      mask: integer [B, h, w], values 0..K-1 and 255, at the prior's size.
      num_classes: K.
      masked: leave ignored pixels out, as rows and as columns, and leave rows out of a mean whose
        ratio has no denominator: of recall and precision a pixel alone in its class, of specificity
        one whose class fills the image. False is the official code: ignored pixels are a class, and
        such rows add the constant 100 without a gradient.

    Returns:
      {"unary", "recall", "specificity", "precision"}, each float32 [B].

    With probabilities P and ideal affinity A, V = A without its diagonal, for row i: recall is
    sum_j(P V) / sum_j(V), precision sum_j(P V) / sum_j(P), specificity sum_j((1 - P) (1 - A)) /
    sum_j(1 - A), each as -ln, at most 100; unary is the binary cross entropy. The numerators
    without the diagonal are the official code's; the paper keeps it.

    Memory: sums over j of M A are read off M L with the one-hot labels L [B, N, K + 1], so the
    N x N target is never made.
    Source: CPNet (Yu et al., CVPR 2020), equations 1 to 5; official `AffinityLoss`.
    """
    z = ops.cast(prior, "float32")
    hot = _one_hot(mask, num_classes, masked)
    counts = ops.sum(hot, axis=1, keepdims=True)  # [B, 1, K + 1]
    is_valid = ops.sum(hot, axis=-1)  # [B, N]
    valid = ops.sum(is_valid, axis=-1, keepdims=True)  # [B, 1]

    def own(per_class):  # [B, N, K + 1]: of each position's own class
        return ops.sum(per_class * hot, axis=-1)

    # -ln of P where A is 1, of 1 - P elsewhere: softplus(z) - z A.
    softplus = ops.matmul(ops.softplus(z), is_valid[..., None])[..., 0]
    unary = is_valid * (softplus - own(ops.matmul(z, hot)))

    p = ops.sigmoid(z)
    by_class = ops.matmul(p, hot)
    of_class = own(counts)
    others = of_class - 1
    # Exactly zero for a pixel alone in its class, also where products are rounded (TF32).
    itself = ops.diagonal(p, axis1=1, axis2=2)
    true_positive = ops.where(others > 0, own(by_class) - itself, 0.0)
    positive = is_valid * ops.sum(by_class, axis=-1)
    negative = valid - of_class
    outside = ops.sum((counts - by_class) * (1 - hot), axis=-1)
    true_negative = ops.where(negative > 0, outside, 0.0)

    def mean(row_terms, counted):
        total = ops.sum(ops.where(counted, row_terms, 0.0), axis=-1)
        return total / ops.maximum(ops.sum(ops.cast(counted, "float32"), axis=-1), 1.0)

    has_others = has_negative = is_valid > 0
    if masked:
        has_others, has_negative = has_others & (others > 0), has_negative & (negative > 0)
    return {
        "unary": ops.sum(unary, axis=-1) / ops.maximum(valid[:, 0] ** 2, 1.0),
        "recall": mean(_negative_log(true_positive, others), has_others),
        "specificity": mean(_negative_log(true_negative, negative), has_negative),
        "precision": mean(_negative_log(true_positive, positive), has_others),
    }


def affinity_loss(prior, mask, num_classes, unary_weight=1.0, global_weight=1.0, masked=False):
    """Return the affinity loss of each image, float32 [B].

    Args:
      prior, mask, num_classes, masked: as in `affinity_terms`.
      unary_weight, global_weight: of the unary term, and of the sum of the other three; 1 and 1 in
        the paper.
    """
    terms = affinity_terms(prior, mask, num_classes, masked)
    over_rows = terms["recall"] + terms["specificity"] + terms["precision"]
    return unary_weight * terms["unary"] + global_weight * over_rows


def _negative_log(numerator, denominator):
    """-ln(numerator / denominator), at most 100, and there without gradient."""
    ratio = numerator / ops.where(denominator > 0, denominator, 1.0)
    # Twice `where`: the gradient of ln(0) would be infinite times zero.
    positive = ratio > 0
    value = -ops.log(ops.where(positive, ratio, 1.0))
    return ops.where(positive, ops.minimum(value, _CLAMP), _CLAMP)
