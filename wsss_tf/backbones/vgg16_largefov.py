"""VGG16 as DeepLab-CRF-LargeFOV uses it: output stride 8 and a dilated 3x3 in place of fc6."""

import keras
import numpy as np
from keras import layers

from wsss_tf.backbones.vgg16 import BLOCKS, Vgg16Blocks, caffe_picture

# Convolution taps and units of Keras' VGG16 that fc6 and fc7 keep.
_TAPS = slice(None, None, 3)  # 0, 3, 6 of 7
_UNITS = slice(None, None, 4)  # 1024 of 4096


def _pool(x, name, stride, kind=layers.MaxPooling2D):
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return kind(3, stride, name=name)(x)


def vgg16_largefov(
    width=1.0,
    train_batchnorm=False,
    dropout=0.5,
    frozen_stages=0,
    mean=(123.0, 117.0, 104.0),
    image=None,
):
    """Build the network up to fc7 as a functional model of named feature maps.

    Args:
      width: factor on every channel count; 1 is the published network.
      train_batchnorm: BatchNorm before each ReLU, for training from random values; VGG16 has none.
      dropout: rate after fc6 and after fc7 (single values, not whole channels).
      frozen_stages: 0 trains all, 1 freezes blocks 1 and 2, 2 also block 3, 3 also block 4, 4 also
        block 5.
      mean: the colour that the weights want subtracted, red, green and blue in 0..255.
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.
        The first layer makes it blue first, in 0..255, minus the mean.

    Returns:
      `keras.Model` from image to {"stem": pool2 [B, ceil(H/4), ceil(W/4), 128 width],
      "stage1": conv3_3 [.., 256 width], "stage2": conv4_3 and "stage3": conv5_3
      [B, ceil(H/8), ceil(W/8), 512 width], "stage4": fc7 after its dropout [.., 1024 width]}.
      20,483,904 parameters at width 1.

    Raises:
      ValueError: `frozen_stages` is not 0 to 4, or a side is known and is not 8 k + 1, as the
        paper's 321: the grid's corners would not lie on the picture's.

    Pools are 3x3 with one zero around (harmless after a ReLU): of stride 2 in blocks 1 to 3, of 1
    in 4 and 5. Block 5 has dilation 2, fc6 dilation 12. The average pool pool5a divides by 9
    everywhere, counting zeros outside, as Caffe does.

    Source: Chen et al., "Semantic image segmentation with deep convolutional nets and fully
    connected CRFs" (2015), DeepLab-CRF-LargeFOV; SEC's network definition.
    """
    image, x = caffe_picture(image, mean, "vgg16_largefov")
    blocks = Vgg16Blocks(width, train_batchnorm, frozen_stages)
    features = {}
    for number in range(1, 6):
        x = blocks.block(x, number, dilation=2 if number == 5 else 1)
        if number > 2:
            features[f"stage{number - 2}"] = x
        x = _pool(x, f"pool{number}", stride=2 if number < 4 else 1)
        if number == 2:
            features["stem"] = x
    x = _pool(x, "pool5a", 1, layers.AveragePooling2D)
    x = blocks.conv(x, 1024, 3, "fc6", dilation=12)
    x = layers.Dropout(dropout, name="drop6")(x)
    x = blocks.conv(x, 1024, 1, "fc7")
    features["stage4"] = layers.Dropout(dropout, name="drop7")(x)
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
