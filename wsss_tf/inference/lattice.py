"""Mean field of a dense CRF on permutohedral lattices, compiled by numba. No TensorFlow.

A Gaussian filter over N points of d features splats values onto the corners of a lattice, blurs
them there and slices the result back. Corners are few, one for some tens of pixels, so that most
of the time goes into the pixels: one pass slices from both kernels, takes the softmax and splats
for the next iteration, with eight labels in a register.

Source: Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice",
Eurographics 2010, in the form that pydensecrf has it: the same scaling, blur and normalisation.
"""

import functools
import math
from typing import NamedTuple

import numba
import numpy as np

from wsss_tf.compiled import compiled
from wsss_tf.inference.lanes import (
    WIDTH,
    add,
    divide,
    exp_of_difference,
    fill,
    load,
    max_over_lanes,
    maximum,
    scaled_sum,
    store,
    sum_over_lanes,
)

_HALF = WIDTH // 2
# Pixels of which one step is done before the next: long chains of operations on one pixel then
# overlap with those of others.
_CHUNK = 64
# Three coordinates of a corner share an int64.
_BITS = 21
_BIAS = 1 << (_BITS - 1)
_COLUMNS = 3
# The logit of a lane without a label: far below any other, and far from overflow, which is slow.
_NO_LABEL = -1e30


_compiled = functools.partial(compiled, fastmath={"contract", "nsz"})


class Lattice(NamedTuple):
    """N points on a lattice, corners numbered from 0 to M - 1.

    Attributes:
      corners: uint32 [N * (d + 1)], those of the simplex around each point.
      weights: float32 [N * (d + 1)], barycentric, times what makes the filter symmetrically
        normalised: 1 / sqrt of the filtered ones.
      neighbours: uint32 [d + 1, M, 2], of each corner along each axis; M where there is none.
    """

    corners: np.ndarray
    weights: np.ndarray
    neighbours: np.ndarray


_NO_LATTICE = Lattice(
    np.empty(0, np.uint32), np.empty(0, np.float32), np.empty((0, 0, 2), np.uint32)
)


@functools.lru_cache(maxsize=1)  # pictures of one data set often have one size
def plane_lattice(height, width, sxy):
    """Return the `Lattice` of a picture's pixels, in raster order, by their place.

    Args:
      height, width: of the picture, pixels.
      sxy: standard deviation of the Gaussian kernel, pixels.

    Raises:
      ValueError: the kernel is too narrow for the picture: below a 300,000th of its side.
    """
    return _lattice(_places(height, width) / np.float32(sxy), _build_2)


def colour_lattice(image, sxy, srgb):
    """Return the `Lattice` of a picture's pixels by their place and colour.

    Args:
      image: uint8 [h, w, 3].
      sxy: standard deviation in the plane, pixels.
      srgb: and in colour, of 0..255.

    Raises:
      ValueError: as `plane_lattice`.
    """
    features = np.empty((image.shape[0] * image.shape[1], 5), np.float32)
    features[:, :2] = _places(*image.shape[:2]) / np.float32(sxy)
    features[:, 2:] = image.reshape(-1, 3) / np.float32(srgb)
    return _lattice(features, _build_5)


def mean_field(energies, lattices, weights, iterations):
    """Return marginals after synchronous mean-field updates with Potts compatibility.

    Args:
      energies: list of float32 [N, K], unary energies of the same points: each is a field by
        itself, and all share the work on the lattices.
      lattices: (plane `Lattice` or None, colour `Lattice` or None).
      weights: of the two kernels.
      iterations: updates; 0 gives the softmax of the negated energies.

    Returns:
      list of float32 [N, K].
    """
    points, labels = energies[0].shape
    halves, field, row, parts = _layout(len(energies), labels)
    logits = np.full((points, row), _NO_LABEL, np.float32)
    for number, of_labels, of_lanes in parts:
        np.negative(energies[number][:, of_labels], out=logits[:, of_lanes])
    plane, colour = (_NO_LATTICE if lattice is None else lattice for lattice in lattices)
    plane_weight, colour_weight = (np.float32(weight) for weight in weights)
    _mean_field(
        logits.reshape(-1), row, field, halves, iterations, plane, plane_weight, colour,
        colour_weight,
    )  # fmt: skip
    marginals = [np.empty((points, labels), np.float32) for _ in energies]
    for number, of_labels, of_lanes in parts:
        marginals[number][:, of_labels] = logits[:, of_lanes]
    return marginals


def _layout(fields, labels):
    """Say where the labels of some fields are in a pixel's row.

    Returns:
      Whether two fields share each register, a half for each: for 12 labels they then take three
      registers, where registers of their own would be four. Lanes of a field, or of two that
      share. Lanes of a row. And (field, slice of its labels, slice of lanes) of each part.
    """
    halves = fields > 1
    share = _HALF if halves else WIDTH
    together = WIDTH // share
    field = -(-labels // share) * WIDTH
    parts = []
    for number in range(fields):
        start = number // together * field + number % together * share
        for label in range(0, labels, share):
            stop = min(labels, label + share)
            parts.append((number, slice(label, stop), slice(start, start + stop - label)))
            start += WIDTH
    return halves, field, -(-fields // together) * field, parts


def _places(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _lattice(features, build):
    dimensions = features.shape[1]
    scale = [
        math.sqrt(2 / 3) * (dimensions + 1) / math.sqrt((axis + 1) * (axis + 2))
        for axis in range(dimensions)
    ]
    scaled = features * np.array(scale, np.float32)
    if dimensions * scaled.max(axis=0).sum() > _BIAS - 2 * (dimensions + 1):
        raise ValueError("a kernel of the dense CRF is too narrow for a picture of this size.")
    corners, weights, neighbours = build(scaled)
    _normalise(corners, weights, neighbours)
    return Lattice(corners.reshape(-1), weights.reshape(-1), neighbours)


def _builder(dimensions):
    """Return the compiled function that puts points on a lattice of so many dimensions."""
    count_of_corners = dimensions + 1

    @_compiled
    def build(features):
        points = len(features)
        corners = np.empty((points, count_of_corners), np.uint32)
        weights = np.empty((points, count_of_corners), np.float32)
        capacity = 1 << 13
        high, low = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        table = np.full(2 * capacity, -1, np.int32)
        count = 0
        elevated = np.empty(count_of_corners, np.float32)
        base = np.empty(count_of_corners, np.int32)
        rank = np.empty(count_of_corners, np.int32)
        barycentric = np.empty(count_of_corners + 1, np.float32)
        last_base = np.zeros(count_of_corners, np.int32)
        last_rank = np.full(count_of_corners, -1, np.int32)
        for point in range(points):
            # Onto the plane of d + 1 coordinates that sum to zero.
            total = np.float32(0)
            for axis in range(dimensions, 0, -1):
                feature = features[point, axis - 1]
                elevated[axis] = total - np.float32(axis) * feature
                total += feature
            elevated[0] = total
            # The nearest corner of colour 0, and the order of the distances to it.
            excess = 0
            for axis in range(count_of_corners):
                nearest = np.int32(np.rint(elevated[axis] * np.float32(1 / count_of_corners)))
                base[axis] = nearest * count_of_corners
                excess += nearest
                rank[axis] = 0
            for axis in range(dimensions):
                distance = elevated[axis] - base[axis]
                for other in range(axis + 1, count_of_corners):
                    # Sums instead of branches, which would be guessed wrong every other time.
                    nearer = np.int32(distance < elevated[other] - base[other])
                    rank[axis] += nearer
                    rank[other] += np.int32(1) - nearer
            same = True
            for axis in range(count_of_corners):
                rank[axis] += excess
                wraps = np.int32(rank[axis] < 0) - np.int32(rank[axis] > dimensions)
                rank[axis] += wraps * count_of_corners
                base[axis] += wraps * count_of_corners
                same &= rank[axis] == last_rank[axis] and base[axis] == last_base[axis]
                last_rank[axis], last_base[axis] = rank[axis], base[axis]
            barycentric[:] = 0
            for axis in range(count_of_corners):
                part = (elevated[axis] - base[axis]) * np.float32(1 / count_of_corners)
                barycentric[dimensions - rank[axis]] += part
                barycentric[count_of_corners - rank[axis]] -= part
            barycentric[0] += np.float32(1) + barycentric[count_of_corners]
            for corner in range(count_of_corners):
                weights[point, corner] = barycentric[corner]
            if same:  # as in most pairs of neighbouring pixels
                for corner in range(count_of_corners):
                    corners[point, corner] = corners[point - 1, corner]
                continue
            for corner in range(count_of_corners):
                key_high, key_low = np.int64(0), np.int64(0)
                for axis in range(dimensions):
                    wrapped = rank[axis] > dimensions - corner
                    key = np.int64(base[axis] + corner - wrapped * count_of_corners + _BIAS)
                    if axis < _COLUMNS:
                        key_low = (key_low << _BITS) | key
                    else:
                        key_high = (key_high << _BITS) | key
                if count == capacity:
                    capacity *= 2
                    high, low = _longer(high, count), _longer(low, count)
                    table = np.full(2 * capacity, -1, np.int32)
                    for known in range(count):
                        table[_slot(table, high, low, high[known], low[known])] = known
                slot = _slot(table, high, low, key_high, key_low)
                if table[slot] < 0:
                    table[slot] = count
                    high[count], low[count] = key_high, key_low
                    count += 1
                corners[point, corner] = table[slot]
        neighbours = np.empty((count_of_corners, count, 2), np.uint32)
        for direction in range(count_of_corners):
            # One step along an axis adds d to one coordinate and takes 1 from all others.
            step_high, step_low = np.int64(0), np.int64(0)
            for axis in range(dimensions):
                step = np.int64(dimensions if axis == direction else -1)
                if axis < _COLUMNS:
                    step_low = step_low * (1 << _BITS) + step
                else:
                    step_high = step_high * (1 << _BITS) + step
            for corner in range(count):
                for side in range(2):
                    sign = 1 - 2 * side
                    key_high = high[corner] + sign * step_high
                    key_low = low[corner] + sign * step_low
                    known = table[_slot(table, high, low, key_high, key_low)]
                    neighbours[direction, corner, side] = count if known < 0 else known
        return corners, weights, neighbours

    return build


@numba.njit(inline="always")
def _slot(table, high, low, key_high, key_low):
    """Return where a key is in a hash table with open addressing, or where it would be."""
    mixed = np.uint64(key_low) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(key_high) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(32)
    last = np.uint64(table.size - 1)
    slot = mixed & last
    while table[slot] >= 0:
        known = table[slot]
        if low[known] == key_low and high[known] == key_high:
            break
        slot = (slot + np.uint64(1)) & last
    return slot


@numba.njit(inline="always")
def _longer(array, count):
    longer = np.empty(2 * count, array.dtype)
    longer[:count] = array
    return longer


_build_2 = _builder(2)
_build_5 = _builder(5)


@numba.njit(inline="always")
def _scale(neighbours):
    """Return what a blurred value is multiplied by, as each axis blurs with (1/2, 1, 1/2)."""
    return np.float32(1 / (1 + 2.0 ** -(neighbours.shape[0] - 1)))


@_compiled
def _normalise(corners, weights, neighbours):
    """Multiply the weights by 1 / sqrt of the filtered ones."""
    points, count_of_corners = corners.shape
    count = neighbours.shape[1]
    values = np.zeros(count + 1, np.float32)
    blurred = np.zeros(count + 1, np.float32)
    for point in range(points):
        for corner in range(count_of_corners):
            values[corners[point, corner]] += weights[point, corner]
    for direction in range(count_of_corners):
        for corner in range(count):
            one, other = neighbours[direction, corner]
            blurred[corner] = values[corner] + np.float32(0.5) * (values[one] + values[other])
        values, blurred = blurred, values
    scale = _scale(neighbours)
    for point in range(points):
        total = np.float32(0)
        for corner in range(count_of_corners):
            total += weights[point, corner] * values[corners[point, corner]]
        factor = np.float32(1) / np.sqrt(scale * total + np.float32(1e-20))
        for corner in range(count_of_corners):
            weights[point, corner] *= factor


@numba.njit(inline="always")
def _slice(lattice, values, point, corners, row, lane):
    """Sum the values at a point's corners."""
    total = fill(np.float32(0))
    for at in range(point * corners, (point + 1) * corners):
        there = load(values, np.intp(lattice.corners[at]) * row + lane)
        total = scaled_sum(lattice.weights[at], there, total)
    return total


@numba.njit(inline="always")
def _splat(lattice, values, point, corners, row, lane, lanes):
    """Add a point's values to its corners."""
    for at in range(point * corners, (point + 1) * corners):
        place = np.intp(lattice.corners[at]) * row + lane
        store(values, place, scaled_sum(lattice.weights[at], lanes, load(values, place)))


@numba.njit(inline="always")
def _softmax(values, start, stop, halves):
    top = load(values, start)
    for lane in range(start + WIDTH, stop, WIDTH):
        top = maximum(top, load(values, lane))
    top = max_over_lanes(top, halves)
    total = fill(np.float32(0))
    for lane in range(start, stop, WIDTH):
        power = exp_of_difference(load(values, lane), top)
        total = add(total, power)
        store(values, lane, power)
    total = sum_over_lanes(total, halves)
    for lane in range(start, stop, WIDTH):
        store(values, lane, divide(load(values, lane), total))


@numba.njit(inline="always")
def _blur(values, blurred, neighbours, row):
    """Blur along each axis in turn; return the result and the other array."""
    half = np.float32(0.5)
    for direction in range(neighbours.shape[0]):
        for corner in range(neighbours.shape[1]):
            one = np.intp(neighbours[direction, corner, 0]) * row
            other = np.intp(neighbours[direction, corner, 1]) * row
            for lane in range(0, row, WIDTH):
                at = corner * row + lane
                both = add(load(values, one + lane), load(values, other + lane))
                store(blurred, at, scaled_sum(half, both, load(values, at)))
        values, blurred = blurred, values
    return values, blurred


@_compiled
def _mean_field(
    logits, row, field, halves, iterations, plane, plane_weight, colour, colour_weight
):  # fmt: skip
    """Put marginals in the place of logits, [N * row]."""
    points = logits.size // row
    plane_weight *= _scale(plane.neighbours)
    colour_weight *= _scale(colour.neighbours)
    # With a row of zeros at the end, the neighbour that is not there.
    on_plane = np.zeros((plane.neighbours.shape[1] + 1) * row, np.float32)
    in_colour = np.zeros((colour.neighbours.shape[1] + 1) * row, np.float32)
    new_on_plane, new_in_colour = np.zeros_like(on_plane), np.zeros_like(in_colour)
    probs = np.zeros(_CHUNK * row, np.float32)
    for iteration in range(iterations + 1):
        if iteration:
            on_plane, new_on_plane = _blur(new_on_plane, on_plane, plane.neighbours, row)
            in_colour, new_in_colour = _blur(new_in_colour, in_colour, colour.neighbours, row)
            new_on_plane[:] = 0
            new_in_colour[:] = 0
        for start in range(0, points, _CHUNK):
            stop = min(points, start + _CHUNK)
            for point in range(start, stop):
                for lane in range(0, row, WIDTH):
                    lanes = load(logits, point * row + lane)
                    if iteration and plane.corners.size:
                        smooth = _slice(plane, on_plane, point, 3, row, lane)
                        lanes = scaled_sum(plane_weight, smooth, lanes)
                    if iteration and colour.corners.size:
                        alike = _slice(colour, in_colour, point, 6, row, lane)
                        lanes = scaled_sum(colour_weight, alike, lanes)
                    store(probs, (point - start) * row + lane, lanes)
            for at in range(0, (stop - start) * row, field):
                _softmax(probs, at, at + field, halves)
            if iteration == iterations:
                for lane in range(0, (stop - start) * row, WIDTH):
                    store(logits, start * row + lane, load(probs, lane))
                continue
            for point in range(start, stop):
                for lane in range(0, row, WIDTH):
                    lanes = load(probs, (point - start) * row + lane)
                    if plane.corners.size:
                        _splat(plane, new_on_plane, point, 3, row, lane, lanes)
                    if colour.corners.size:
                        _splat(colour, new_in_colour, point, 6, row, lane, lanes)
