"""SEC's losses: seeding, expansion and constrain-to-boundary.

Letters as in `wsss_tf.ops`; each term is [B], to be averaged over the global batch. All of them
work on the clipped softmax of the K = C + 1 scores on the network's own grid, h x w.
"""

import keras
from keras import ops

from wsss_tf.ops import weighted_rank_pooling

MIN_PROB = 1e-4


def clipped_softmax(logits, min_prob=MIN_PROB):
    """Return class probabilities that never reach zero.

    Args:
      logits: [..., K].
      min_prob: added to every probability before they are scaled to sum to one again.

    Returns:
      float32 (float64 for such logits) [..., K], in [min_prob, 1 + min_prob] / (1 + K min_prob).
      The addition lets gradients through everywhere, which clipping would not.

    Source: SEC, official softmax layer.
    """
    probs = ops.softmax(_float(logits), axis=-1) + min_prob
    return probs / ops.sum(probs, axis=-1, keepdims=True)


def seeding(probs, cues):
    """Cross entropy at the cues, averaged over an image's cues of all classes, background included.

    Args:
      probs: [B, h, w, K] clipped probabilities.
      cues: [B, h, w, K], 1 at the pixels that are a cue for the class, else 0.

    Returns:
      [B]; 0 for an image without any cue, for which the official code divides by zero.

    Source: SEC, equation 2. The paper sums over the image's labels; the official code, followed
    here, over the cues of the background too.
    """
    cues = _float(cues)
    total = -ops.sum(cues * ops.log(probs), axis=(1, 2, 3))
    return total / ops.maximum(ops.sum(cues, axis=(1, 2, 3)), 1.0)


def expansion(
    probs,
    labels,
    present_decay=0.996,
    absent_decay=0.0,
    background_decay=0.999,
):
    """Make the pooled score of every present class large, and of every absent one small.

    Args:
      probs: [B, h, w, K] clipped probabilities, background first.
      labels: [B, C] multi-hot over the foreground classes; background counts as present.
      present_decay, absent_decay, background_decay: decays of `ops.weighted_rank_pooling`, each a
        number in [0, 1]: 0 pools by maximum, 1 by average.

    Returns:
      [B]: the sum of the mean of -log(score) over the present foreground classes, the mean of
      -log(1 - score) over the absent ones, and -log(score) of the background. A mean over no class
      is 0, where the official code divides by zero.

    Source: SEC, equations 3 and 4; decays of the paper's section 4.1.
    """
    labels = ops.cast(labels, probs.dtype)
    foreground = probs[..., 1:]
    present = weighted_rank_pooling(foreground, present_decay)
    absent = weighted_rank_pooling(foreground, absent_decay)
    background = weighted_rank_pooling(probs[..., :1], background_decay)[:, 0]
    return (
        _mean_where(labels, -ops.log(present))
        + _mean_where(1 - labels, -ops.log(1 - absent))
        - ops.log(background)
    )


def constrain(probs, crf, min_prob=MIN_PROB):
    """Divergence of the network from its own scores after a dense CRF: KL(CRF || network).

    Args:
      probs: [B, h, w, K] clipped probabilities.
      crf: [B, h, w, K] marginals of the CRF, a constant here; those below `min_prob` are raised to
        it before they are scaled to sum to one again.
      min_prob: see `crf`.

    Returns:
      [B], means over the h w pixels.

    Source: SEC, equation 5; that no gradient flows through the CRF is the official code's last
    revision, the paper differentiates it.
    """
    target = ops.maximum(ops.stop_gradient(_float(crf)), min_prob)
    target = target / ops.sum(target, axis=-1, keepdims=True)
    divergence = ops.sum(target * (ops.log(target) - ops.log(probs)), axis=-1)
    return ops.mean(divergence, axis=(1, 2))


def _mean_where(chosen, values):
    """Return the mean of `values` over the last axis where `chosen` is 1; 0 where nothing is."""
    return ops.sum(chosen * values, axis=-1) / ops.maximum(ops.sum(chosen, axis=-1), 1.0)


def _float(x):
    """Return half-precision numbers and integers as float32, and float64 as it is."""
    x = ops.convert_to_tensor(x)
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
