"""AffinityNet: features in which neighbouring pixels of one object are alike."""

import keras
from keras import layers

from wsss_tf.backbones.resnet38 import resnet38, scale_channels
from wsss_tf.models.side_branch import side_branch

# Layers of the head, which are trained from random values at ten times the backbone's rate.
NEW_LAYERS = ("f8_3", "f8_4", "f8_5", "f9")


def affinity_head(features, filters=(64, 128, 256)):
    """Return the embedding of a backbone's features.

    Args:
      features: dict of "conv4", "conv5", "conv6" [B, h, w, ..].
      filters: channels of f8_3, f8_4 and f8_5; f9 has their sum, 448 in the published network.

    Returns:
      float32 [B, h, w, sum(filters)], for `ops.pairwise_affinity`. Gradient flows into all three.
    """

    sides = [
        side_branch(features[source], count, name, "elu")
        for source, count, name in zip(("conv4", "conv5", "conv6"), filters, NEW_LAYERS)
    ]
    joint = layers.Concatenate(name="affinity_features")(sides)
    # Xavier uniform with gain 4.
    xavier = keras.initializers.VarianceScaling(16, "fan_avg", "uniform")
    embedding = side_branch(joint, sum(filters), "f9", "elu", xavier)
    return layers.Activation("linear", dtype="float32", name="features")(embedding)


def affinity_network(
    num_classes=None,
    width=1.0,
    head_width=None,
    train_batchnorm=False,
    freeze_stem=True,
    dropout=1.0,
):
    """Build AffinityNet on ResNet38.

    Args:
      num_classes: not used: affinities know no classes. Recipes give it to every network.
      width: factor on the backbone's channels; 1 is the published network.
      head_width: factor on the head's channels; None takes `width`.
      train_batchnorm, freeze_stem, dropout: as in `backbones.resnet38.resnet38`.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to
      {"features": float32 [B, ceil(H/8), ceil(W/8), 448 head_width]}.

    Source: AffinityNet (Ahn and Kwak, CVPR 2018), figure 3; official `network/resnet38_aff.py`.
    """
    image = keras.Input((None, None, 3), name="image")
    backbone = resnet38(
        width,
        train_batchnorm=train_batchnorm,
        freeze_stem=freeze_stem,
        dropout=dropout,
        image=image,
    )
    head_width = width if head_width is None else head_width
    filters = [scale_channels(count, head_width) for count in (64, 128, 256)]
    features = affinity_head(backbone.output, filters)
    return keras.Model(image, {"features": features}, name="affinitynet")
