"""ResNet-50 and ResNet-101 without late strides: the backbone of CPNet, SANet and IRN."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.stages import check_frozen_stages
from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.caffe_input import CaffeInput
from wsss_tf.layers.dilated_conv import DilatedConv2D

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Stem, where a block's stride is, convolution biases, BatchNorm epsilon; and the mean colour (red,
# green, blue) to be taken away, for weights that were trained on blue first in 0..255.
_VARIANTS = {
    "v1c": {
        "deep_stem": True,
        "first_stride": False,
        "use_bias": False,
        "epsilon": 1e-5,
        "mean": None,
    },
    "v1": {
        "deep_stem": False,
        "first_stride": False,
        "use_bias": False,
        "epsilon": 1e-5,
        "mean": None,
    },
    "keras": {
        "deep_stem": False,
        "first_stride": True,
        "use_bias": True,
        "epsilon": 1.001e-5,
        "mean": (123.68, 116.779, 103.939),
    },
}


class _Blocks:
    """The bottleneck and the stems, with what all of them share. Layers are named as in Keras."""

    def __init__(
        self,
        variant,
        width=1.0,
        train_batchnorm=True,
        synchronized=True,
        last_gamma="ones",
        frozen_stages=0,
        fixed_statistics=False,
    ):
        self.variant = variant
        self.frozen_stages = frozen_stages
        self.width = width
        self.train_batchnorm = train_batchnorm
        self.synchronized = synchronized
        self.last_gamma = last_gamma
        self.fixed_statistics = fixed_statistics

    def conv_norm(self, x, count, size, name, stride=1, dilation=1, relu=True, gamma="ones"):
        # conv1 is the stem, conv2 to conv5 are the stages.
        is_frozen = self.frozen_stages >= int(name[len("conv")])
        if size > 1:
            # On both sides, also before a stride; "same" would pad right and bottom only.
            pad = dilation * (size // 2)
            x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
        x = DilatedConv2D(
            scale_channels(count, self.width),
            size,
            strides=stride,
            dilation_rate=dilation,
            use_bias=self.variant["use_bias"],
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            trainable=not is_frozen,
            name=f"{name}_conv",
        )(x)
        x = batchnorm(
            f"{name}_bn",
            trainable=self.train_batchnorm and not is_frozen,
            synchronized=self.synchronized,
            epsilon=self.variant["epsilon"],
            gamma_initializer=gamma,
            fixed_statistics=self.fixed_statistics,
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def stem(self, x):
        if self.variant["deep_stem"]:
            for i, (count, stride) in enumerate(((32, 2), (32, 1), (64, 1)), start=1):
                x = self.conv_norm(x, count, 3, f"conv1_{i}", stride)
        else:
            x = self.conv_norm(x, 64, 7, "conv1", stride=2)
        # After a ReLU zeros lose against everything, as PyTorch's infinite padding does.
        x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
        return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)

    def bottleneck(self, x, count, name, stride, dilation, is_first):
        shortcut = x
        if is_first:
            shortcut = self.conv_norm(x, 4 * count, 1, f"{name}_0", stride, relu=False)
        first, second = (stride, 1) if self.variant["first_stride"] else (1, stride)
        x = self.conv_norm(x, count, 1, f"{name}_1", first)
        x = self.conv_norm(x, count, 3, f"{name}_2", second, dilation)
        x = self.conv_norm(x, 4 * count, 1, f"{name}_3", relu=False, gamma=self.last_gamma)
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        return layers.ReLU(name=f"{name}_out")(x)


def dilated_resnet(
    depth=50,
    output_stride=8,
    variant="v1c",
    width=1.0,
    train_batchnorm=True,
    synchronized_batchnorm=True,
    zero_init_residual=False,
    frozen_stages=0,
    image=None,
    dilate=True,
    fixed_statistics=False,
):
    """Build a dilated ResNet as a functional model of named feature maps.

    Args:
      depth: 50 or 101.
      output_stride: of the last stage, 8, 16 or 32; strides beyond it become dilations.
      variant: "v1c" is the papers': three 3x3 convolutions as stem, the stride of a block in its
        3x3 convolution, no biases, epsilon 1e-5. "v1" is the same with one 7x7 convolution as stem,
        as torchvision's weights want it. "keras" is that of `keras.applications`, whose
        ImageNet weights fit it and only it: a 7x7 stem, the stride in the first 1x1 convolution,
        biases, epsilon 1.001e-5, and a first layer that turns the image into what those weights
        were trained on: blue first, in 0..255, minus the mean colour. A network's layer names and
        shapes tell which it is.
      width: factor on every channel count, as `scale_channels` rounds; 1 is the published network.
      train_batchnorm: train BatchNorm with batch statistics; False freezes it.
      synchronized_batchnorm: statistics over all replicas, where BatchNorm is trained.
      zero_init_residual: start from gamma = 0 in the last BatchNorm of each block, so that at first
        blocks pass their input on; for networks that start from random values (Goyal et al., 2017).
      frozen_stages: 0 trains everything; 1 freezes the stem (conv1), 2 also conv2, that is stage 1,
        3 also conv3, 4 also conv4.
      image: symbolic input; None makes one, [B, H, W, 3], any size, as `ops.normalize_image` gives.
      dilate: False leaves strides beyond `output_stride` out without a dilation in their place, as
        IRN does.
      fixed_statistics: where BatchNorm is trained, its gamma and beta are, and its statistics stay
        as they were loaded.

    Returns:
      `keras.Model` from image to {"stem": [B, ceil(H/4), ceil(W/4), 64 width],
      "stage1": [.., 256 width], "stage2": [B, ceil(H/8), ceil(W/8), 512 width],
      "stage3": [.., 1024 width], "stage4": [.., 2048 width]}, after ReLU, without multi-grid.

    Raises:
      ValueError: an unknown depth, stride or variant, or `frozen_stages` is not 0 to 4.

    The first block of a dilated stage has the dilation of the stage before in "v1c" and "v1" (its
    3x3 convolution would have had the stride), the stage's own in "keras" (the stride would have
    come before). So both give at every position what the undilated network gives at its own.

    Source: He et al. (2016); stem and stride of He et al., "Bag of tricks" (2019); dilation as in
    the trunk of CPNet's official code.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"depth={depth}; choose one of {sorted(_BLOCKS)}.")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride={output_stride}; choose 8, 16 or 32.")
    if variant not in _VARIANTS:
        raise ValueError(f"variant={variant!r}; choose one of {sorted(_VARIANTS)}.")
    check_frozen_stages(frozen_stages)
    style = _VARIANTS[variant]
    last_gamma = "zeros" if zero_init_residual else "ones"
    blocks = _Blocks(
        style,
        width,
        train_batchnorm,
        synchronized_batchnorm,
        last_gamma,
        frozen_stages,
        fixed_statistics,
    )
    if image is None:
        image = keras.Input((None, None, 3), name="image")
    x = image
    if style["mean"] is not None:
        x = CaffeInput(style["mean"], name="caffe_input")(x)
    x = blocks.stem(x)
    features = {"stem": x}
    reached, dilation = 4, 1
    for stage, repeats in enumerate(_BLOCKS[depth], start=1):
        stride, before = 1, dilation
        if stage > 1 and reached < output_stride:
            stride, reached = 2, 2 * reached
        elif stage > 1 and dilate:
            dilation *= 2
        for block in range(1, repeats + 1):
            is_first = block == 1
            x = blocks.bottleneck(
                x,
                32 * 2**stage,
                f"conv{stage + 1}_block{block}",
                stride if is_first else 1,
                before if is_first and not style["first_stride"] else dilation,
                is_first,
            )
        features[f"stage{stage}"] = x
    return keras.Model(image, features, name=f"resnet{depth}_{variant}")
