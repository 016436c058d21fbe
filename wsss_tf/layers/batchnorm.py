"""BatchNorm as backbones and heads use it, on every backend of Keras."""

import keras


@keras.saving.register_keras_serializable("wsss_tf")
class FixedBatchNorm(keras.layers.BatchNormalization):
    """BatchNorm whose gamma and beta are trained, while its statistics stay as they were loaded."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


def batchnorm(
    name,
    trainable=True,
    synchronized=True,
    epsilon=1e-5,
    momentum=0.9,
    gamma_initializer="ones",
    dtype=None,
    fixed_statistics=False,
):
    """Return a BatchNorm layer; epsilon and momentum are PyTorch's (1e-5, its 0.1) by default.

    Args:
      name: of the layer.
      trainable: False freezes gamma, beta and the statistics, which are used in training too.
      synchronized: batch statistics over all replicas, where it is trained. Keras has that on
        TensorFlow alone; elsewhere a replica's own statistics are taken.
      epsilon, momentum, gamma_initializer, dtype: as in `keras.layers.BatchNormalization`.
      fixed_statistics: train gamma and beta only, with the statistics as they are.
    """
    on_tensorflow = keras.backend.backend() == "tensorflow"
    kind = FixedBatchNorm if fixed_statistics else keras.layers.BatchNormalization
    return kind(
        epsilon=epsilon,
        momentum=momentum,
        gamma_initializer=gamma_initializer,
        synchronized=synchronized and trainable and on_tensorflow and not fixed_statistics,
        trainable=trainable,
        dtype=dtype,
        name=name,
    )
