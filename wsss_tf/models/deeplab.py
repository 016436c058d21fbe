"""DeepLab with a large field of view: what is trained on pseudo labels."""

import functools

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.dilated_conv import DilatedConv2D
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.models.heads import network

# The official running averages keep 1 - 0.0003 of themselves in a step.
MOMENTUM = 0.9997

# ResNet38 as SEAM's authors retrain it. They mean to freeze BatchNorm, but never switch that on: it
# uses batch statistics.
deeplab_resnet38 = functools.partial(
    resnet38, train_batchnorm=True, frozen_stages=0, batchnorm_momentum=MOMENTUM
)


def deeplab_head(
    image,
    features,
    num_classes,
    filters=512,
    dilation=12,
    dropout=0.5,
    batchnorm_momentum=MOMENTUM,
    synchronized_batchnorm=True,
):
    """Return the head's outputs on a backbone's last features.

    Args:
      image: [B, H, W, 3] the network input.
      features: [B, h, w, D].
      num_classes: K, all classes of the masks.
      filters: channels of conv_fov and conv_fov2.
      dilation: of the 3x3 convolution, pixels of the feature map.
      dropout: elementwise, before the classifier.
      batchnorm_momentum, synchronized_batchnorm: as in `deeplab_network`.

    Returns:
      Dict of float32 maps: "logits_low" [B, h, w, K], and "logits" [B, H, W, K], the same at image
      size (aligned corners).

    Source: the DeepLab of SEAM's authors, `network/resnet38_deeplab.py`.
    """
    # PyTorch's kaiming_normal_ with mode "fan_out".
    kernel = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")

    def conv_norm_relu(x, size, name, number):
        x = DilatedConv2D(
            filters,
            size,
            padding="same",
            dilation_rate=dilation if size > 1 else 1,
            use_bias=False,
            kernel_initializer=kernel.clone(),
            name=name,
        )(x)
        x = batchnorm(
            f"bn_fov{number}", synchronized=synchronized_batchnorm, momentum=batchnorm_momentum
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    x = conv_norm_relu(features, 3, "conv_fov", "")
    x = conv_norm_relu(x, 1, "conv_fov2", "2")
    x = layers.Dropout(dropout, name="dropout_fov")(x)
    bound = filters**-0.5  # PyTorch's default
    scores = layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=kernel.clone(),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        name="cls_conv",
    )(x)
    scores = layers.Activation("linear", dtype="float32", name="logits_low")(scores)
    return {"logits_low": scores, "logits": ResizeLike(name="logits")([scores, image])}


def deeplab_network(
    num_classes,
    backbone=deeplab_resnet38,
    head_width=1.0,
    dilation=12,
    batchnorm_momentum=MOMENTUM,
    synchronized_batchnorm=True,
    dropout=0.5,
):
    """Build DeepLab-LargeFOV.

    Args:
      num_classes: K, all classes of the masks, background included if there is one.
      backbone: as `wsss_tf.backbones` says; `deeplab_resnet38` is that of SEAM's authors.
      head_width: factor on the head's 512 channels.
      dilation: of the head's 3x3 convolution; at crops much smaller than 448 pixels 12 leaves it
        nothing but padding.
      batchnorm_momentum: share of the running statistics kept in a step, in the head.
      synchronized_batchnorm: statistics over all replicas, in the head; the official ones are per
        GPU (5 images each), so that its results depend on how many there are.
      dropout: before the classifier; 0 (and 0 in the backbone) makes training deterministic.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `deeplab_head`.

    The official optimizer has no group for gamma and beta, so they keep their values: that is
    `batchnorm_multiplier=0` of `training.optimizer.poly_sgd`. Keras' running variance is that of
    the batch, PyTorch's n / (n - 1) times that; with n pixels of a batch that is nothing.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    outputs = deeplab_head(
        image,
        trunk.output["stage4"],
        num_classes,
        filters=scale_channels(512, head_width),
        dilation=dilation,
        dropout=dropout,
        batchnorm_momentum=batchnorm_momentum,
        synchronized_batchnorm=synchronized_batchnorm,
    )
    return network(image, outputs, trunk, "deeplab")
