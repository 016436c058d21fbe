"""The baselines of CPNet and SANet: a dilated FCN, and one with squeeze-and-excitation modules."""

import keras
from keras import layers

from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.resnet38 import scale_channels
from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.squeeze_excitation import SqueezeExcitation

STAGES = ("stage1", "stage2", "stage3", "stage4")


def classifier(x, num_classes, name, dropout=0.1):
    """Return per-pixel logits, float32 [B, h, w, K], of features [B, h, w, D].

    Channel dropout and a 1x1 convolution `name` with bias, in float32 under mixed precision too.
    """
    x = layers.SpatialDropout2D(dropout, name=f"{name}_dropout")(x)
    return layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name=name,
    )(x)


def fcn_head(x, num_classes, name, dropout=0.1, synchronized_batchnorm=True):
    """Return logits of features: a 3x3 convolution to a quarter of the channels, and a classifier.

    Args:
      x: [B, h, w, D].
      num_classes: K.
      name: of the layers: `name`_conv and `name`_cls.
      dropout: channel dropout before the classifier.
      synchronized_batchnorm: batch statistics over all replicas.

    Returns:
      float32 [B, h, w, K].
    """
    conv = ConvBatchNorm(
        scale_channels(x.shape[-1], 1 / 4),
        3,
        synchronized_batchnorm=synchronized_batchnorm,
        name=f"{name}_conv",
    )
    return classifier(conv(x), num_classes, f"{name}_cls", dropout)


def concat_stages(backbone, maps):
    """Concatenate one map of each stage on the grid of the second, which has stride 8.

    Args:
      backbone: model of features by stage, which tells the stages' strides.
      maps: {stage: [B, h, w, D]} in the order of `STAGES`, each on its stage's grid.

    Returns:
      [B, H / 8, W / 8, sum of D]; maps of another grid are resized bilinearly.
    """
    sizes = backbone.compute_output_shape((1, 64, 64, 3))
    on_grid = [
        maps[stage]
        if sizes[stage][1] == sizes["stage2"][1]
        else ResizeLike(align_corners=False, name=f"{stage}_resized")([maps[stage], maps["stage2"]])
        for stage in STAGES
    ]
    return layers.Concatenate(name="concat")(on_grid)


def fcn_network(
    num_classes,
    backbone=dilated_resnet,
    auxiliary=False,
    dropout=0.1,
    synchronized_batchnorm=True,
):
    """Build the FCN baseline: a dilated backbone and an FCN head on its last stage.

    Args:
      num_classes: K, all classes of the masks.
      backbone: `backbone(image=..., synchronized_batchnorm=...)`, a model of features by stage.
      auxiliary: a second head on the third stage, for an auxiliary loss, as CPNet has.
      dropout: channel dropout before the classifiers; 0 makes training deterministic.
      synchronized_batchnorm: batch statistics over all replicas, in backbone and heads.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`), any size, to {"logits": float32
      [B, H, W, K]} and, if wanted, "aux_logits" of the same shape.

    Source: the FCN50 and FCN101 of SANet (Zhong et al., CVPR 2020), table 3; that the head is a 3x3
    convolution to 512 channels and a classifier is ours.
    """
    image = keras.Input((None, None, 3), name="image")
    features = backbone(image=image, synchronized_batchnorm=synchronized_batchnorm).output
    heads = {"logits": ("fcn", "stage4")}
    if auxiliary:
        heads["aux_logits"] = ("aux", "stage3")
    outputs = {}
    for output, (name, stage) in heads.items():
        low = fcn_head(features[stage], num_classes, name, dropout, synchronized_batchnorm)
        outputs[output] = ResizeLike(align_corners=False, name=output)([low, image])
    return keras.Model(image, outputs, name="fcn")


def fcn_se_network(
    num_classes,
    backbone=dilated_resnet,
    reduction=16,
    dropout=0.1,
    synchronized_batchnorm=True,
):
    """Build the FCN-SE baseline: SANet with squeeze-and-excitation modules and one prediction.

    Args:
      num_classes, backbone, dropout, synchronized_batchnorm: as in `fcn_network`.
      reduction: as in `layers.squeeze_excitation`.

    Returns:
      `keras.Model` from [B, H, W, 3], any size, to {"logits": float32 [B, H, W, K]}.

    Source: the FCN50-SE and FCN101-SE of SANet (Zhong et al., CVPR 2020), table 3. Where the
    modules sit is not known; here they take the places of SANet's own, a choice of ours.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image, synchronized_batchnorm=synchronized_batchnorm)
    maps = {
        stage: SqueezeExcitation(
            scale_channels(trunk.output[stage].shape[-1], 1 / 4),
            reduction,
            synchronized_batchnorm,
            name=f"se{stage[-1]}",
        )(trunk.output[stage])
        for stage in STAGES
    }
    low = classifier(concat_stages(trunk, maps), num_classes, "mask", dropout)
    logits = ResizeLike(align_corners=False, name="logits")([low, image])
    return keras.Model(image, {"logits": logits}, name="fcn_se")
