"""The dense CRF in TensorFlow's own operations: for a SavedModel, and for a GPU.

The lattice is that of `inference.lattice`, so are the numbers; on a CPU that one is several times
as fast.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from wsss_tf.inference.dense_crf import EPSILON

# A corner's coordinates become one int64.
_KEY_BITS = 62
# TensorFlow's sparse product takes ten times as long for a matrix of 32 columns or more.
_COLUMNS = 31


def graph_crf(energies, image, parameters):
    """Return the marginals of CRFs on one picture.

    Args:
      energies: float32 [H, W, F, K], unary energies of F CRFs of K labels on the picture, times
        their weight. H and W may be known in the graph only, F and K may not.
      image: uint8 [H, W, 3] RGB.
      parameters: `dense_crf.CrfParameters`.

    Returns:
      float32 [H, W, F, K], summing to one over K.

    Raises:
      tf.errors.InvalidArgumentError: a kernel is too narrow for so large a picture.
    """
    height, width = tf.unstack(tf.shape(energies)[:2])
    fields, labels = energies.shape[2:]
    logits = tf.reshape(-energies, [-1, fields, labels])
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    places = tf.cast(tf.reshape(tf.stack([x, y], axis=-1), [-1, 2]), tf.float32)
    kernels = []
    if parameters.gaussian_weight:
        features = places / np.float32(parameters.gaussian_sxy)
        kernels.append((_Filter(features, 2), parameters.gaussian_weight))
    if parameters.bilateral_weight:
        colours = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
        features = [
            places / np.float32(parameters.bilateral_sxy),
            colours / np.float32(parameters.bilateral_srgb),
        ]
        kernels.append((_Filter(tf.concat(features, axis=1), 5), parameters.bilateral_weight))

    def update(iteration, probs):
        probs = tf.reshape(probs, [-1, fields * labels])
        total = sum(weight * filtered(probs) for filtered, weight in kernels)
        return iteration + 1, tf.nn.softmax(logits + tf.reshape(total, [-1, fields, labels]))

    probs = tf.nn.softmax(logits)
    if kernels:
        _, probs = tf.while_loop(
            lambda iteration, probs: iteration < parameters.iterations,
            update,
            [0, probs],
            parallel_iterations=1,
        )
    return tf.reshape(probs, [height, width, fields, labels])


@functools.lru_cache(maxsize=8)
def compiled(parameters, fields, labels):
    """Return `graph_crf` as a `tf.function` of so many CRFs and labels."""
    sizes = tf.TensorSpec([None, None, fields, labels]), tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(
        lambda energies, image: graph_crf(energies, image, parameters),
        autograph=False,
        input_signature=sizes,
    )


class RefinedByCrf(tf.Module):
    """A function from pictures to probabilities, and the dense CRF behind it, in one graph.

    Args:
      compute: `segment.MultiScalePredictor`.
      parameters: `dense_crf.CrfParameters`.

    Call: as `compute`; the marginals of all K classes take the place of the probabilities.
    """

    def __init__(self, compute, parameters):
        super().__init__()
        self.compute = compute
        self.net = compute.net
        self.parameters = parameters

    def __call__(self, pictures):
        probabilities = tf.clip_by_value(self.compute(pictures), EPSILON, 1)
        energies = -self.parameters.unary_weight * tf.math.log(probabilities)

        def refine(one):
            energy, picture = one
            return graph_crf(energy[:, :, None], picture, self.parameters)[:, :, 0]

        return tf.map_fn(
            refine,
            (energies, pictures),
            fn_output_signature=tf.TensorSpec([None, None, probabilities.shape[-1]], tf.float32),
            parallel_iterations=1,
        )


class _Filter:
    """A symmetrically normalised Gaussian filter on a lattice, as `inference.lattice` has it."""

    def __init__(self, features, dimensions):
        """Put points on the lattice; `features` is float32 [N, dimensions]."""
        corners = dimensions + 1
        keys, weights = _simplices(features, dimensions)
        found, corner = tf.unique(tf.reshape(keys, [-1]))
        order = tf.argsort(found)
        found = tf.gather(found, order)
        self.count = tf.shape(found)[0]
        corner = tf.gather(tf.math.invert_permutation(order), corner)
        self.neighbours = []
        for axis in range(corners):
            # One step along an axis adds d to one coordinate and takes 1 from all others.
            step = [dimensions if axis == other else -1 for other in range(dimensions)]
            step = int(np.dot(step, _multipliers(dimensions)))
            self.neighbours.append([self._places(found, found + side * step) for side in (1, -1)])
        self.scale = np.float32(1 / (1 + 2.0**-dimensions))
        points = tf.shape(features)[0]
        rows = tf.repeat(tf.range(points), corners)
        self.indices = tf.cast(tf.stack([rows, corner], axis=1), tf.int64)
        self.size = tf.cast(tf.stack([points, self.count]), tf.int64)
        self.weights = tf.reshape(weights, [-1])
        norm = tf.math.rsqrt(self(tf.ones([points, 1])) + 1e-20)
        self.weights *= tf.repeat(norm[:, 0], corners)

    def _places(self, found, keys):
        """Return the numbers of corners by their keys, and the number of corners for no corner."""
        place = tf.minimum(tf.searchsorted(found, keys), self.count - 1)
        return tf.where(tf.equal(tf.gather(found, place), keys), place, self.count)

    def __call__(self, values):
        """Filter float32 [N, L]; L is known."""
        columns = range(0, values.shape[1], _COLUMNS)
        parts = [self._filter(values[:, start : start + _COLUMNS]) for start in columns]
        return tf.concat(parts, axis=1)

    def _filter(self, values):
        matrix = tf.SparseTensor(self.indices, self.weights, self.size)
        on_corners = tf.sparse.sparse_dense_matmul(matrix, values, adjoint_a=True)
        for one, other in self.neighbours:
            padded = tf.pad(on_corners, [[0, 1], [0, 0]])
            on_corners += 0.5 * (tf.gather(padded, one) + tf.gather(padded, other))
        return self.scale * tf.sparse.sparse_dense_matmul(matrix, on_corners)


def _multipliers(dimensions):
    bits = _KEY_BITS // dimensions
    return [1 << (bits * axis) for axis in range(dimensions)]


def _simplices(features, dimensions):
    """Return the keys, int64 [N, d + 1], and barycentric weights, float32 [N, d + 1], of points."""
    corners = dimensions + 1
    scale = [
        math.sqrt(2 / 3) * corners / math.sqrt((axis + 1) * (axis + 2))
        for axis in range(dimensions)
    ]
    features = tf.unstack(features * np.array(scale, np.float32), axis=1)
    # Onto the plane of d + 1 coordinates that sum to zero.
    total, elevated = tf.zeros_like(features[0]), []
    for axis in range(dimensions, 0, -1):
        elevated.insert(0, total - axis * features[axis - 1])
        total += features[axis - 1]
    elevated = tf.stack([total, *elevated], axis=1)
    # The nearest corner of colour 0, and the order of the distances to it.
    nearest = tf.round(elevated * np.float32(1 / corners))
    distance = elevated - nearest * corners
    rank = [0] * corners
    for axis in range(dimensions):
        for other in range(axis + 1, corners):
            nearer = tf.cast(distance[:, axis] < distance[:, other], tf.int32)
            rank[axis] += nearer
            rank[other] += 1 - nearer
    nearest = tf.cast(nearest, tf.int32)
    rank = tf.stack(rank, axis=1) + tf.reduce_sum(nearest, axis=1, keepdims=True)
    wraps = tf.cast(rank < 0, tf.int32) - tf.cast(rank > dimensions, tf.int32)
    rank += wraps * corners
    base = (nearest + wraps) * corners
    parts = (elevated - tf.cast(base, tf.float32)) * np.float32(1 / corners)
    by_rank = tf.gather(parts, tf.argsort(rank, axis=1), batch_dims=1)
    by_rank = tf.reverse(by_rank, [1])
    weights = tf.concat(
        [1 + by_rank[:, :1] - by_rank[:, -1:], by_rank[:, 1:] - by_rank[:, :-1]], axis=1
    )
    limit = (1 << (_KEY_BITS // dimensions - 1)) - 2 * corners
    fits = tf.debugging.Assert(
        tf.reduce_max(tf.abs(base)) < limit,
        ["a kernel of the dense CRF is too narrow for a picture of this size"],
    )
    with tf.control_dependencies([fits]):
        rank, base = rank[:, :dimensions], tf.identity(base[:, :dimensions])
    keys = []
    for corner in range(corners):
        wrapped = corners * tf.cast(rank > dimensions - corner, tf.int32)
        coordinates = tf.cast(base + corner - wrapped, tf.int64)
        multipliers = tf.constant(_multipliers(dimensions), tf.int64)
        keys.append(tf.reduce_sum(coordinates * multipliers, axis=1))
    return tf.stack(keys, axis=1), weights
