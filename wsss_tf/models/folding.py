"""Networks for inference alone: BatchNorm becomes part of the convolution before it."""

import keras
import numpy as np
from keras import layers

from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.layers.dilated_conv import DilatedConv2D

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, DilatedConv2D)


@keras.saving.register_keras_serializable("wsss_tf")
class Folded(keras.layers.Layer):
    """Stands where a BatchNorm was, under its name: gives its input back."""

    def call(self, x, training=None, mask=None):
        """Return `x`; the others are what BatchNorm takes."""
        return x

    def compute_output_shape(self, input_shape):
        """See `keras.layers.Layer`."""
        return input_shape


def folded(net):
    """Return a network that computes the same in inference, with fewer passes over its maps.

    A BatchNorm whose input is a convolution's output, which nothing else takes, only scales and
    shifts it in inference: so do a scaled kernel and a bias. Convolution, bias and activation are
    one operation then. (Keras' BatchNorm is two passes over the map, which on a CPU take a third of
    a small network's time.)

    Args:
      net: functional `keras.Model`, which is left as it is.

    Returns:
      functional `keras.Model` of the same layer names, inputs and outputs; its values differ by
      rounding. It must not be trained: there are no statistics any more. Layers in half precision
      are left alone.
    """
    norms = _foldable(net)
    by_name = {norm.name for norm in norms.values()}

    def clone(layer):
        config = layer.get_config()
        if layer.name in by_name:
            return Folded(name=layer.name)
        if layer.name in norms:
            config |= {"use_bias": True, **_no_random_values(layer)}
        elif _is_unit(layer):
            config["folded"] = True
        return type(layer).from_config(config)

    new = keras.models.clone_model(net, clone_function=clone)
    for layer in (layer for layer in net.layers if layer.weights):
        clone = new.get_layer(layer.name)
        if layer.name in norms:
            _fold(layer, norms[layer.name], clone)
        elif _is_unit(layer):
            _fold(layer.conv, layer.bn, clone.conv)
        elif layer.name not in by_name:
            clone.set_weights(layer.get_weights())
    return new


def _foldable(net):
    """Return {name of a convolution: the BatchNorm behind it}."""
    taken_by = {}
    for layer in net.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                taken_by.setdefault(id(tensor), []).append(layer)
    outputs = {id(tensor) for tensor in keras.tree.flatten(net.outputs)}
    norms = {}
    for layer in net.layers:
        if not _is_linear(layer) or id(layer.output) in outputs:
            continue
        takers = taken_by.get(id(layer.output), [])
        if len(takers) == 1 and _is_norm(takers[0]):
            norms[layer.name] = takers[0]
    return norms


def _is_linear(layer):
    """Return whether a layer is a convolution and nothing else, used once."""
    return (
        type(layer) in _CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and _is_once_and_whole(layer)
    )


def _is_norm(layer):
    return type(layer) is layers.BatchNormalization and _is_once_and_whole(layer)


def _is_once_and_whole(layer):
    return len(layer._inbound_nodes) == 1 and layer.compute_dtype == "float32"


def _is_unit(layer):
    return type(layer) is ConvBatchNorm and layer.compute_dtype == "float32" and not layer.folded


def _no_random_values(layer):
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return {f"{'depthwise' if is_depthwise else 'kernel'}_initializer": "zeros"}


def _fold(convolution, norm, clone):
    """Give `clone` the kernel and the bias that do what both layers did."""
    kernel = np.asarray(convolution.kernel, np.float64)
    bias = np.asarray(convolution.bias, np.float64) if convolution.use_bias else 0.0
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    shift = (bias - mean) * scale
    if norm.center:
        shift = shift + np.asarray(norm.beta)
    # A depthwise kernel is [rows, columns, D, 1], others are [rows, columns, D, F].
    is_depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    factor = scale.reshape(kernel.shape[2:]) if is_depthwise else scale
    clone.kernel.assign((kernel * factor).astype(np.float32))
    clone.bias.assign(shift.astype(np.float32))
