"""The branch that SEAM and AffinityNet take from each of several stages of their backbone."""

from keras import layers

_ACTIVATIONS = {"relu": layers.ReLU, "elu": layers.ELU}


def side_branch(x, filters, name, activation, initializer="he_normal"):
    """Return a 1x1 convolution without bias and an activation.

    Args:
      x: [B, h, w, any].
      filters: D, output channels.
      name: of the convolution; the activation's is `<name>_<activation>`.
      activation: "relu" or "elu".
      initializer: of the kernel.

    Returns:
      [B, h, w, D].
    """
    x = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer=initializer, name=name)(x)
    return _ACTIVATIONS[activation](name=f"{name}_{activation}")(x)
