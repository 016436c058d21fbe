"""SEC's segmentation network, and the two classifiers that its localisation cues come from."""

import functools

import keras
from keras import initializers, layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.vgg16 import vgg16
from wsss_tf.backbones.vgg16_largefov import vgg16_largefov
from wsss_tf.layers.batchnorm import batchnorm
from wsss_tf.layers.log_probs import LogProbs
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.resize_to import ResizeTo
from wsss_tf.models.heads import network

_FOREGROUND_BACKBONE = functools.partial(vgg16, pools=3)
_BACKGROUND_BACKBONE = functools.partial(vgg16, pools=5)


def _features(image_size, backbone):
    """Return the symbolic image of any size, the trunk on its warp to a square, and the stages."""
    image = keras.Input((None, None, 3), name="image")
    trunk = backbone(image=ResizeTo((image_size, image_size), name="warp")(image))
    # A model of something else than an input is a copy of the graph that it is cut out of; the
    # layers' first outputs are those on our image.
    stages = {
        stage: trunk.get_layer(layer).output
        for stage, layer in zip(sorted(trunk.output), trunk.output_names)
    }
    return image, trunk, stages


def _normal(deviation):
    return initializers.RandomNormal(stddev=deviation)


def sec_network(num_classes, image_size=321, backbone=vgg16_largefov):
    """Build SEC's network (DeepLab-CRF-LargeFOV in the paper), with its warp to a square inside.

    Args:
      num_classes: K, all classes, background included.
      image_size: side that images are warped to: 8 k + 1 for VGG16; elsewhere a multiple of the
        largest stride that the backbone has or was trained with suits best.
      backbone: as `wsss_tf.backbones` says; its fourth stage is classified.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 maps, background first:
      "logits_low" [B, h, w, K] raw scores on the network's own grid, 41 x 41 in the paper, what is
      trained; "logits" [B, H, W, K] at image size: logarithms of softmax probabilities that were
      enlarged with aligned corners, not below log(1e-5): the test-time CRF's negative energy.
      An image of other size than `image_size` is first warped with aligned corners, its shape not
      kept, as the official demo does; so one scale without cropping is the method's own inference.
      20,505,429 parameters with the default backbone and K = 21.

    Raises:
      ValueError: an `image_size` that the backbone cannot take.

    Source: SEC (Kolesnikov and Lampert, ECCV 2016), section 4.1; official demo.
    """
    image, trunk, stages = _features(image_size, backbone)
    scores = layers.Conv2D(num_classes, 1, kernel_initializer=_normal(0.01), name="fc8")(
        stages["stage4"]
    )
    scores = layers.Activation("linear", dtype="float32", name="logits_low")(scores)
    probs = layers.Softmax(dtype="float32", name="probs_low")(scores)
    probs = ResizeLike(name="probs")([probs, image])
    logits = LogProbs(1e-5, name="logits")(probs)
    return network(image, {"logits_low": scores, "logits": logits}, trunk, "sec")


def foreground_network(
    num_classes,
    image_size=321,
    backbone=_FOREGROUND_BACKBONE,
    head_width=1.0,
    head_batchnorm=False,
    dropout=0.5,
):
    """Build the classifier whose class activation maps are SEC's foreground cues.

    On the last features two 3x3 convolutions of 1024 channels, the second without ReLU, global
    average pooling and a linear layer without bias.

    Args:
      num_classes: C, foreground classes of the data set.
      image_size: as in `sec_network`.
      backbone: as `wsss_tf.backbones` says; in the paper VGG16 with the pools of blocks 1 to 3.
      head_width: factor on the 1024 channels.
      head_batchnorm: BatchNorm before the head's ReLU, for training from random values (not in the
        paper).
      dropout: rate after each of the two convolutions (single values, not whole channels).

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 "class_logits" [B, C]; the
      activation maps "heat" [B, h, w, C] on the network's grid, 41 x 41 in the paper, any sign; and
      "cam" [B, H, W, C + 1], the same at image size behind a background channel of zeros, for
      `wsss_tf.infer` and the validation during training.

    Raises:
      ValueError: an `image_size` that the backbone cannot take.

    Source: SEC, section 4.1; Zhou et al., "Learning deep features for discriminative localization"
    (CVPR 2016); the released foreground network.
    """
    image, trunk, stages = _features(image_size, backbone)
    x = stages["stage4"]
    channels = scale_channels(1024, head_width)
    for name in ("fc6", "fc7"):
        x = layers.Conv2D(
            channels, 3, padding="same", kernel_initializer=_normal(0.005), name=f"{name}_cam"
        )(x)
        if name == "fc6":
            if head_batchnorm:
                x = batchnorm("fc6_cam_bn")(x)
            x = layers.ReLU(name="fc6_cam_relu")(x)
        x = layers.Dropout(dropout, name=f"drop{name[-1]}")(x)
    # Averaging commutes with the linear layer, so the maps come first.
    heat = layers.Conv2D(
        num_classes, 1, use_bias=False, kernel_initializer=_normal(0.005), name="fc8_cam"
    )(x)
    heat = layers.Activation("linear", dtype="float32", name="heat")(heat)
    class_logits = layers.GlobalAveragePooling2D(dtype="float32", name="class_logits")(heat)
    cam = ResizeLike(name="cam_foreground")([heat, image])
    cam = keras.ops.pad(cam, [[0, 0], [0, 0], [0, 0], [1, 0]])
    outputs = {"class_logits": class_logits, "heat": heat, "cam": cam}
    return network(image, outputs, trunk, "sec_foreground")


def background_network(
    num_classes,
    image_size=321,
    backbone=_BACKGROUND_BACKBONE,
    head_width=1.0,
    dropout=0.5,
):
    """Build the classifier whose gradients are SEC's saliency, small in the background.

    On the last features fully connected layers of 1024, 1024 and C units. VGG16's are flattened, as
    in the paper; those of other backbones are averaged over the map, a choice of ours: their own
    classifiers do so too, and a flattened map of theirs would make the first layer the largest.

    Args:
      num_classes: C, foreground classes of the data set.
      image_size: as in `sec_network`.
      backbone: as `wsss_tf.backbones` says; in the paper VGG16 with its five pools.
      head_width: factor on the 1024 units.
      dropout: rate after each of the two layers.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 "class_logits" [B, C], and
      "stage2" [B, h, w, D], features of the backbone; `inference.sec_cues.LocalizationMaps` takes
      the gradient there, or for VGG16 at conv4_1.

    Raises:
      ValueError: an `image_size` that the backbone cannot take.

    Source: SEC, section 4.1; Simonyan et al., "Deep inside convolutional networks" (2014); the
    released background network.
    """
    image, trunk, stages = _features(image_size, backbone)
    if trunk.name == "vgg16":
        x = layers.Flatten(name="flatten")(stages["stage4"])
    else:
        x = layers.GlobalAveragePooling2D(name="average")(stages["stage4"])
    for name in ("fc6", "fc7"):
        units = scale_channels(1024, head_width)
        x = layers.Dense(units, kernel_initializer=_normal(0.005), name=f"{name}_bg")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.Dropout(dropout, name=f"drop{name[-1]}")(x)
    x = layers.Dense(num_classes, kernel_initializer=_normal(0.005), name="fc8_bg")(x)
    class_logits = layers.Activation("linear", dtype="float32", name="class_logits")(x)
    outputs = {"class_logits": class_logits, "stage2": stages["stage2"]}
    return network(image, outputs, trunk, "sec_background")
