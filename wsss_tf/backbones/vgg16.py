"""VGG16 as a trunk: the convolutions with ceil-rounded 2x2 pools, three or all five of them."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.stages import check_frozen_stages
from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.caffe_input import CaffeInput
from wsss_tf.layers.dilated_conv import DilatedConv2D

# Block: (convolutions, filters at width 1).
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class Vgg16Blocks:
    """Convolutions named as in Caffe's VGG16, each with bias and ReLU, BatchNorm if wanted.

    Args:
      width: factor on the channel counts, as `scale_channels` rounds.
      train_batchnorm: BatchNorm before each ReLU, for training from random values; VGG16 has none.
      frozen_stages: 0 trains all, 1 freezes blocks 1 and 2, which are in front of stage 1's own
        layers, 2 also block 3, 3 also block 4, 4 also block 5.

    Raises:
      ValueError: `frozen_stages` is not 0 to 4.
    """

    def __init__(self, width, train_batchnorm=False, frozen_stages=0):
        check_frozen_stages(frozen_stages)
        self.width = width
        self.train_batchnorm = train_batchnorm
        self.frozen_blocks = frozen_stages + 1 if frozen_stages else 0

    def conv(self, x, count, size, name, dilation=1, trainable=True):
        """Convolve with symmetric padding; the output of layer `name` is the linear one."""
        x = DilatedConv2D(
            scale_channels(count, self.width),
            size,
            padding="same",
            dilation_rate=dilation,
            kernel_initializer="he_normal",
            trainable=trainable,
            name=name,
        )(x)
        if self.train_batchnorm:
            x = batchnorm(f"{name}_bn", trainable)(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def block(self, x, number, dilation=1):
        """Apply the convolutions of a block, 1 to 5."""
        repeats, count = BLOCKS[number - 1]
        for i in range(1, repeats + 1):
            name = f"conv{number}_{i}"
            x = self.conv(x, count, 3, name, dilation, trainable=number > self.frozen_blocks)
        return x


def caffe_picture(image, mean, name):
    """Return the symbolic picture that VGG16's convolutions see, and the input it comes from.

    Args:
      image: [B, H, W, 3] as `ops.normalize_image` gives, or None for a new `keras.Input`.
      mean: as in `layers.caffe_input`.
      name: of the backbone, for the error.

    Raises:
      ValueError: H or W is known and is not 8 k + 1.
    """
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    height, width = image.shape[1:3]
    if any(side is not None and side % 8 != 1 for side in (height, width)):
        raise ValueError(
            f"pictures of {height} x {width} pixels: {name} needs sides of 8 k + 1, as the paper's "
            "321."
        )
    return image, CaffeInput(mean, name="caffe_input")(image)


def vgg16(
    pools=3,
    width=1.0,
    train_batchnorm=False,
    frozen_stages=0,
    mean=(122.675, 116.669, 104.008),
    image=None,
):
    """Build VGG16's convolutions as a functional model of named feature maps.

    Args:
      pools: how many blocks end in a pool: 3, as SEC's foreground classifier, or all 5, as VGG16
        itself and SEC's background classifier.
      width: factor on every channel count; 1 is the published network.
      train_batchnorm: BatchNorm before each ReLU, for training from random values; VGG16 has none.
      frozen_stages: as in `Vgg16Blocks`.
      mean: the colour that the weights want subtracted, red, green and blue in 0..255.
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.
        The first layer makes it blue first, in 0..255, minus the mean.

    Returns:
      `keras.Model` from image to {"stem": pool2 [B, ceil(H/4), ceil(W/4), 128 width],
      "stage1": conv3_3 [.., 256 width], "stage2": conv4_3 [B, ceil(H/8), ceil(W/8),
      512 width], "stage3": conv5_3, "stage4": what follows it}, all after their ReLU. With three
      pools stages 3 and 4 are the same map, on the grid of stage 2; with five stage 3 has stride 16
      and stage 4, the fifth pool, 32.

    Raises:
      ValueError: `pools` is neither 3 nor 5, `frozen_stages` is not 0 to 4, or a side is known and
        is not 8 k + 1.

    Pools are 2x2 of stride 2 that pad right and bottom, as Caffe's rounding up does.

    Source: Simonyan and Zisserman (2015); SEC's released localisation networks.
    """
    if pools not in (3, 5):
        raise ValueError(f"pools={pools}; choose 3 or 5.")
    image, x = caffe_picture(image, mean, "vgg16")
    blocks = Vgg16Blocks(width, train_batchnorm, frozen_stages)
    features = {}
    for number in range(1, 6):
        x = blocks.block(x, number)
        if number > 2:
            features[f"stage{number - 2}"] = x
        if number <= pools:
            x = layers.MaxPooling2D(2, 2, padding="same", name=f"pool{number}")(x)
        if number == 2:
            features["stem"] = x
    # A tensor must not be two outputs of a model whose input is no `keras.Input`.
    features["stage4"] = layers.Identity(name="stage4")(x)
    return keras.Model(image, features, name="vgg16")
