"""ResNet38 ("A1", dilated): the backbone of SEAM, AffinityNet and their DeepLab."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.stages import check_frozen_stages
from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.dilated_conv import DilatedConv2D

# Unit: (kind, filters of the first and of the last convolution, stride, dilation of its 3x3s).
# At width 1; conv1a has 64 filters.
_UNITS = {
    "b2": ("residual", 128, 128, 2, (1, 1)),
    "b2_1": ("residual", 128, 128, 1, (1, 1)),
    "b2_2": ("residual", 128, 128, 1, (1, 1)),
    "b3": ("residual", 256, 256, 2, (1, 1)),
    "b3_1": ("residual", 256, 256, 1, (1, 1)),
    "b3_2": ("residual", 256, 256, 1, (1, 1)),
    "b4": ("residual", 512, 512, 2, (1, 1)),
    "b4_1": ("residual", 512, 512, 1, (1, 1)),
    "b4_2": ("residual", 512, 512, 1, (1, 1)),
    "b4_3": ("residual", 512, 512, 1, (1, 1)),
    "b4_4": ("residual", 512, 512, 1, (1, 1)),
    "b4_5": ("residual", 512, 512, 1, (1, 1)),
    "b5": ("residual", 512, 1024, 1, (1, 2)),
    "b5_1": ("residual", 512, 1024, 1, (2, 2)),
    "b5_2": ("residual", 512, 1024, 1, (2, 2)),
    "b6": ("bottleneck", 512, 2048, 1, 0.3),
    "b7": ("bottleneck", 1024, 4096, 1, 0.5),
}
_PROJECTED = ("b2", "b3", "b4", "b5", "b6", "b7")  # units with a shortcut convolution
# From how many frozen stages on a unit is frozen, and the BatchNorms at the ends of stages 1 to 3.
_FROZEN_FROM = {
    **{"conv1a": 1, "b2": 1, "b3": 2, "b4": 3, "b5": 4},
    **{"b4_bn_branch2a": 2, "b5_bn_branch2a": 3, "b6_bn_branch2a": 4},
}


class _Blocks:
    """The two kinds of units, with what all of them share."""

    def __init__(
        self, width, train_batchnorm, synchronized, dropout, frozen_stages, batchnorm_momentum=0.9
    ):
        self.width = width
        self.train_batchnorm = train_batchnorm
        self.synchronized = synchronized
        self.batchnorm_momentum = batchnorm_momentum
        self.dropout = dropout
        self.frozen_stages = frozen_stages

    def is_frozen(self, name):
        """Whether a layer belongs to a frozen stage."""
        unit = name.split("_")[0]
        return self.frozen_stages >= _FROZEN_FROM.get(name, _FROZEN_FROM.get(unit, 5))

    def conv(self, x, count, size, name, stride=1, dilation=1):
        if size > 1:
            # Symmetric, as the official code pads; "same" would pad right and bottom only.
            x = layers.ZeroPadding2D(dilation, name=f"{name}_pad")(x)
        return DilatedConv2D(
            scale_channels(count, self.width),
            size,
            strides=stride,
            dilation_rate=dilation,
            use_bias=False,
            kernel_initializer="he_normal",
            trainable=not self.is_frozen(name),
            name=name,
        )(x)

    def norm_relu(self, x, name):
        x = batchnorm(
            name,
            trainable=self.train_batchnorm and not self.is_frozen(name),
            synchronized=self.synchronized,
            momentum=self.batchnorm_momentum,
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def residual(self, x, name, middle, last, stride, dilations):
        first, second = dilations
        p = self.norm_relu(x, f"{name}_bn_branch2a")
        y = self.conv(p, middle, 3, f"{name}_conv_branch2a", stride, first)
        y = self.norm_relu(y, f"{name}_bn_branch2b1")
        y = self.conv(y, last, 3, f"{name}_conv_branch2b1", 1, second)
        if name in _PROJECTED:
            x = self.conv(p, last, 1, f"{name}_conv_branch1", stride)
        return layers.Add(name=name)([x, y]), p

    def bottleneck(self, x, name, middle, last, stride, rate):
        p = self.norm_relu(x, f"{name}_bn_branch2a")
        y = self.conv(p, middle, 1, f"{name}_conv_branch2a", stride)
        y = self.norm_relu(y, f"{name}_bn_branch2b1")
        y = layers.SpatialDropout2D(rate * self.dropout, name=f"{name}_dropout1")(y)
        y = self.conv(y, last // 2, 3, f"{name}_conv_branch2b1", dilation=4)
        y = self.norm_relu(y, f"{name}_bn_branch2b2")
        y = layers.SpatialDropout2D(rate * self.dropout, name=f"{name}_dropout2")(y)
        y = self.conv(y, last, 1, f"{name}_conv_branch2b2")
        x = self.conv(p, last, 1, f"{name}_conv_branch1", stride)
        return layers.Add(name=name)([x, y]), p


def resnet38(
    width=1.0,
    train_batchnorm=False,
    synchronized_batchnorm=True,
    frozen_stages=1,
    dropout=1.0,
    image=None,
    batchnorm_momentum=0.9,
):
    """Build ResNet38 as a functional model of named feature maps.

    Args:
      width: factor on every channel count, as `scale_channels` rounds; 1 is the published network
        (4096 channels at the end).
      train_batchnorm: train BatchNorm and use batch statistics, for training from scratch. The
        official code keeps every BatchNorm in inference mode with frozen parameters.
      synchronized_batchnorm: statistics over all replicas, where BatchNorm is trained.
      frozen_stages: 0 trains everything; 1 freezes the stem (conv1a and the units b2), as the
        official code; 2 also the units b3, which stage 1 comes from; 3 also b4; 4 also b5.
      dropout: factor on the channel dropout rates 0.3 (b6) and 0.5 (b7).
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.
      batchnorm_momentum: share of the moving statistics kept in a step, where BatchNorm is trained.

    Returns:
      `keras.Model` from image to {"stem": [B, ceil(H/2), ceil(W/2), 128 width],
      "stage1": [B, ceil(H/4), ceil(W/4), 256 width],
      "stage2": [B, ceil(H/8), ceil(W/8), 512 width], "stage3": [.., 1024 width],
      "stage4": [.., 4096 width]}: the stages are what the official code calls conv3 to conv6. All
      but the last are b3, b4, b5 and b6 after their first BatchNorm and ReLU.

    Raises:
      ValueError: `frozen_stages` is not 0 to 4.

    Source: Wu et al., "Wider or deeper" (2019), model A1; official `network/resnet38d.py`.
    """
    check_frozen_stages(frozen_stages)
    blocks = _Blocks(
        width, train_batchnorm, synchronized_batchnorm, dropout, frozen_stages, batchnorm_momentum
    )
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    x = blocks.conv(image, 64, 3, "conv1a")
    inner = {}
    for name, (kind, *settings) in _UNITS.items():
        x, inner[name] = getattr(blocks, kind)(x, name, *settings)
    features = {
        "stem": inner["b3"],
        "stage1": inner["b4"],
        "stage2": inner["b5"],
        "stage3": inner["b6"],
        "stage4": blocks.norm_relu(x, "bn7"),
    }
    return keras.Model(image, features, name="resnet38")
