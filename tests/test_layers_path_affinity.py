"""Affinities along paths: the official numbers, their gradient, and what must hold of any map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.layers.path_affinity import PathAffinity, path_affinity, path_pixels


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def order_of(offsets, radius):
    """Return where each of our offsets is in the official order, which is by length of the path."""
    places = {tuple(offset): i for i, offset in enumerate(offsets.tolist())}
    assert len(places) == len(offsets)
    return [places[offset] for offset in ops.pair_offsets(radius)]


@pytest.mark.parametrize("radius", [5, 10])
def test_paths_are_the_official_ones(golden, radius):
    data = golden(f"irn/path_index_r{radius}")
    assert data["radius"] == radius
    theirs = {}
    for length in data["lengths"]:
        for path in data[f"coords_{length:02}"]:
            theirs[tuple(path[0].tolist())] = [tuple(pixel) for pixel in path.tolist()]
    ours = {offset: path_pixels(*offset) for offset in ops.pair_offsets(radius)}
    assert ours == theirs
    lengths = [len(path) for path in ours.values()]
    assert {length: lengths.count(length) for length in set(lengths)} == dict(
        zip(data["lengths"].tolist(), data["counts"].tolist())
    )


def test_pairs_are_the_official_ones(golden):
    data = golden("irn/path_index_r10")
    height, width = data["size"].tolist()
    pixels = np.arange(height * width).reshape(1, height, width)
    start, end = ops.pair_values(tf.constant(pixels), 10)
    np.testing.assert_array_equal(start[0], data["src_indices"])
    order = order_of(data["offsets"], 10)
    np.testing.assert_array_equal(end[0], data["dst_indices"][order])


@pytest.mark.parametrize("radius", [5, 10])
@pytest.mark.parametrize("in_graph", [False, True])
def test_values_and_gradients_are_the_official_ones(golden, radius, in_graph):
    data = golden(f"irn/edge_affinity_r{radius}")
    order = order_of(data["offsets"], radius)

    def run(edge):
        with tf.GradientTape() as tape:
            tape.watch(edge)
            affinity = path_affinity(edge[..., 0], radius)
            total = tf.reduce_sum(affinity * data["upstream"][:, order])
        return affinity, tape.gradient(total, edge)

    if in_graph:  # that does not know the size of its maps
        signature = [tf.TensorSpec([None, None, None, 1])]
        run = tf.function(run, input_signature=signature, autograph=False)
    affinity, gradient = run(tf.constant(data["edge"]))
    close(affinity, data["aff"][:, order])
    close(gradient, data["grad_edge"], atol=2e-5)  # values to 53


def by_hand(boundary, radius):
    """Return the affinities and which path pixel each is of, pair by pair."""
    batch, height, width = boundary.shape
    margin = radius - 1
    values, chosen = [], []
    for b in range(batch):
        for dy, dx in ops.pair_offsets(radius):
            for y in range(height - margin):
                for x in range(margin, width - margin):
                    path = [(b, y + i, x + j) for i, j in path_pixels(dy, dx)]
                    best = max(path, key=lambda pixel: boundary[pixel])  # the first of equal ones
                    values.append(1 - boundary[best])
                    chosen.append(best)
    return np.reshape(values, (batch, len(ops.pair_offsets(radius)), -1)), chosen


def test_of_equal_pixels_the_first_has_the_gradient():
    boundary = np.random.default_rng(0).integers(0, 3, (2, 6, 8)).astype(np.float32) / 4
    expected, chosen = by_hand(boundary, 3)
    upstream = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    x = tf.constant(boundary)
    with tf.GradientTape() as tape:
        tape.watch(x)
        affinity = path_affinity(x, 3)
    np.testing.assert_array_equal(affinity, expected)
    gradient = np.zeros_like(boundary)
    for pixel, value in zip(chosen, upstream.ravel()):
        gradient[pixel] -= value
    close(tape.gradient(affinity, x, upstream), gradient)


def test_a_boundary_parts_what_it_lies_between():
    boundary = np.full((1, 12, 14), 0.1, np.float32)
    boundary[:, :, 7] = 0.8
    affinity = np.asarray(path_affinity(boundary, 5))[0]
    columns = np.tile(np.arange(14), (1, 12, 1))
    start, end = (np.asarray(x)[0] for x in ops.pair_values(tf.constant(columns), 5))
    start = np.broadcast_to(start, end.shape)
    # A path is two or three pixels thick, so it may touch what is beside it.
    across = (np.minimum(start, end) <= 7) & (np.maximum(start, end) >= 7)
    beside = (np.minimum(start, end) > 8) | (np.maximum(start, end) < 6)
    close(affinity[across], 0.2)
    close(affinity[beside], 0.9)
    assert across.sum() > 100
    assert beside.sum() > 100


@pytest.mark.parametrize("size", [(1, 7), (2, 3), (3, 5)])
def test_maps_too_small_for_pairs(size):
    layer = PathAffinity(10)
    affinity = layer(np.zeros((2, *size, 1), np.float32))
    radius = layer.radius_on(*size)
    assert radius == ops.search_radius(*size)
    expected = (2, len(ops.pair_offsets(radius)), size[0] * size[1])
    assert affinity.shape == expected if radius < 2 else affinity.shape[0] == 2


def test_the_layer_takes_logits_and_is_saved_with_what_it_knows(tmp_path):
    x = keras.Input((None, None, 1))
    net = keras.Model(x, PathAffinity(4, 64, name="affinity")(x))
    logits = np.random.default_rng(0).normal(size=(2, 9, 12, 1)).astype(np.float32)
    expected = path_affinity(tf.sigmoid(logits[..., 0]), 4)
    close(net(logits), expected, atol=1e-6)
    assert net.compute_output_shape(logits.shape) == expected.shape
    net.save(tmp_path / "net.keras")
    copy = keras.models.load_model(tmp_path / "net.keras")
    layer = copy.get_layer("affinity")
    assert (layer.radius, layer.crop_size) == (4, 64)
    close(layer(logits, radius=3), path_affinity(tf.sigmoid(logits[..., 0]), 3), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_boundaries_are_compared_in_float32(policy):
    logits = np.random.default_rng(0).normal(size=(1, 6, 9, 1)).astype(np.float32)
    expected = PathAffinity(3)(logits)
    keras.config.set_dtype_policy(policy)
    np.testing.assert_array_equal(PathAffinity(3)(logits), expected)
