"""EfficientNet-Lite 0 to 2: ImageNet features that fit an ordinary computer."""

import keras
from keras import layers

from wsss_tf import ops
from wsss_tf.backbones.initializers import fan_out_normal
from wsss_tf.backbones.stages import check_frozen_stages
from wsss_tf.layers.batchnorm import batchnorm

# Of each group: kernel size, stride of the first block, expansion; the stage it is the end of.
_GROUPS = (
    (3, 1, 1, "stem"),
    (3, 2, 6, "stage1"),
    (5, 2, 6, "stage2"),
    (3, 2, 6, None),
    (5, 1, 6, "stage3"),
    (5, 2, 6, None),
    (3, 1, 6, None),
)
# Blocks and channels of the groups.
_SIZES = {
    "lite0": ((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    "lite1": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
    "lite2": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
}
# Groups that `frozen_stages` freezes: all up to the end of the stage below.
_FROZEN_GROUPS = (0, 1, 2, 3, 5)
_DROP_CONNECT = 0.2


class _Blocks:
    """The inverted bottleneck, with what all of them share."""

    def __init__(self, train_batchnorm, synchronized):
        self.train_batchnorm = train_batchnorm
        self.synchronized = synchronized
        self.is_frozen = False  # whether what is built now belongs to a frozen stage

    def conv(self, x, count, size, name, stride=1):
        return layers.Conv2D(
            count,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=fan_out_normal(),
            trainable=not self.is_frozen,
            name=f"{name}_conv",
        )(x)

    def norm(self, x, name, relu=True):
        x = batchnorm(
            f"{name}_bn",
            trainable=self.train_batchnorm and not self.is_frozen,
            synchronized=self.synchronized,
            epsilon=1e-3,
            momentum=0.99,
        )(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def block(self, x, count, size, expansion, stride, dilation, drop, name):
        source, channels = x, x.shape[-1]
        if expansion != 1:
            x = self.conv(x, expansion * channels, 1, f"{name}_expand")
            x = self.norm(x, f"{name}_expand")
        x = layers.DepthwiseConv2D(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            depthwise_initializer=fan_out_normal(),
            trainable=not self.is_frozen,
            name=f"{name}_depthwise_conv",
        )(x)
        x = self.norm(x, f"{name}_depthwise")
        x = self.norm(self.conv(x, count, 1, f"{name}_project"), f"{name}_project", relu=False)
        if drop is None:
            return x
        if drop > 0:
            x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
        return layers.Add(name=f"{name}_add")([x, source])


def efficientnet_lite(
    size="lite0",
    output_stride=16,
    train_batchnorm=False,
    synchronized_batchnorm=True,
    frozen_stages=1,
    drop_connect=0.0,
    image=None,
):
    """Build a dilated EfficientNet-Lite as a functional model of named feature maps.

    Args:
      size: "lite0", "lite1" or "lite2", whose ImageNet classifiers were trained on pictures of 224,
        240 and 260 pixels and have 4.7, 5.4 and 6.1 million parameters.
      output_stride: of the last stage, 8, 16 or 32; strides beyond it become dilations. Sizes of
        pictures that are multiples of 32 suit the network best.
      train_batchnorm: train BatchNorm with batch statistics; False freezes it.
      synchronized_batchnorm: statistics over all replicas, where BatchNorm is trained.
      frozen_stages: 0 trains all; 1 freezes the stem and block group 1; 2 also stage 1 (group 2);
        3 also stage 2 (group 3); 4 also stage 3 (groups 4 and 5).
      drop_connect: factor on the rates, 0 in the first block to 0.2 behind the last, at which the
        classifiers' training dropped whole residual branches.
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.

    Returns:
      `keras.Model` from image to {"stem": [B, ceil(H/2), ceil(W/2), 16], "stage1": [.., 24] at
      stride 4, "stage2": [.., 40] (lite2: 48) at 8, "stage3": [.., 112] (lite2: 120) at 16,
      "stage4": [.., 1280] at 32}, no stride above `output_stride`. Stem and stages 1 to 3 are the
      outputs of block groups 1, 2, 3 and 5, which are linear: a block has no activation at its
      end. Stage 4 is the 1x1 convolution before ImageNet's classifier, after its BatchNorm and
      ReLU6, in 0..6.

    Raises:
      ValueError: an unknown size or stride, or `frozen_stages` is not 0 to 4.

    Blocks are numbered as in the files of the published weights, `interop.imagenet`. Those weights
    want RGB as (v - 127) / 128, which the first layer makes, TensorFlow's padding "same"
    (asymmetric before strides) and epsilon 1e-3.

    Before strides that padding shifts even sizes, and the weights have learnt to make up for it: at
    sizes that are multiples of 32 a cell shows what is in its middle. Where a stride has become a
    dilation it shows what is further up and left, stage 4 at `output_stride` 16 by half a cell, 8
    pixels (seen on mirrored photographs: ours).

    Source: `tensorflow/tpu`, models/official/efficientnet/lite (2020): EfficientNet (Tan and Le,
    2019) with ReLU6, without squeeze and excitation, stem and head of one width for all sizes.
    """
    if size not in _SIZES:
        raise ValueError(f"size={size!r}; choose one of {', '.join(_SIZES)}.")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride={output_stride}; choose 8, 16 or 32.")
    check_frozen_stages(frozen_stages)
    blocks = _Blocks(train_batchnorm, synchronized_batchnorm)
    blocks.is_frozen = frozen_stages > 0
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    # From (v / 255 - mean) / deviation to (v - 127) / 128.
    x = layers.Rescaling(
        [255 * deviation / 128 for deviation in ops.IMAGENET_STD],
        [(255 * mean - 127) / 128 for mean in ops.IMAGENET_MEAN],
        name="lite_rescaling",
    )(image)
    x = blocks.norm(blocks.conv(x, 32, 3, "lite_stem", stride=2), "lite_stem")

    repeats, counts = _SIZES[size]
    features = {}
    reached, dilation, number = 2, 1, 0
    for group, (kernel, stride, expansion, stage) in enumerate(_GROUPS):
        blocks.is_frozen = group < _FROZEN_GROUPS[frozen_stages]
        before = dilation
        if stride > 1 and reached < output_stride:
            reached *= stride
        else:
            dilation, stride = dilation * stride, 1
        for i in range(repeats[group]):
            x = blocks.block(
                x,
                counts[group],
                kernel,
                expansion,
                stride if i == 0 else 1,
                # The first block's depthwise convolution would itself have had the stride.
                before if i == 0 else dilation,
                # The first block of a group changes the channels, so nothing can be added.
                None if i == 0 else drop_connect * _DROP_CONNECT * number / sum(repeats),
                f"lite_block{number}",
            )
            number += 1
        if stage is not None:
            features[stage] = x
    features["stage4"] = blocks.norm(blocks.conv(x, 1280, 1, "lite_head"), "lite_head")
    return keras.Model(image, features, name=f"efficientnet_{size}")
