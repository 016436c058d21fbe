"""The SEAM network: class activation maps and their refinement by pixel correlation."""

import keras
from keras import layers

from wsss_tf.backbones.resnet38 import resnet38, scale_channels
from wsss_tf.layers.normalize_cam import NormalizeCam
from wsss_tf.layers.pcm import Pcm
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.stop_gradient import StopGradient
from wsss_tf.models.side_branch import side_branch

# Layers of the head, which are trained from random values at ten times the backbone's rate.
NEW_LAYERS = ("fc8", "f8_3", "f8_4", "f9")


def seam_head(image, features, num_classes, filters=(64, 128, 192), dropout=0.5, pcm_tile=None):
    """Return the head's outputs on a backbone's features.

    Args:
      image: [B, H, W, 3] the network input.
      features: dict of "conv4", "conv5", "conv6" [B, h, w, ..].
      num_classes: C, foreground classes.
      filters: channels of f8_3, f8_4 and f9; the published network's by default.
      dropout: channel dropout on conv6.
      pcm_tile: as in `layers.pcm.pixel_correlation`.

    Returns:
      Dict of float32 maps with K = C + 1 channels, background first:
      "cam_low" [B, h, w, K] raw linear scores; "pcm_low" [B, h, w, K] in [0, 1];
      "cam" and "cam_rv" [B, H, W, K], the same two at image size.
    """

    dropped = layers.SpatialDropout2D(dropout, name="dropout7")(features["conv6"])
    scores = layers.Conv2D(num_classes + 1, 1, use_bias=False, name="fc8")(dropped)
    scores = layers.Activation("linear", dtype="float32", name="cam_low")(scores)

    def side(name, source, count):
        x = StopGradient(name=f"{source}_constant")(features[source])
        return side_branch(x, count, name, "relu")

    low_image = ResizeLike(name="image_low")([image, features["conv6"]])
    sides = [low_image, side("f8_3", "conv4", filters[0]), side("f8_4", "conv5", filters[1])]
    joint = layers.Concatenate(name="pcm_features")(sides)
    norm_cam = NormalizeCam(name="norm_cam")(scores)
    refined = Pcm(filters[2], tile=pcm_tile, name="pcm")([norm_cam, joint])
    return {
        "cam_low": scores,
        "pcm_low": refined,
        "cam": ResizeLike(name="cam")([scores, image]),
        "cam_rv": ResizeLike(name="cam_rv")([refined, image]),
    }


def seam_network(
    num_classes,
    width=1.0,
    head_width=None,
    train_batchnorm=False,
    freeze_stem=True,
    dropout=1.0,
    pcm_tile=2048,
):
    """Build the SEAM network on ResNet38.

    Args:
      num_classes: C, foreground classes of the data set.
      width: factor on the backbone's channels; 1 is the published network.
      head_width: factor on the PCM's channels; None takes `width`.
      train_batchnorm, freeze_stem: as in `backbones.resnet38.resnet38`.
      dropout: factor on all dropout rates; 0 makes training deterministic.
      pcm_tile: output pixels of the PCM computed at a time in inference.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `seam_head`.
      105,358,208 parameters at width 1 and C = 20, the statistics of BatchNorm not counted.

    Source: SEAM (Wang et al., CVPR 2020), figure 2; official `network/resnet38_SEAM.py`.
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
    outputs = seam_head(
        image,
        backbone.output,
        num_classes,
        filters=[scale_channels(count, head_width) for count in (64, 128, 192)],
        dropout=0.5 * dropout,
        pcm_tile=pcm_tile,
    )
    return keras.Model(image, outputs, name="seam")
