"""The SEAM network: class activation maps and their refinement by pixel correlation."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.layers.normalize_cam import NormalizeCam
from wsss_tf.layers.pcm import Pcm
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.stop_gradient import StopGradient
from wsss_tf.models.heads import network, on_grid
from wsss_tf.models.side_branch import side_branch


def seam_head(image, features, num_classes, filters=(64, 128, 192), dropout=0.5, pcm_tile=2048):
    """Return the head's outputs on a backbone's features.

    Args:
      image: [B, H, W, 3] the network input.
      features: dict of "stage2", "stage3", "stage4" [B, h, w, ..], on one grid.
      num_classes: C, foreground classes.
      filters: channels of f8_3, f8_4 and f9; the published network's by default.
      dropout: channel dropout on stage 4.
      pcm_tile: output pixels of the PCM computed at a time in inference; None for all.

    Returns:
      Dict of float32 maps with K = C + 1 channels, background first:
      "cam_low" [B, h, w, K] raw linear scores; "pcm_low" [B, h, w, K] in [0, 1];
      "cam" and "cam_rv" [B, H, W, K], the same two at image size.
    """

    dropped = layers.SpatialDropout2D(dropout, name="dropout7")(features["stage4"])
    scores = layers.Conv2D(num_classes + 1, 1, use_bias=False, name="fc8")(dropped)
    scores = layers.Activation("linear", dtype="float32", name="cam_low")(scores)

    def side(name, source, count):
        x = StopGradient(name=f"{source}_constant")(features[source])
        return side_branch(x, count, name, "relu")

    low_image = ResizeLike(name="image_low")([image, features["stage4"]])
    sides = [low_image, side("f8_3", "stage2", filters[0]), side("f8_4", "stage3", filters[1])]
    joint = layers.Concatenate(name="pcm_features")(sides)
    norm_cam = NormalizeCam(name="norm_cam")(scores)
    refined = Pcm(filters[2], tile=pcm_tile, name="pcm")([norm_cam, joint])
    return {
        "cam_low": scores,
        "pcm_low": refined,
        "cam": ResizeLike(name="cam")([scores, image]),
        "cam_rv": ResizeLike(name="cam_rv")([refined, image]),
    }


def seam_network(num_classes, backbone=resnet38, head_width=1.0, dropout=0.5, pcm_tile=2048):
    """Build the SEAM network.

    Args:
      num_classes: C, foreground classes of the data set.
      backbone: as `wsss_tf.backbones` says; ResNet38 is the paper's.
      head_width: factor on the PCM's channels; 1 in the paper.
      dropout: channel dropout before the classifier; 0 (and 0 in the backbone) makes training
        deterministic.
      pcm_tile: as in `seam_head`.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to the outputs of `seam_head`, on the
      grid of the backbone's last stage. On ResNet38 105,358,208 parameters at C = 20, the
      statistics of BatchNorm not counted.

    Source: SEAM (Wang et al., CVPR 2020), figure 2; official `network/resnet38_SEAM.py`.
    """
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    features = {stage: trunk.output[stage] for stage in ("stage2", "stage3", "stage4")}
    outputs = seam_head(
        image,
        on_grid(trunk, features, "stage4"),
        num_classes,
        filters=[scale_channels(count, head_width) for count in (64, 128, 192)],
        dropout=dropout,
        pcm_tile=pcm_tile,
    )
    return network(image, outputs, trunk, "seam")
