"""The baselines of CPNet and SANet: a dilated FCN, and one with squeeze-and-excitation modules."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.stages import STAGES
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.squeeze_excitation import SqueezeExcitation
from wsss_tf.models.heads import classifier, fcn_head, network, on_grid


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
      backbone: as `wsss_tf.backbones` says.
      auxiliary: a second head on the third stage, for an auxiliary loss, as CPNet has.
      dropout: channel dropout before the classifiers; 0 makes training deterministic.
      synchronized_batchnorm: batch statistics over all replicas, in the heads.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`), any size, to {"logits": float32
      [B, H, W, K]} and, if wanted, "aux_logits" of the same shape.

    Source: the FCN50 and FCN101 of SANet (Zhong et al., CVPR 2020), table 3; that the head is a 3x3
    convolution to 512 channels and a classifier is ours.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    heads = {"logits": ("fcn", "stage4")}
    if auxiliary:
        heads["aux_logits"] = ("aux", "stage3")
    outputs = {}
    for output, (name, stage) in heads.items():
        low = fcn_head(trunk.output[stage], num_classes, name, dropout, synchronized_batchnorm)
        outputs[output] = ResizeLike(align_corners=False, name=output)([low, image])
    return network(image, outputs, trunk, "fcn")


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
    trunk = backbone(image=image)
    maps = {
        stage: SqueezeExcitation(
            scale_channels(trunk.output[stage].shape[-1], 1 / 4),
            reduction,
            synchronized_batchnorm,
            name=f"se{stage[-1]}",
        )(trunk.output[stage])
        for stage in STAGES
    }
    maps = on_grid(trunk, maps, "stage2", align_corners=False)
    concat = layers.Concatenate(name="concat")([*maps.values()])
    low = classifier(concat, num_classes, "mask", dropout)
    logits = ResizeLike(align_corners=False, name="logits")([low, image])
    return network(image, {"logits": logits}, trunk, "fcn_se")
