"""SANet: squeeze-and-attention modules on the four stages of a dilated backbone.

SANet's code is closed. What the paper's figures and equations state is followed; what they leave
open is a choice of this package, named "ours" in the docstrings of the parts.
"""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.stages import STAGES
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.squeeze_attention import SqueezeAttention
from wsss_tf.models.heads import classifier, fcn_head, network, on_grid


def sanet_head(
    backbone,
    num_classes,
    attn_activation="relu",
    mid_filters=None,
    dropout=0.1,
    synchronized_batchnorm=True,
):
    """Return SANet's three predictions on a backbone's features, at their own sizes.

    Args:
      backbone: model of features "stage1" to "stage4".
      num_classes: K.
      attn_activation: as in `layers.squeeze_attention`.
      mid_filters: channels of the modules' first attention convolution; None for a quarter of a
        module's own (at least 16).
      dropout: channel dropout before the classifiers.
      synchronized_batchnorm: batch statistics over all replicas.

    Returns:
      {"mask": [B, H/8, W/8, K], "dense": [B, h, w, K] at the last stage's size, "category":
      [B, K]}, float32 logits.
    """
    features, modules = backbone.output, {}
    for stage in STAGES:
        filters = scale_channels(features[stage].shape[-1], 1 / 4)
        modules[stage] = SqueezeAttention(
            filters,
            mid_filters or scale_channels(filters, 1 / 4),
            attn_activation=attn_activation,
            synchronized_batchnorm=synchronized_batchnorm,
            name=f"sa{stage[-1]}",
        )(features[stage])
    on_stage2 = on_grid(backbone, modules, "stage2", align_corners=False)
    concat = layers.Concatenate(name="concat")([*on_stage2.values()])
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name="concat_mean")(concat)
    dense = fcn_head(features["stage4"], num_classes, "den", dropout, synchronized_batchnorm)
    of_sa4 = classifier(modules["stage4"], num_classes, "sa4_cls", dropout=0.0)
    return {
        "mask": classifier(concat, num_classes, "mask", dropout),
        "dense": layers.Add(dtype="float32", name="dense")([dense, of_sa4]),
        "category": layers.Dense(num_classes, dtype="float32", name="cat")(pooled),
    }


def sanet_network(
    num_classes,
    backbone=dilated_resnet,
    attn_activation="relu",
    mid_filters=None,
    dropout=0.1,
    synchronized_batchnorm=True,
):
    """Build SANet.

    Args:
      num_classes: K, all classes of the masks.
      backbone: as `wsss_tf.backbones` says.
      attn_activation, mid_filters, dropout: as in `sanet_head`.
      synchronized_batchnorm: batch statistics over all replicas, in the heads.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`), any size, to float32
      {"logits": [B, H, W, K] the masks, which are the prediction; "dense_logits": [B, H, W, K] the
      pixel-wise prediction, of the FCN head and the last module together; "category_logits":
      [B, K], which classes the image shows}. Pooling leaves nothing out if height and width are
      multiples of 64.

    Ours: modules on feature maps (not on K-channel maps), their outputs concatenated at stride 8,
    the classifiers' form and dropout, the output stride of the backbone.
    Source: SANet (Zhong et al., CVPR 2020), figure 3.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    low = sanet_head(
        trunk, num_classes, attn_activation, mid_filters, dropout, synchronized_batchnorm
    )
    outputs = {
        "logits": ResizeLike(align_corners=False, name="logits")([low["mask"], image]),
        "dense_logits": ResizeLike(align_corners=False, name="dense_logits")([low["dense"], image]),
        "category_logits": low["category"],
    }
    return network(image, outputs, trunk, "sanet")
