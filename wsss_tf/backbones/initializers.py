"""Values that backbones start from where no weights are loaded."""

import keras


def fan_out_normal():
    """Return EfficientNet's initializer of kernels: a truncated normal of variance 2 / fan-out."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
