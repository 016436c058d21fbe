"""What several heads are made of, and how a head and its backbone become a network."""

import keras
from keras import layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.layers.conv_batchnorm import ConvBatchNorm
from wsss_tf.layers.resize import ResizeLike

# Side of a picture whose maps tell strides.
_PROBE = 256


def network(image, outputs, trunk, name):
    """Return the functional model of a head on a backbone.

    Args:
      image: its symbolic input.
      outputs: dict of its symbolic outputs.
      trunk: the backbone's model; its name stays with the network as the attribute `backbone_name`,
        by which training finds the backbone's ImageNet weights. A saved network has it no more.
      name: of the network.
    """
    net = keras.Model(image, outputs, name=name)
    net.backbone_name = trunk.name
    return net


def stride_of(net, output):
    """Return the stride of an output's map, pixels.

    Args:
      net: functional `keras.Model` of pictures of any size.
      output: its name.
    """
    return _PROBE // net.compute_output_shape((1, _PROBE, _PROBE, 3))[output][1]


def on_grid(trunk, maps, like, align_corners=True):
    """Bring a map of each of several stages to the grid of one of them.

    Args:
      trunk: the backbone's model, which tells the stages' strides.
      maps: {stage: [B, h, w, D]}, each on its stage's own grid.
      like: the stage whose grid it is; one of `maps`.
      align_corners: as in `ops.resize_bilinear`.

    Returns:
      The same dict, with maps of another grid resized bilinearly. Where all strides agree that is
      the very same tensors.
    """
    sizes = trunk.compute_output_shape((1, 64, 64, 3))
    return {
        stage: x
        if sizes[stage][1] == sizes[like][1]
        else ResizeLike(align_corners, name=f"{stage}_resized")([x, maps[like]])
        for stage, x in maps.items()
    }


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
