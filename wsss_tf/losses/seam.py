"""SEAM's losses: equivariance (ER), cross equivariance (ECR) and minimum pooling.

Letters as in `wsss_tf.ops`; each function returns [B], to be averaged over the global batch.
"""

from keras import ops

from wsss_tf.ops import suppress_non_maxima, with_background


def minimum_pooling(scores):
    """Push the weakest quarter of the strongest-class map down to zero.

    Args:
      scores: [B, H, W, C] foreground scores, already masked by the image labels.

    Returns:
      [B]: of the per-pixel maximum over classes, the mean of the floor(H W / 4) smallest values,
      negative ones as zero.

    Source: official `adaptive_min_pooling_loss`; not in the paper.
    """
    strongest = ops.max(scores, axis=-1)
    flat = ops.reshape(strongest, (ops.shape(strongest)[0], -1))
    k = ops.shape(flat)[1] // 4
    smallest = -ops.top_k(-flat, k, sorted=False)[0]
    return ops.sum(ops.relu(smallest), axis=-1) / ops.cast(k, "float32")


def equivariance(norm_cam1, norm_cam2):
    """ER: mean absolute difference of the two branches' foreground maps.

    Args:
      norm_cam1, norm_cam2: [B, h, w, K] normalised, label-masked maps of the two branches on the
        same grid. Both receive gradient.

    Returns:
      [B].

    Source: SEAM, equation 5.
    """
    return ops.mean(ops.abs(norm_cam1[..., 1:] - norm_cam2[..., 1:]), axis=(1, 2, 3))


def cross_equivariance(norm_cam, norm_cam_rv, hard_pixel_ratio=0.2):
    """One half of ECR: one branch's refined map against the other branch's CAM.

    Args:
      norm_cam: [B, h, w, K] normalised, label-masked CAM; made the target here (background put
        in, non-maxima suppressed, no gradient).
      norm_cam_rv: [B, h, w, K] normalised, label-masked PCM output of the other branch.
      hard_pixel_ratio: share of the h w K differences, largest first, that is averaged; 1 for all.

    Returns:
      [B].

    Source: SEAM, equation 6 and section 4.2 (online hard example mining); the stopped gradient,
    the suppression and the background channel are the official implementation's.
    """
    target = ops.stop_gradient(suppress_non_maxima(with_background(norm_cam)))
    difference = ops.abs(target - norm_cam_rv)
    flat = ops.reshape(difference, (ops.shape(difference)[0], -1))
    if hard_pixel_ratio >= 1:
        return ops.mean(flat, axis=-1)
    count = ops.shape(flat)[1]
    if isinstance(count, int):
        k = int(count * hard_pixel_ratio)
    else:
        k = ops.cast(ops.cast(count, "float64") * hard_pixel_ratio, "int32")
    return ops.mean(ops.top_k(flat, k, sorted=False)[0], axis=-1)
