"""VGG16 as DeepLab-CRF-LargeFOV uses it: output stride 8 and a dilated 3x3 in place of fc6."""

import keras
import numpy as np
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.layers.dilated_conv import DilatedConv2D

# Block: (convolutions, filters at width 1).
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
FEATURES = ("conv3_3", "conv5_3", "pool5", "pool5a", "fc6", "fc7")
# Convolution taps and units of Keras' VGG16 that fc6 and fc7 keep.
_TAPS = slice(None, None, 3)  # 0, 3, 6 of 7
_UNITS = slice(None, None, 4)  # 1024 of 4096


class Vgg16Blocks:
    """Convolutions named as in Caffe's VGG16, each with bias and ReLU, BatchNorm if wanted.

    Args:
      width: factor on the channel counts, as `scale_channels` rounds.
      batchnorm: normalise before each ReLU, for training from random values; VGG16 has none.
      synchronized: statistics of BatchNorm over all replicas.
    """

    def __init__(self, width, batchnorm=False, synchronized=True):
        self.width = width
        self.batchnorm = batchnorm
        self.synchronized = synchronized

    def conv(self, x, count, size, name, dilation=1, initializer="he_normal", relu=True):
        """Convolve with symmetric padding; the output of layer `name` is the linear one."""
        x = DilatedConv2D(
            scale_channels(count, self.width),
            size,
            padding="same",
            dilation_rate=dilation,
            kernel_initializer=initializer,
            name=name,
        )(x)
        if self.batchnorm and relu:
            x = layers.BatchNormalization(
                epsilon=1e-5, momentum=0.9, synchronized=self.synchronized, name=f"{name}_bn"
            )(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def block(self, x, number, dilation=1):
        """Apply the convolutions of a block, 1 to 5."""
        repeats, count = BLOCKS[number - 1]
        for i in range(1, repeats + 1):
            x = self.conv(x, count, 3, f"conv{number}_{i}", dilation)
        return x


def largefov_features(x, width=1.0, batchnorm=False, dropout=1.0):
    """Return the named feature maps of `vgg16_largefov` on a symbolic input."""
    blocks = Vgg16Blocks(width, batchnorm)

    def pool(x, name, stride, kind=layers.MaxPooling2D):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        return kind(3, stride, name=name)(x)

    features = {}
    for number, (repeats, _) in enumerate(BLOCKS, start=1):
        x = blocks.block(x, number, dilation=2 if number == 5 else 1)
        features[f"conv{number}_{repeats}"] = x
        x = pool(x, f"pool{number}", stride=2 if number < 4 else 1)
    features["pool5"] = x
    x = features["pool5a"] = pool(x, "pool5a", 1, layers.AveragePooling2D)
    x = features["fc6"] = blocks.conv(x, 1024, 3, "fc6", dilation=12)
    x = layers.Dropout(0.5 * dropout, name="drop6")(x)
    x = blocks.conv(x, 1024, 1, "fc7")
    features["fc7"] = layers.Dropout(0.5 * dropout, name="drop7")(x)
    return {name: features[name] for name in FEATURES}


def vgg16_largefov(width=1.0, batchnorm=False, dropout=1.0, image=None):
    """Build the network up to fc7 as a functional model of named feature maps.

    Args:
      width: factor on every channel count; 1 is the published network.
      batchnorm: BatchNorm before each ReLU, for training from random values (not in the paper).
      dropout: factor on the rate 0.5 of the dropout after fc6 and fc7 (single values, not whole
        channels).
      image: `keras.Input`; None makes one, [B, H, W, 3], any size: blue first, in 0..255, minus
        the mean colour (`layers.caffe_input`).

    Returns:
      `keras.Model` from image to {"conv3_3" [B, ceil(H/4), ceil(W/4), 256 width],
      "conv5_3", "pool5" and "pool5a" [B, ceil(H/8), ceil(W/8), 512 width], "fc6" and "fc7"
      [B, ceil(H/8), ceil(W/8), 1024 width]}: fc6 before its dropout, fc7 after. For aligned corners
      H and W should be 8 k + 1, as the paper's 321. 20,483,904 parameters at width 1.

    Pools are 3x3 with one zero around (harmless after a ReLU): of stride 2 in blocks 1 to 3, of 1
    in 4 and 5. Block 5 has dilation 2, fc6 dilation 12. The average pool divides by 9 everywhere,
    counting zeros outside, as Caffe does.

    Source: Chen et al., "Semantic image segmentation with deep convolutional nets and fully
    connected CRFs" (2015), DeepLab-CRF-LargeFOV; SEC's network definition.
    """
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    features = largefov_features(image, width, batchnorm, dropout)
    return keras.Model(image, features, name="vgg16_largefov")


def subsample_vgg16(vgg16):
    """Return initial weights of `vgg16_largefov` at width 1 from an ImageNet classifier.

    The fully connected fc1 is a 7x7 convolution on features of stride 32. Its taps 0, 3 and 6, on
    features of stride 8, are fc6's 3x3 taps at dilation 12: the same places of the picture. Of its
    4096 units every fourth is kept, of fc2's inputs and outputs the same ones.

    Args:
      vgg16: `keras.applications.VGG16` with its top, or a model with layers of the same names and
        of proportional shapes.

    Returns:
      {variable path: float32 array}, as `training.initial_weights.load_initial_weights` takes them
      from an .npz file. The first convolution expects blue first, minus the mean, like Keras' own.

    Source: that fc6 and fc7 are decimated is DeepLab's; which units its authors kept is not known.
    """

    def weights(name):
        return (np.asarray(w) for w in vgg16.get_layer(name).get_weights())

    result = {}
    for number, (repeats, _) in enumerate(BLOCKS, start=1):
        for i in range(1, repeats + 1):
            kernel, bias = weights(f"block{number}_conv{i}")
            result[f"conv{number}_{i}/kernel"] = kernel
            result[f"conv{number}_{i}/bias"] = bias
    kernel, bias = weights("fc1")
    kernel = kernel.reshape(7, 7, -1, kernel.shape[-1])  # flattened as row, column, channel
    result["fc6/kernel"] = kernel[_TAPS, _TAPS, :, _UNITS]
    result["fc6/bias"] = bias[_UNITS]
    kernel, bias = weights("fc2")
    result["fc7/kernel"] = kernel[None, None, _UNITS, _UNITS]
    result["fc7/bias"] = bias[_UNITS]
    return result
