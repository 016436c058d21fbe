"""CPNet: a dilated backbone and the context prior, and the networks it is compared with."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.layers.aggregation import Aggregation
from wsss_tf.layers.context_prior import ContextPrior
from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.models.heads import classifier, fcn_head, network

# Which contexts are put beside the backbone's features.
CONTEXTS = {
    "both": ("intra", "inter"),
    "intra": ("intra",),
    "inter": ("inter",),
    "aggregation": (),  # what the aggregation module gives, without a prior
    "none": (),
}


def cpnet_head(
    x,
    num_classes,
    size=None,
    context="both",
    kernel_size=11,
    filters=None,
    dropout=0.1,
    prior_tile=None,
    synchronized_batchnorm=True,
):
    """Return the context prior layer's outputs on a backbone's last features.

    Args:
      x: [B, h, w, D].
      num_classes: K.
      size: (h, w), which a prior fixes.
      context: a key of `CONTEXTS`.
      kernel_size: of the aggregation module.
      filters: channels of the aggregation module and of the bottleneck; None for D / 4 each, which
        is the published 512.
      dropout: channel dropout before the classifier.
      prior_tile: as `tile` of `layers.context_prior.ContextPrior`.
      synchronized_batchnorm: batch statistics over all replicas.

    Returns:
      {"low_logits": float32 [B, h, w, K]} and, with a prior, "prior": float32 [B, N, N] logits.
    """
    filters = filters or (scale_channels(x.shape[-1], 1 / 4),) * 2
    sync = {"synchronized_batchnorm": synchronized_batchnorm}
    parts, outputs = [x], {}
    if context != "none":
        value = Aggregation(filters[0], kernel_size, name="aggregation", **sync)(x)
    if context == "aggregation":
        parts.append(value)
    if CONTEXTS[context]:
        intra, inter, outputs["prior"] = ContextPrior(
            size, prior_tile, name="context_prior", **sync
        )(value)
        contexts = {"intra": intra, "inter": inter}
        parts += [
            # Averages over all positions vary little from one to the next: float32 until BatchNorm
            # has scaled them up. The convolutions are in the official code, not in the figure.
            ConvBatchNorm(filters[0], 1, dtype="float32", name=f"{name}_conv", **sync)(
                contexts[name]
            )
            for name in CONTEXTS[context]
        ]
    if len(parts) > 1:
        x = layers.Concatenate(name="with_context")(parts)
    x = ConvBatchNorm(filters[1], 3, name="bottleneck", **sync)(x)
    outputs["low_logits"] = classifier(x, num_classes, "cls", dropout)
    return outputs


def cpnet_network(
    num_classes,
    crop_size=480,
    backbone=dilated_resnet,
    context="both",
    auxiliary=True,
    kernel_size=11,
    dropout=0.1,
    prior_tile=None,
    synchronized_batchnorm=True,
):
    """Build CPNet, or a variant of it.

    Args:
      num_classes: K, all classes of the masks.
      crop_size: of the images, an int or (height, width), pixels, multiples of 8. The prior has a
        channel for each position of the last feature map, so the network takes images with a map
        of this size only; others go through it in sliding windows. Without a prior it takes any.
      backbone: as `wsss_tf.backbones` says.
      context: what is put beside the backbone's features: "both" is CPNet; "intra" or "inter" only
        the positions of the same class, or of other classes; "aggregation" what the aggregation
        module gives, without a prior; "none" nothing, which is the FCN.
      auxiliary: a second head on the third stage, for the auxiliary loss.
      kernel_size: of the aggregation module.
      dropout: channel dropout before the classifiers; 0 makes training deterministic.
      prior_tile: positions whose context is computed at a time in inference; None for all.
      synchronized_batchnorm: batch statistics over all replicas, in the heads.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 {"logits": [B, H, W, K]},
      "aux_logits" of the same shape, and, with a prior, "prior": [B, N, N] logits, where N is the
      number of positions of the last stage (crop 480: 60 x 60 = 3600).

    Raises:
      ValueError: a crop that is no multiple of 8, an unknown context; and, when the network is
        called, images of another size than the crop.

    Source: CPNet (Yu et al., CVPR 2020), figure 3; official `CPHead` and its configuration.
    """
    if context not in CONTEXTS:
        raise ValueError(f"context={context!r}; choose one of {', '.join(CONTEXTS)}.")
    crop = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
    if any(side < 8 or side % 8 for side in crop):
        raise ValueError(f"crop_size={crop_size}: choose multiples of 8.")
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=image)
    features = trunk.output
    head = cpnet_head(
        features["stage4"],
        num_classes,
        trunk.compute_output_shape((1, *crop, 3))["stage4"][1:3],
        context,
        kernel_size,
        dropout=dropout,
        prior_tile=prior_tile,
        synchronized_batchnorm=synchronized_batchnorm,
    )
    low = {"logits": head.pop("low_logits")}
    if auxiliary:
        low["aux_logits"] = fcn_head(
            features["stage3"], num_classes, "aux", dropout, synchronized_batchnorm
        )
    outputs = {
        name: ResizeLike(align_corners=False, name=name)([logits, image])
        for name, logits in low.items()
    }
    return network(image, {**outputs, **head}, trunk, "cpnet")
