"""AffinityNet: features in which neighbouring pixels of one object are alike."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.layers.pair_affinity import PairAffinity
from wsss_tf.models.heads import network, on_grid
from wsss_tf.models.side_branch import side_branch


def affinity_head(features, filters=(64, 128, 256), radius=5):
    """Return the head's outputs on a backbone's features.

    Args:
      features: dict of "stage2", "stage3", "stage4" [B, h, w, ..], on one grid.
      filters: channels of f8_3, f8_4 and f8_5; f9 has their sum, 448 in the published network.
      radius: pixels of the map, as `layers.pair_affinity.PairAffinity` takes it.

    Returns:
      Dict of float32: "features" [B, h, w, sum(filters)], the embedding, and of its pixels
      "affinity" [B, O, M] in (0, 1], which the layer of that name gives. Gradient flows into all
      three stages.
    """

    names = {"stage2": "f8_3", "stage3": "f8_4", "stage4": "f8_5"}
    sides = [
        side_branch(features[stage], count, name, "elu")
        for (stage, name), count in zip(names.items(), filters)
    ]
    joint = layers.Concatenate(name="affinity_features")(sides)
    # Xavier uniform with gain 4.
    xavier = keras.initializers.VarianceScaling(16, "fan_avg", "uniform")
    embedding = side_branch(joint, sum(filters), "f9", "elu", xavier)
    embedding = layers.Activation("linear", dtype="float32", name="features")(embedding)
    return {"features": embedding, "affinity": PairAffinity(radius, name="affinity")(embedding)}


def affinity_network(num_classes=None, backbone=resnet38, head_width=1.0, radius=5):
    """Build AffinityNet.

    Args:
      num_classes: not used: affinities know no classes. Recipes give it to every network.
      backbone: as `wsss_tf.backbones` says; ResNet38 is the paper's.
      head_width: factor on the head's channels; 1 in the paper.
      radius: pixels of the map in which pairs are made; less on maps under 2 radius + 1 pixels.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `affinity_head`,
      448 head_width features, on the grid of the backbone's stage 2, which has stride 8; coarser
      stages are resized to it.

    Source: AffinityNet (Ahn and Kwak, CVPR 2018), figure 3; official `network/resnet38_aff.py`.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    features = {stage: trunk.output[stage] for stage in ("stage2", "stage3", "stage4")}
    filters = [scale_channels(count, head_width) for count in (64, 128, 256)]
    outputs = affinity_head(on_grid(trunk, features, "stage2"), filters, radius)
    return network(image, outputs, trunk, "affinitynet")
