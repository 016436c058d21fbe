"""The layer by which AffinityNet knows its radius; its pairs are tested beside its head."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.layers.pair_affinity import PairAffinity


def features(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 6)).astype(np.float32)


def network(radius):
    x = keras.Input((None, None, 6))
    return keras.Model(x, PairAffinity(radius, name="affinity")(x))


@pytest.mark.parametrize("size", [(9, 12), (7, 30), (5, 6), (1, 7)])
def test_small_maps_have_a_smaller_radius(size):
    x = features(*size)
    net = network(4)
    radius = net.get_layer("affinity").radius_on(*size)
    assert radius == ops.search_radius(*size, 4)
    expected = ops.pairwise_affinity(x, radius)
    np.testing.assert_array_equal(net(x), expected)
    assert net.compute_output_shape(x.shape) == expected.shape

    # In a graph that does not know the size it is given.
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 6])])
    def affinity(x):
        return net.get_layer("affinity")(x, radius=radius)

    np.testing.assert_allclose(affinity(x), expected, atol=1e-6)


def test_graph_of_unknown_size_takes_the_radius_itself():
    net = network(3)
    assert net.output.shape == (None, len(ops.pair_offsets(3)), None)
    affinity = tf.function(
        net, autograph=False, input_signature=[tf.TensorSpec([None, None, None, 6])]
    )
    x = features(8, 9)
    np.testing.assert_allclose(affinity(x), ops.pairwise_affinity(x, 3), atol=1e-6)


def test_saved_network_knows_its_radius(tmp_path):
    network(3).save(tmp_path / "net.keras")
    copy = keras.models.load_model(tmp_path / "net.keras")
    assert copy.get_layer("affinity").radius == 3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_pairs_are_compared_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    x = 300 + features(5, 8)  # in half precision their differences would be gone
    affinity = PairAffinity(2)(x)
    assert affinity.dtype == "float32"
    np.testing.assert_array_equal(affinity, ops.pairwise_affinity(x, 2))
