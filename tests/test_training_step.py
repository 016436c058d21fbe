"""Means over the global batch, whatever each replica holds of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from wsss_tf.training.step import TrainingStep, global_mean

TOTAL = np.float32([6, 0, 1, 2])
COUNT = np.float32([3, 0, 1, 4])


@pytest.mark.parametrize("epsilon", [0.0, 2.0])
def test_global_mean_on_one_device(epsilon):
    terms = global_mean(tf.constant(TOTAL), tf.constant(COUNT), epsilon)
    np.testing.assert_allclose(np.mean(terms), 9 / (8 + epsilon), rtol=1e-6)


def test_global_mean_of_nothing_is_zero():
    zero = tf.zeros([3])
    np.testing.assert_array_equal(global_mean(zero, zero), np.zeros(3))


class ValidPixelStep(TrainingStep):
    """The mean of x * w over the pixels that count, as a loss."""

    term_names = ("loss_mean",)

    def loss_terms(self, batch):
        values = self.net(batch["x"]) * batch["valid"]
        return {"loss_mean": global_mean(ops.sum(values, axis=1), ops.sum(batch["valid"], axis=1))}


def trained_weights(strategy):
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(8, 5)).astype(np.float32),
        "valid": (rng.random((8, 5)) < np.linspace(0.05, 1, 8)[:, None]).astype(np.float32),
    }
    with strategy.scope():
        x = keras.Input((5,))
        scale = layers.Dense(5, use_bias=False, kernel_initializer="ones")
        step = ValidPixelStep(keras.Model(x, scale(x)))
        step.compile(optimizer=keras.optimizers.SGD(0.5))
    batches = tf.data.Dataset.from_tensor_slices(data).batch(4)
    history = step.fit(batches, epochs=2, verbose=0)
    return step.net.get_weights()[0], history.history["loss_mean"]


def test_replicas_with_unequal_counts_train_as_one_device():
    weights1, _ = trained_weights(tf.distribute.get_strategy())
    weights2, _ = trained_weights(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    assert np.abs(weights1 - 1).max() > 0.1
    np.testing.assert_allclose(weights1, weights2, atol=1e-6)
