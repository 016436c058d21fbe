"""The dense CRF in TensorFlow's operations: the numbers of the compiled one."""

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.inference.dense_crf import CAM_CRF, CrfParameters, dense_crf, dense_crfs
from wsss_tf.inference.graph_crf import RefinedByCrf

GRAPH = CrfParameters(library="tensorflow")


def smooth(shape, labels, seed=0):
    coarse = np.random.default_rng(seed).uniform(size=(1, 7, 9, labels)).astype(np.float32)
    return ops.resize_bilinear(tf.constant(coarse), shape, align_corners=False)[0].numpy()


def assert_same(marginals, expected):
    np.testing.assert_allclose(marginals, expected, atol=2e-4)
    assert (marginals.argmax(-1) == expected.argmax(-1)).mean() > 0.999


@pytest.mark.parametrize(
    "parameters",
    [
        CrfParameters(),
        CrfParameters(gaussian_weight=0.0, unary_weight=3.0, iterations=2),
        CrfParameters(bilateral_weight=0.0),
        CrfParameters(bilateral_weight=0.0, gaussian_weight=0.0),
        CrfParameters(iterations=0),
    ],
    ids=["both kernels", "appearance", "smoothness", "none", "no iteration"],
)
def test_marginals_are_those_of_the_compiled_one(golden, parameters):
    image = golden("sec/crf_full_1")["image"][:91, 40:167]
    probs = smooth(image.shape[:2], 5)
    expected = dense_crf(probs, image, parameters)
    given = CrfParameters(**{**vars(parameters), "library": "tensorflow"})
    assert_same(dense_crf(probs, image, given), expected)
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 1), (40, 57)])
@pytest.mark.parametrize("labels", [1, 3])
def test_several_fields_of_any_size(shape, labels):
    image = np.random.default_rng(0).integers(90, 120, (*shape, 3)).astype(np.uint8)
    several = [smooth(shape, labels, seed) for seed in range(2)]
    for marginals, expected in zip(dense_crfs(several, image, GRAPH), dense_crfs(several, image)):
        assert marginals.shape == (*shape, labels)
        assert_same(marginals, expected)


def test_too_narrow_kernels():
    image = np.random.default_rng(0).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    narrow = CrfParameters(library="tensorflow", bilateral_srgb=1e-3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too narrow"):
        dense_crf(smooth((9, 12), 2), image, narrow)


def test_behind_a_network_each_picture_has_its_own():
    shape = (31, 44)
    pictures = np.random.default_rng(0).integers(80, 130, (2, *shape, 3)).astype(np.uint8)
    pictures[1, :, 20:] += 90
    probs = np.stack([smooth(shape, 4, seed) ** 4 for seed in (3, 4)])
    probs[:, 5, 6] = [1, 0, 0, 0]  # its logarithm is none

    class Network(tf.Module):
        net = None

        def __call__(self, pictures):
            return tf.constant(probs)

    refined = RefinedByCrf(Network(), CAM_CRF)
    in_graph = tf.function(
        refined.__call__,
        autograph=False,
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    for call in (refined, in_graph):
        for marginals, scores, picture in zip(call(pictures).numpy(), probs, pictures):
            assert_same(marginals, dense_crf(scores, picture))
