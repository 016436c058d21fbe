"""Weights of `keras.applications` in this package's backbones."""

import numpy as np


def copy_keras_weights(network, source):
    """Copy the weights of every layer that two networks both have, by layer name.

    Args:
      network: with a backbone of `dilated_resnet` (variant "keras") or `efficientnet` in it.
      source: `keras.applications.ResNet50`, `ResNet101` or `EfficientNetB0` to B7, with or without
        its classifier.

    Returns:
      Sorted names of the layers that were set.

    Raises:
      ValueError: no layer in common; or one of another shape or epsilon, which its weights would
        not fit. Nothing has been copied then.
    """
    own = {layer.name: layer for layer in network.layers if layer.weights}
    given = {layer.name: layer for layer in source.layers if layer.weights}
    shared = sorted(own.keys() & given.keys())
    if not shared:
        raise ValueError(f"{network.name} and {source.name} have no layer of the same name.")
    arrays = {name: given[name].get_weights() for name in shared}
    shapes = {name: [tuple(v.shape) for v in own[name].weights] for name in shared}
    for name in shared:
        if getattr(own[name], "epsilon", None) != getattr(given[name], "epsilon", None):
            raise ValueError(f"layer {name} has another epsilon in {source.name}.")
        # EfficientNet's dense layers are 1x1 convolutions there.
        fits = len(arrays[name]) == len(shapes[name]) and all(
            array.shape in (shape, (1, 1, *shape))
            for array, shape in zip(arrays[name], shapes[name])
        )
        if not fits:
            raise ValueError(
                f"layer {name} has weights {[a.shape for a in arrays[name]]} in {source.name}, "
                f"{network.name} needs {shapes[name]}."
            )
    for name in shared:
        own[name].set_weights([np.reshape(a, s) for a, s in zip(arrays[name], shapes[name])])
    return shared
