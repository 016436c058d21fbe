"""EfficientNet-B0 to B7 with dilation in place of late strides, for SANet's best number."""

import math

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.initializers import fan_out_normal
from wsss_tf.backbones.stages import check_frozen_stages
from wsss_tf.layers.batchnorm import batchnorm

# Name: factors on width and depth.
_SIZES = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
}
# Kernel size, repeats, output channels, expansion, stride; the stage that the group is the end of.
_GROUPS = (
    (3, 1, 16, 1, 1, "stem"),
    (3, 2, 24, 6, 2, "stage1"),
    (5, 2, 40, 6, 2, "stage2"),
    (3, 3, 80, 6, 2, None),
    (5, 3, 112, 6, 1, "stage3"),
    (5, 4, 192, 6, 2, None),
    (3, 1, 320, 6, 1, "stage4"),
)
_DROP_CONNECT = 0.2
_SQUEEZE = 0.25


class _Blocks:
    """The inverted bottleneck, with what all of them share. Layers are named as in Keras."""

    def __init__(self, train_batchnorm, synchronized):
        self.train_batchnorm = train_batchnorm
        self.synchronized = synchronized
        self.is_frozen = False  # whether what is built now belongs to a frozen stage

    def pad(self, x, size, name):
        # As the published weights were trained: for even sizes, less on the left and the top.
        return layers.ZeroPadding2D(((size // 2 - 1, size // 2),) * 2, name=f"{name}_pad")(x)

    def conv(self, x, count, size, name, stride=1):
        return layers.Conv2D(
            count,
            size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=fan_out_normal(),
            trainable=not self.is_frozen,
            name=name,
        )(x)

    def norm(self, x, name, activation=None):
        x = batchnorm(
            name,
            trainable=self.train_batchnorm and not self.is_frozen,
            synchronized=self.synchronized,
            epsilon=1e-3,
            momentum=0.99,
        )(x)
        return x if activation is None else layers.Activation("swish", name=activation)(x)

    def squeeze_excite(self, x, channels, name):
        weights = layers.GlobalAveragePooling2D(name=f"{name}se_squeeze")(x)
        # Keras' 1x1 convolutions of a 1x1 map, which are dense layers.
        hidden = max(1, int(channels * _SQUEEZE))
        weights = layers.Dense(
            hidden, "swish", trainable=not self.is_frozen, name=f"{name}se_reduce"
        )(weights)
        weights = layers.Dense(
            x.shape[-1], "sigmoid", trainable=not self.is_frozen, name=f"{name}se_expand"
        )(weights)
        weights = layers.Reshape((1, 1, x.shape[-1]), name=f"{name}se_reshape")(weights)
        return layers.Multiply(name=f"{name}se_excite")([x, weights])

    def block(self, x, count, size, expansion, stride, dilation, drop, name):
        source, channels = x, x.shape[-1]
        if expansion != 1:
            x = self.conv(x, expansion * channels, 1, f"{name}expand_conv")
            x = self.norm(x, f"{name}expand_bn", f"{name}expand_activation")
        if stride > 1:
            x = self.pad(x, size, f"{name}dwconv")
        x = layers.DepthwiseConv2D(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            depthwise_initializer=fan_out_normal(),
            trainable=not self.is_frozen,
            name=f"{name}dwconv",
        )(x)
        x = self.norm(x, f"{name}bn", f"{name}activation")
        x = self.squeeze_excite(x, channels, name)
        x = self.norm(self.conv(x, count, 1, f"{name}project_conv"), f"{name}project_bn")
        if stride == 1 and channels == count and not name.endswith("a_"):
            if drop > 0:
                x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
            x = layers.Add(name=f"{name}add")([x, source])
        return x


def _round_channels(count, factor, width):
    """Return the published channel count (a multiple of 8), or at another width one of 16."""
    count *= factor
    if width != 1:
        return scale_channels(count, width)
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


def efficientnet(
    size="b0",
    output_stride=8,
    width=1.0,
    train_batchnorm=True,
    synchronized_batchnorm=True,
    drop_connect=1.0,
    frozen_stages=0,
    image=None,
):
    """Build a dilated EfficientNet as a functional model of named feature maps.

    Args:
      size: "b0" to "b7".
      output_stride: of the last stage, 8, 16 or 32; strides beyond it become dilations. 32 costs a
        fraction of 8.
      width: factor on the channel counts of that size; at 1 they are the published multiples of 8,
        else multiples of 16.
      train_batchnorm: train BatchNorm with batch statistics; False freezes it.
      synchronized_batchnorm: statistics over all replicas, where BatchNorm is trained.
      drop_connect: factor on the rates at which whole residual branches are dropped in training.
      frozen_stages: 0 trains everything; 1 freezes the stem and block group 1, 2 also group 2, that
        is stage 1, 3 also group 3, 4 also groups 4 and 5.
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.

    Returns:
      `keras.Model` from image to {"stem": stride 2, "stage1": 4, "stage2": 8, "stage3": 16,
      "stage4": 32, or `output_stride` where that is less}: the outputs of block groups 1, 2, 3, 5
      and 7 (B7: 32, 48, 80, 224 and 640 channels), which are linear. The 1x1
      convolution that precedes ImageNet's classifier is left out. Which maps are the four stages
      is our choice: SANet does not say.

    Raises:
      ValueError: an unknown size or stride, or `frozen_stages` is not 0 to 4.

    Source: Tan and Le (2019); `keras.applications.EfficientNetB0` to B7, whose weights fit.
    """
    if size not in _SIZES:
        raise ValueError(f"size={size!r}; choose one of {', '.join(_SIZES)}.")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride={output_stride}; choose 8, 16 or 32.")
    factor, depth = _SIZES[size]
    blocks = _Blocks(train_batchnorm, synchronized_batchnorm)
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    # With the weights that Keras ships its own chain gives (v / 255 - mean) / deviation, the image
    # as it comes: its Normalization divides by the root of the deviations, which the files hold in
    # place of variances, and the Rescaling after it by that root once more.
    check_frozen_stages(frozen_stages)
    blocks.is_frozen = frozen_stages >= 1
    x = image
    x = blocks.pad(x, 3, "stem_conv")
    x = blocks.conv(x, _round_channels(32, factor, width), 3, "stem_conv", stride=2)
    x = blocks.norm(x, "stem_bn", "stem_activation")

    repeats = [math.ceil(depth * group[1]) for group in _GROUPS]
    features = {}
    reached, dilation, done = 2, 1, 0
    frozen_groups = (0, 1, 2, 3, 5)[frozen_stages]
    for number, (kernel, _, count, expansion, stride, stage) in enumerate(_GROUPS, start=1):
        blocks.is_frozen = number <= frozen_groups
        before = dilation
        if stride > 1 and reached < output_stride:
            reached *= stride
        else:
            dilation, stride = dilation * stride, 1
        for i in range(repeats[number - 1]):
            x = blocks.block(
                x,
                _round_channels(count, factor, width),
                kernel,
                expansion,
                stride if i == 0 else 1,
                # The first block's depthwise convolution would itself have had the stride.
                before if i == 0 else dilation,
                drop_connect * _DROP_CONNECT * done / sum(repeats),
                f"block{number}{chr(ord('a') + i)}_",
            )
            done += 1
        if stage is not None:
            features[stage] = x
    return keras.Model(image, features, name=f"efficientnet_{size}")
