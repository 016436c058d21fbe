"""A random walk of class scores between pixels that AffinityNet finds alike: pseudo labels."""

import collections
from typing import NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.inference.cam_crf import WALK_POWER, crf_probs, power_of_threshold
from wsss_tf.inference.dense_crf import dense_crf
from wsss_tf.inference.map_sizes import resize_maps, strongest_at
from wsss_tf.inference.walk_settings import AFFINITY_WALK
from wsss_tf.models.heads import stride_of

# What the official code has for the mean colour once it is 8 bits again.
_MEAN_COLOUR = np.floor(255 * np.float32(ops.IMAGENET_MEAN)).astype(np.uint8)


class Grid(NamedTuple):
    """The map of a picture's affinities: its size, the radius of its pairs, and its stride.

    `border` pixels are around it, left, right and below, from which and to which there are pairs
    that no walk takes: with as many as the radius each pixel of the map starts all of its own.
    """

    height: int
    width: int
    radius: int
    stride: int
    border: int = 0


class PictureGraph(NamedTuple):
    """What a walk over one picture goes by.

    Attributes:
      affinity: [O, M] of all pairs, as `ops.pairwise_affinity` has them on a map with its border.
      grid: `Grid`.
      boundary: [h, w] in [0, 1]: how much of its scores a pixel does not take along, or None.
    """

    affinity: np.ndarray
    grid: Grid
    boundary: np.ndarray | None = None

    def transition(self, affinity_power):
        """Return `transition_matrix` of its affinities."""
        height, width, radius, _, border = self.grid
        return transition_matrix(self.affinity, height, width, radius, affinity_power, border)


class PictureAffinity:
    """Affinities of neighbouring pixels, for batches of pictures of any size.

    Args:
      net: `models.affinitynet.affinity_network`, which knows its radius and its stride.

    Call: `compute(pictures uint8 [B, H, W, 3])` returns a list of B `PictureGraph` with the
    affinities of `ops.pairwise_affinity`, h = ceil(H / stride) and w = ceil(W / stride): pictures
    are padded to the right and below, with the mean colour.
    """

    settings = AFFINITY_WALK

    def __init__(self, net):
        self.net = net
        self.layer = net.get_layer("affinity")
        self.stride = stride_of(net, "features")
        self._functions = {}

    def __call__(self, pictures):
        height, width = (-(-n // self.stride) for n in pictures.shape[1:3])
        radius = self.layer.radius_on(height, width)
        if radius not in self._functions:  # a radius sets the shape of the graph, sizes do not
            self._functions[radius] = self._function(radius)
        affinity = self._functions[radius](tf.convert_to_tensor(pictures))
        grid = Grid(height, width, radius, self.stride)
        return [PictureGraph(one, grid) for one in affinity.numpy()]

    def _function(self, radius):
        @tf.function(
            autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)]
        )
        def affinity(pictures):
            spare = -tf.shape(pictures)[1:3] % self.stride
            padding = [[0, 0], [0, spare[0]], [0, spare[1]], [0, 0]]
            padded = tf.pad(ops.normalize_image(pictures), padding)
            return self.layer(self.net(padded, training=False)["features"], radius=radius)

        return affinity


def transition_matrix(affinity, height, width, radius, affinity_power=8.0, border=0):
    """Return where a walker goes in one step, from the affinities of one picture.

    Args:
      affinity: [O, M] as in `PictureGraph`.
      height, width, radius, border: as in `Grid`.
      affinity_power: beta in the paper; higher powers leave fewer ways.

    Returns:
      `scipy.sparse.csc_array` float32 [N, N], N = height * width: T[i, j] = A[i, j] ^ power over
      its sum over i, so columns sum to one. A is symmetric, 1 on the diagonal (a walker may stay)
      and 0 where there is no pair: as in the official code of AffinityNet, pixels near an edge of
      the map have fewer partners than others, and some none.

    Source: AffinityNet, equation 3.
    """
    count, margin = height * width, max(radius - 1, 0)
    left = margin - border  # where pairs begin to start
    rows, columns = height + border - margin, width - 2 * left
    # All pairs of one offset lie on one diagonal of A and, mirrored, on another.
    diagonals = collections.defaultdict(lambda: np.zeros(count, np.float32))
    diagonals[0] += 1
    for (dy, dx), values in zip(ops.pair_offsets(radius), affinity):
        bottom = min(rows, height - dy)
        first, last = max(0, -dx, left), min(width, width - dx, left + columns)
        if bottom <= 0 or last <= first:
            continue
        inside = values.reshape(rows, columns)[:bottom, first - left : last - left]
        weights = np.zeros((height, width), np.float32)
        weights[:bottom, first:last] = inside.astype(np.float64) ** affinity_power
        distance, weights = dy * width + dx, weights.ravel()
        # The place on a diagonal is the column: [i, i + distance], and [i + distance, i].
        diagonals[distance][distance:] += weights[:-distance]
        diagonals[-distance] += weights
    weights = np.stack(list(diagonals.values()))
    weights /= weights.sum(axis=0, dtype=np.float64)
    return scipy.sparse.dia_array((weights, list(diagonals)), shape=(count, count)).tocsc()


def walk(scores, transition, steps=64):
    """Return scores after a number of steps: scores * T ^ steps, with no power of T.

    Args:
      scores: [h, w, K].
      transition: as `transition_matrix` gives, N = h * w.
      steps: products; 64 is the official 2 ^ logt with logt = 6.

    Returns:
      float32 [h, w, K].

    Time and memory grow with N steps; squaring T takes N^3 and N^2 (T soon has no zeros).
    """
    height, width, classes = scores.shape
    backward = transition.T.tocsr()
    walked = np.ascontiguousarray(scores, np.float32).reshape(height * width, classes)
    for _ in range(steps):
        walked = backward @ walked
    return walked.reshape(height, width, classes)


def pooled_scores(scores, stride=8):
    """Return what the walk starts from, at the network's stride.

    Args:
      scores: float32 [K, H, W].
      stride: pixels.

    Returns:
      float32 [ceil(H / stride), ceil(W / stride), K]: means over stride x stride pixels; beyond the
      picture's right and lower edge scores are zero.
    """
    spare = [-n % stride for n in scores.shape[1:]]
    scores = np.pad(scores, [(0, 0), (0, spare[0]), (0, spare[1])])
    classes, height, width = scores.shape
    blocks = scores.reshape(classes, height // stride, stride, width // stride, stride)
    return blocks.mean(axis=(2, 4)).transpose(1, 2, 0)


def label_by_walk(
    image,
    class_ids,
    cams,
    graph,
    background_power=WALK_POWER,
    affinity_power=8.0,
    steps=64,
    crf=None,
    threshold=None,
    weigh_start=True,
    strided_cams=None,
):
    """Return the pseudo label of one picture.

    Args:
      image: uint8 [h, w, 3], which the affinities are of.
      class_ids: int [P], mask values, ascending.
      cams: [P, H, W] in [0, 1]; where `image` is reduced they are brought to it, and the walked
        scores back, bilinearly.
      graph: `PictureGraph`, as `PictureAffinity` gives it of the picture.
      background_power, affinity_power, steps: as in the functions above; SEAM's by default
        (AffinityNet's own are 16, 8 and 256).
      crf: `dense_crf.CrfParameters` to refine the walked scores with, such as RANDOM_WALK_CRF; None
        for no CRF, as is the official default.
      threshold: None has the background walk beside the classes, as AffinityNet does. A score in
        (0, 1): the classes walk alone, their scores are divided by the highest, and what stays
        below the threshold is background, as IRN does (Ahn, Cho and Kwak, CVPR 2019); then
        `background_power` counts for nothing.
      weigh_start: with a graph that has a boundary: whether scores are multiplied by 1 - boundary
        before the walk, as IRN does. Without, textures that look a little like boundaries cost an
        object nothing.
      strided_cams: [P, h, w] on the grid of the graph, from which the classes walk in place of the
        means of `cams` where they have its size and there is a threshold; None for those means.

    Returns:
      uint8 [H, W]: 0 or one of `class_ids`. (The official code carries along the classes that are
      not in the image; their scores stay zero.)

    Source: official `infer_aff.py`; with a threshold IRN's `step/make_sem_seg_labels.py`.
    """
    height, width = image.shape[:2]
    if threshold is None:
        maps = np.asarray(resize_maps(cams, (height, width)), np.float32)
        maps = crf_probs(maps, background_power).transpose(2, 0, 1)
        start = pooled_scores(maps, graph.grid.stride)
        scores = _walked(start, graph, affinity_power, steps, weigh_start)
    else:
        scores = _scaled(
            cams, (height, width), graph, affinity_power, steps, strided_cams, weigh_start
        )
        scores = _with_constant_background(scores, threshold)
    if crf is not None:
        padded = np.empty((*scores.shape[:2], 3), np.uint8)
        padded[:] = _MEAN_COLOUR
        padded[:height, :width] = image
        scores = dense_crf(scores, padded, crf)
    best = strongest_at(scores[:height, :width], cams.shape[1:])
    return np.concatenate([[0], class_ids])[best].astype(np.uint8)


def walked_maps(cams, size, graph, affinity_power, steps, strided_cams=None, weigh_start=True):
    """Return what a threshold in `label_by_walk` is of: float32 [P, H, W], the highest score 1.

    Args:
      cams, graph, affinity_power, steps, strided_cams, weigh_start: as there.
      size: (H, W) of the image.
    """
    scores = _scaled(cams, size, graph, affinity_power, steps, strided_cams, weigh_start)
    return scores[: size[0], : size[1]].transpose(2, 0, 1)


def _scaled(cams, size, graph, affinity_power, steps, strided_cams, weigh_start):
    """Return walked scores of classes alone, divided by the highest within the picture."""
    grid = graph.grid
    if strided_cams is not None and strided_cams.shape[1:] == (grid.height, grid.width):
        start = np.asarray(strided_cams, np.float32).transpose(1, 2, 0)
    else:
        start = pooled_scores(np.asarray(resize_maps(cams, size), np.float32), grid.stride)
    scores = _walked(start, graph, affinity_power, steps, weigh_start)
    return scores / max(scores[: size[0], : size[1]].max(initial=0), ops.EPSILON)


def _walked(start, graph, affinity_power, steps, weigh_start):
    """Return scores [h, w, K] on a graph's grid after the walk, at the size of whole cells."""
    grid = graph.grid
    if weigh_start and graph.boundary is not None:
        start = start * (1 - graph.boundary)[:, :, None]
    walked = walk(start, graph.transition(affinity_power), steps)
    size = (grid.stride * grid.height, grid.stride * grid.width)
    return ops.resize_bilinear(walked[None], size, align_corners=False)[0].numpy()


def _with_constant_background(scores, threshold):
    """Return walked scores [h, w, P], whose highest is 1, behind those of the background.

    A class beats the background above the threshold: (1 - strongest) ^ power, as the CRF wants it.
    """
    scores = np.minimum(scores, 1)  # beyond the picture they may be higher
    return crf_probs(scores.transpose(2, 0, 1), power_of_threshold(threshold))
