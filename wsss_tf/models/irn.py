"""IRN: class boundaries and displacements to the centres of objects, and its CAM network."""

import functools

import keras
from keras import layers

from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.stages import STAGES
from wsss_tf.layers.enlarge import EnlargeLike
from wsss_tf.layers.mean_shift import MeanShift
from wsss_tf.layers.path_affinity import PathAffinity
from wsss_tf.layers.stop_gradient import StopGradient
from wsss_tf.models.heads import network

# Its sources, fine ones first.
SOURCES = ("stem", *STAGES)

# Strides stop at 16, and nothing takes the place of the last one.
irn_resnet50 = functools.partial(
    dilated_resnet, depth=50, variant="v1", output_stride=16, dilate=False
)


def _pytorch_default():
    """Return PyTorch's initializer of convolutions: uniform within 1 / sqrt(fan-in)."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _conv(x, filters, name):
    return layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer=_pytorch_default(), name=name
    )(x)


def _branch(x, filters, groups, name, factor=1, like=None):
    """1x1 convolution, GroupNorm, enlarging, ReLU, and what is on the grid of `like`."""
    x = _conv(x, filters, name)
    # Over all pixels of the map, those of a padding too.
    x = layers.GroupNormalization(groups, epsilon=1e-5, dtype="float32", name=f"{name}_gn")(x)
    if factor > 1:  # cutting and ReLU commute
        x = EnlargeLike(factor, name=f"{name}_enlarged")([x, like])
    return layers.ReLU(dtype="float32", name=f"{name}_relu")(x)


def edge_head(features, strides, filters=32, groups=4):
    """Return the logits of class boundaries.

    Args:
      features: dict of `SOURCES`, [B, h, w, ..] each on its own grid.
      strides: {source: int}; that of the stem is stage 1's.
      filters: channels of fc_edge1 to fc_edge5.
      groups: of their GroupNorm.

    Returns:
      float32 [B, h, w, 1] on the grid of stage 1.
    """
    grid = features["stage1"]
    sides = [
        _branch(
            features[source],
            filters,
            groups,
            f"fc_edge{number}",
            strides[source] // strides["stage1"],
            grid,
        )
        for number, source in enumerate(SOURCES, start=1)
    ]
    joint = layers.Concatenate(dtype="float32", name="edge_features")(sides)
    bound = (len(sides) * filters) ** -0.5
    return layers.Conv2D(
        1,
        1,
        kernel_initializer=_pytorch_default(),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype="float32",
        name="fc_edge6",
    )(joint)


def displacement_head(features, strides, filters=(64, 128, 256, 256, 256, 256, 256)):
    """Return the displacement of each cell to the centre of its object.

    Args:
      features, strides: as in `edge_head`.
      filters: channels of fc_dp1 to fc_dp7.

    Returns:
      float32 [B, h, w, 2] on the grid of stage 1, (dy, dx) in its cells. In inference without the
      mean that the layer "mean_shift" holds.
    """
    groups = (8, *[16] * 6)
    middle, fine = features["stage2"], features["stage1"]

    def branch(x, number, factor=1, like=None):
        name = f"fc_dp{number}"
        return _branch(x, filters[number - 1], groups[number - 1], name, factor, like)

    sides = [branch(features[source], number) for number, source in enumerate(SOURCES[:3], start=1)]
    deep = [
        branch(features[source], number, strides[source] // strides["stage2"], middle)
        for number, source in enumerate(SOURCES[3:], start=4)
    ]
    joint = layers.Concatenate(dtype="float32", name="dp_deep_features")([sides[2], *deep])
    upper = branch(joint, 6, strides["stage2"] // strides["stage1"], fine)
    joint = layers.Concatenate(dtype="float32", name="dp_features")([*sides[:2], upper])
    x = _conv(branch(joint, 7), 2, "fc_dp7_out")
    return MeanShift(dtype="float32", name="mean_shift")(x)


def irn_head(features, strides, radius=10, crop_size=512, displacement=False):
    """Return the outputs of IRN on a backbone's features.

    Args:
      features, strides: as in `edge_head`.
      radius, crop_size: as in `irn_network`.
      displacement: also that branch.

    Returns:
      Dict of float32: "edge_logits" [B, h, w, 1]; of its pixels "affinity" [B, O, M] in [0, 1],
      which the layer of that name gives; and where it is wanted "displacement" [B, h, w, 2].
    """
    edge_logits = edge_head(features, strides)
    affinity = PathAffinity(radius, crop_size, name="affinity")(edge_logits)
    outputs = {"edge_logits": edge_logits, "affinity": affinity}
    if displacement:
        outputs["displacement"] = displacement_head(features, strides)
    return outputs


def irn_network(
    num_classes=None, backbone=irn_resnet50, radius=10, crop_size=512, displacement=False
):
    """Build IRN.

    Args:
      num_classes: not used: boundaries know no classes. Recipes give it to every network.
      backbone: as `wsss_tf.backbones` says, with a stage 1 of stride 4; `irn_resnet50` is the
        paper's. It is frozen wholly and stays as ImageNet left it.
      radius: pixels of the map in which pairs are made in training; less on maps under
        2 radius + 1 pixels.
      crop_size: side of the pictures in training, pixels, which the walk pads its pictures to: of
        another size GroupNorm sees other statistics.
      displacement: also the displacement branch, which tells the objects of a class apart. The two
        share nothing that is trained: boundaries are the very same without it.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `irn_head`, on the
      grid of stage 1. 125,409 parameters are trained, with displacements 1,394,529.

    Source: IRN (Ahn, Cho and Kwak, CVPR 2019), section 4; official `net/resnet50_irn.py`.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    trunk.trainable = False
    for layer in trunk.layers:
        if isinstance(layer, layers.Dropout):  # it would still be drawn in training
            layer.rate = 0.0
    sizes = trunk.compute_output_shape((1, 64, 64, 3))
    strides = {source: 64 // sizes[source][1] for source in SOURCES}
    features = {
        source: StopGradient(name=f"{source}_constant")(trunk.output[source]) for source in SOURCES
    }
    if strides["stem"] < strides["stage1"]:
        # Of a stem without the pool that ResNet's has.
        step = strides["stage1"] // strides["stem"]
        pool = layers.MaxPooling2D(3, step, padding="same", name="stem_pool")
        features["stem"], strides["stem"] = pool(features["stem"]), strides["stage1"]
    outputs = irn_head(features, strides, radius, crop_size, displacement)
    return network(image, outputs, trunk, "irn")


# The stem and stages 1 and 2 are frozen, and everywhere the statistics of BatchNorm.
irn_cam_resnet50 = functools.partial(irn_resnet50, frozen_stages=3, fixed_statistics=True)


def irn_cam_head(features, num_classes):
    """Return the outputs of IRN's classifier on a backbone's last features.

    Args:
      features: [B, h, w, D].
      num_classes: C, foreground classes.

    Returns:
      Dict of float32 "class_logits" [B, C], and "cam" [B, h, w, C + 1], raw scores behind a
      background channel of zeros.
    """
    # Averaging commutes with the linear layer, so the maps come first.
    scores = _conv(features, num_classes, "classifier")
    scores = layers.Activation("linear", dtype="float32", name="scores")(scores)
    class_logits = layers.GlobalAveragePooling2D(dtype="float32", name="class_logits")(scores)
    return {
        "class_logits": class_logits,
        "cam": keras.ops.pad(scores, [[0, 0], [0, 0], [0, 0], [1, 0]]),
    }


def irn_cam_network(num_classes, backbone=irn_cam_resnet50):
    """Build the classifier whose activation maps IRN starts from.

    Args:
      num_classes: C, foreground classes of the data set.
      backbone: as `wsss_tf.backbones` says; `irn_cam_resnet50` is the paper's.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `irn_cam_head`, on
      the grid of the backbone's last stage.

    Source: IRN, section 3.1; official `net/resnet50_cam.py`.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    return network(image, irn_cam_head(trunk.output["stage4"], num_classes), trunk, "irn_cam")
