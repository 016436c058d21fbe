"""A stored mean that is taken away in inference, as a layer."""

import keras


@keras.saving.register_keras_serializable("wsss_tf")
class MeanShift(keras.layers.Layer):
    """Subtract a stored mean in inference; identity in training.

    The mean is zero until it is set, which is done once, after training.

    Call: [B, h, w, D] to [B, h, w, D].
    """

    def build(self, input_shape):
        self.mean = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", trainable=False, name="mean"
        )

    def call(self, x, training=None):
        return x if training else x - keras.ops.cast(self.mean, x.dtype)
