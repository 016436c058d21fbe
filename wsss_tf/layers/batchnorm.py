"""BatchNorm as backbones and heads use it, on every backend of Keras."""

import keras


def batchnorm(
    name,
    trainable=True,
    synchronized=True,
    epsilon=1e-5,
    momentum=0.9,
    gamma_initializer="ones",
    dtype=None,
):
    """Return a BatchNorm layer; epsilon and momentum are PyTorch's (1e-5, its 0.1) by default.

    Args:
      name: of the layer.
      trainable: False freezes gamma, beta and the statistics, which are used in training too.
      synchronized: batch statistics over all replicas, where it is trained. Keras has that on
        TensorFlow alone; elsewhere a replica's own statistics are taken.
      epsilon, momentum, gamma_initializer, dtype: as in `keras.layers.BatchNormalization`.
    """
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return keras.layers.BatchNormalization(
        epsilon=epsilon,
        momentum=momentum,
        gamma_initializer=gamma_initializer,
        synchronized=synchronized and trainable and on_tensorflow,
        trainable=trainable,
        dtype=dtype,
        name=name,
    )
