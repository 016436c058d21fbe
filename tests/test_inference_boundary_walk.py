"""IRN's walk: boundaries of padded pictures, affinities and labels, as the official code's."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from pair_indices import pair_indices
from test_layers_path_affinity import order_of
from test_models_irn import features, golden_branches
from tiny_backbone import tiny_backbone

from wsss_tf import ops
from wsss_tf.inference.boundary_walk import PictureBoundary, bordered_affinity, mean_boundary
from wsss_tf.inference.random_walk import (
    Grid,
    PictureGraph,
    label_by_walk,
    transition_matrix,
    walk,
    walked_maps,
)
from wsss_tf.layers.path_affinity import PathAffinity
from wsss_tf.models.irn import irn_network

OFFSETS_OF_5 = "irn/edge_affinity_r5"


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def graph_of(edge, radius=5):
    """Return the graph of a map of boundaries [h, w]."""
    logits = scipy.special.logit(edge.astype(np.float64)).astype(np.float32)[None, :, :, None]
    affinity = np.asarray(bordered_affinity(PathAffinity(), logits, radius))[0]
    return PictureGraph(affinity, Grid(*edge.shape, radius, 4, border=radius), edge)


@pytest.mark.parametrize("file", ["a", "b"])
def test_walks_are_the_official_ones(golden, file):
    data = golden(f"irn/random_walk_{file}")
    height, width = data["edge"].shape
    graph = graph_of(data["edge"])
    order = order_of(golden(OFFSETS_OF_5)["offsets"], 5)
    close(graph.affinity, data["aff_padded"][order])
    plain = graph.transition(1.0).toarray()
    close(plain, data["dense"] / data["dense"].sum(axis=0), atol=1e-6)
    assert (plain > 0).sum() <= (data["dense"] > 0).sum()
    transition = graph.transition(float(data["beta"]))
    close(transition.toarray(), data["trans"], atol=1e-6)
    start = data["cam"] * (1 - data["edge"][..., None])
    steps = 2 ** int(data["exp_times"])
    close(walk(start, transition, steps), data["rw"])
    # The official squarings are off by 4e-5 themselves.
    flat = start.reshape(height * width, -1).T @ data["trans_pow"]
    close(walk(start, transition, steps).reshape(height * width, -1).T, flat, atol=1e-4)


def test_every_pair_of_the_map_is_there():
    """Within the radius, and each with an affinity of its own."""
    start, end = pair_indices(7, 9, 5, border=5)
    affinity = np.random.default_rng(0).uniform(0.1, 1, end.shape)
    expected = np.eye(63)
    for pairs, values in zip(end, affinity):
        inside = (start >= 0) & (pairs >= 0)
        expected[start[inside], pairs[inside]] = values[inside]
        expected[pairs[inside], start[inside]] = values[inside]
    every = np.indices((7, 9)).reshape(2, -1).T
    squared = ((every[:, None] - every[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(expected > 0, squared < 25)
    transition = transition_matrix(affinity, 7, 9, 5, 1.0, border=5).toarray()
    close(transition, expected / expected.sum(axis=0), atol=1e-6)


def test_labels_are_the_official_ones(golden):
    data = golden("irn/sem_seg")
    graph = graph_of(data["edge"])
    cams = data["cam"].transpose(2, 0, 1)
    height, width = data["size"].tolist()
    start = data["cam"] * (1 - data["edge"][..., None])
    walked = walk(start, graph.transition(10.0), 256)
    close(walked, data["rw"])
    up = np.asarray(ops.resize_bilinear(walked[None], (64, 76), False))[0, :height, :width]
    close(up, data["rw_up"])
    close(up / up.max(), data["rw_scaled"], atol=2e-5)
    label = label_by_walk(
        np.zeros((height, width, 3), np.uint8),
        data["class_keys"] + 1,
        np.zeros((3, height, width)),
        graph,
        affinity_power=10.0,
        steps=256,
        threshold=float(data["bg_threshold"]),
        strided_cams=cams,
    )
    np.testing.assert_array_equal(label, data["pred"])
    maps = walked_maps(np.zeros((3, height, width)), (height, width), graph, 10.0, 256, cams)
    close(maps.transpose(1, 2, 0), data["rw_scaled"], atol=2e-5)


def test_without_the_boundary_at_the_start():
    """A boundary through an object takes nothing of it along, and none is across the picture."""
    edge = np.full((6, 8), 0.01, np.float32)
    edge[:, 3] = 0.5
    graph = graph_of(edge)
    cams = np.ones((1, 24, 32), np.float32)
    whole = walked_maps(cams, (24, 32), graph, 10.0, 8, weigh_start=False)
    close(whole, np.ones((1, 24, 32)))
    assert walked_maps(cams, (24, 32), graph, 10.0, 8).min() < 0.9
    image = np.zeros((24, 32, 3), np.uint8)
    options = {"affinity_power": 10.0, "steps": 8, "threshold": 0.95}
    assert (label_by_walk(image, [3], cams, graph, weigh_start=False, **options) == 3).all()
    assert not (label_by_walk(image, [3], cams, graph, **options) == 3).all()


def test_boundaries_of_a_padded_picture_are_the_official_ones(golden):
    data = golden("irn/edge_inference")
    net = golden_branches(data)
    outputs = net(features(data), training=False)
    close(outputs["edge_logits"], data["edge_logits"])
    size = [-(-int(n) // 4) for n in data["size"]]
    logits = mean_boundary(outputs["edge_logits"], size)
    close(tf.sigmoid(logits)[0, :, :, 0], data["edge"])
    close(outputs["dp"][0, : size[0], : size[1]], data["dp"])


def colour_network(crop_size=64):
    """Stands for the network: boundaries where the red of a block differs from the one beside."""
    image = keras.Input((None, None, 3), name="image")
    red = keras.layers.AveragePooling2D(4)(image)[..., :1]
    left, right = red[:, :, :-1], red[:, :, 1:]
    steps = keras.ops.pad(keras.ops.abs(right - left), [[0, 0], [0, 0], [1, 0], [0, 0]])
    logits = 8 * steps - 4
    affinity = PathAffinity(3, crop_size, name="affinity")(logits)
    return keras.Model(image, {"edge_logits": logits, "affinity": affinity})


@pytest.mark.parametrize("size", [(37, 61), (1, 1), (3, 90), (64, 64), (130, 70)])
def test_pictures_of_any_size(size):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    graphs = PictureBoundary(colour_network())(pictures)
    height, width = (-(-n // 4) for n in size)
    whole = [max(64, -(-n // 32) * 32) for n in size]
    padded = np.zeros((2, *whole, 3), np.float32)
    total = 0.0
    for turned, picture in enumerate((pictures, pictures[:, :, ::-1])):
        padded[:, : size[0], : size[1]] = ops.normalize_image(picture)
        red = padded[..., 0].reshape(2, whole[0] // 4, 4, whole[1] // 4, 4).mean(axis=(2, 4))
        steps = np.pad(np.abs(np.diff(red, axis=2)), [(0, 0), (0, 0), (1, 0)])
        logits = (8 * steps - 4)[:, :height, :width]
        total = total + (logits[:, :, ::-1] if turned else logits)
    expected = scipy.special.expit(total / 2)
    for graph, boundary in zip(graphs, expected):
        assert graph.grid == Grid(height, width, 5, 4, 5)
        close(graph.boundary, boundary)
        close(graph.affinity, graph_of(boundary).affinity)
        assert graph.transition(10.0).shape == (height * width, height * width)
    label = label_by_walk(
        pictures[0], [1, 4], rng.random((2, *size)), graphs[0], steps=8, threshold=0.3
    )
    assert label.shape == size
    one = PictureBoundary(colour_network())(pictures[1:])
    close(one[0].affinity, graphs[1].affinity, atol=1e-6)


def test_a_class_stops_at_a_boundary():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:, 0] = 255
    [graph] = PictureBoundary(colour_network())(image[None])
    cams = np.zeros((1, 64, 96), np.float32)
    cams[0, 24:40, 64:80] = 1.0
    label = label_by_walk(image, [7], cams, graph, affinity_power=10.0, steps=256, threshold=0.3)
    assert set(np.unique(label)) == {0, 7}
    assert not label[:, :44].any()
    assert (label[:, 56:] == 7).mean() > 0.9


def test_constant_scores_stay():
    edge = np.random.default_rng(0).uniform(0.1, 0.9, (7, 9)).astype(np.float32)
    transition = graph_of(edge).transition(10.0)
    close(transition.sum(axis=0), np.ones(63), atol=1e-6)
    scores = np.broadcast_to(np.float32([0.2, 0.7]), (7, 9, 2))
    close(walk(scores, transition, 64), scores, atol=1e-4)  # columns sum to one in float32


def test_the_network_itself():
    net = irn_network(backbone=tiny_backbone, radius=3, crop_size=64, displacement=True)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 50, 61, 3), dtype=np.uint8)
    compute = PictureBoundary(net)
    assert compute.stride == 4
    for graph in compute(pictures):
        assert graph.boundary.shape == (13, 16)
        assert (graph.affinity >= 0).all()
    # The mirror image has the mirrored boundaries.
    mirrored = compute(pictures[:, :, ::-1])
    close(mirrored[0].boundary, compute(pictures)[0].boundary[:, ::-1])
