"""Training on one device and on two replicas, which must come to the same."""

import keras
import numpy as np
import tensorflow as tf


def train_on_one_and_two(make_step, batch, steps=3):
    """Train a step on four examples, on one device and on two replicas.

    Args:
      make_step: function of whether this is the single device, to a compiled step; it is called in
        the strategy's scope, with the seed of random numbers set.
      batch: dict of arrays of four examples.
      steps: how many, each an epoch of its own.

    Returns:
      A pair (history of the losses, {path: value} of the network's variables) for each of the two.
    """
    runs = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            step = make_step(not runs)
        data = tf.data.Dataset.from_tensor_slices(batch).batch(4, drop_remainder=True).repeat()
        history = step.fit(data, epochs=steps, steps_per_epoch=1, shuffle=False, verbose=0).history
        runs.append((history, {v.path: np.asarray(v.value) for v in step.net.variables}))
    assert strategy.num_replicas_in_sync == 2
    return runs
