"""SEC's segmentation network, and the two classifiers that its localisation cues come from."""

import keras
from keras import initializers, layers

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.backbones.vgg16_largefov import Vgg16Blocks, largefov_features
from wsss_tf.layers.caffe_input import CaffeInput
from wsss_tf.layers.log_probs import LogProbs
from wsss_tf.layers.resize import ResizeLike
from wsss_tf.layers.resize_to import ResizeTo

_SEGMENTATION_MEAN = (123.0, 117.0, 104.0)  # red, green, blue
_CLASSIFIER_MEAN = (122.675, 116.669, 104.008)

# Layers that are trained from random values at ten times the rate, per network.
NEW_LAYERS = ("fc8",)
FOREGROUND_NEW_LAYERS = ("fc8_cam",)
BACKGROUND_NEW_LAYERS = ("fc8_bg",)


def _network_input(image_size, mean):
    """Return the symbolic image of any size, and what of it the convolutions see."""
    if image_size % 8 != 1:
        raise ValueError(f"image_size = {image_size}: needs to be 8 k + 1, as the paper's 321.")
    image = keras.Input((None, None, 3), name="image")
    x = ResizeTo((image_size, image_size), name="warp")(image)
    return image, CaffeInput(mean, name="caffe_input")(x)


def _normal(deviation):
    return initializers.RandomNormal(stddev=deviation)


def sec_network(num_classes, image_size=321, width=1.0, batchnorm=False, dropout=1.0):
    """Build SEC's network, DeepLab-CRF-LargeFOV on VGG16, with its warp to a square inside.

    Args:
      num_classes: K, all classes, background included.
      image_size: side that images are warped to, 8 k + 1; the grid has (side - 1) / 8 + 1.
      width, batchnorm, dropout: as in `backbones.vgg16_largefov.vgg16_largefov`.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`; the network turns it into blue first
      minus mean colour itself) to float32 maps, background first:
      "logits_low" [B, h, w, K] raw scores on the network's own grid, 41 x 41, what is trained;
      "logits" [B, H, W, K] at image size: logarithms of softmax probabilities that were enlarged
      with aligned corners, not below log(1e-5): the test-time CRF's negative energy.
      An image of other size than `image_size` is first warped with aligned corners, its shape not
      kept, as the official demo does; so one scale without cropping is the method's own inference.
      20,505,429 parameters at width 1 and K = 21.

    Source: SEC (Kolesnikov and Lampert, ECCV 2016), section 4.1; official demo.
    """
    image, x = _network_input(image_size, _SEGMENTATION_MEAN)
    x = largefov_features(x, width, batchnorm, dropout)["fc7"]
    scores = layers.Conv2D(num_classes, 1, kernel_initializer=_normal(0.01), name="fc8")(x)
    scores = layers.Activation("linear", dtype="float32", name="logits_low")(scores)
    probs = layers.Softmax(dtype="float32", name="probs_low")(scores)
    probs = ResizeLike(name="probs")([probs, image])
    logits = LogProbs(1e-5, name="logits")(probs)
    return keras.Model(image, {"logits_low": scores, "logits": logits}, name="sec")


def foreground_network(num_classes, image_size=321, width=1.0, batchnorm=False, dropout=1.0):
    """Build the classifier whose class activation maps are SEC's foreground cues.

    VGG16 with the pools of blocks 1 to 3 only (2x2), two 3x3 convolutions of 1024 channels, the
    second without ReLU, global average pooling and a linear layer without bias.

    Args:
      num_classes: C, foreground classes of the data set.
      image_size, width, batchnorm, dropout: as in `sec_network`.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 "class_logits" [B, C]; the
      activation maps "heat" [B, h, w, C] on the network's grid, 41 x 41, any sign; and "cam"
      [B, H, W, C + 1], the same at image size behind a background channel of zeros, for
      `wsss_tf.infer` and the validation during training.

    Source: SEC, section 4.1; Zhou et al., "Learning deep features for discriminative localization"
    (CVPR 2016); the released foreground network.
    """
    image, x = _network_input(image_size, _CLASSIFIER_MEAN)
    blocks = Vgg16Blocks(width, batchnorm)
    for number in range(1, 6):
        x = blocks.block(x, number)
        if number < 4:  # "same" pads right and bottom only, as Caffe's rounding up does
            x = layers.MaxPooling2D(2, 2, padding="same", name=f"pool{number}")(x)
    x = blocks.conv(x, 1024, 3, "fc6_cam", initializer=_normal(0.005))
    x = layers.Dropout(0.5 * dropout, name="drop6")(x)
    x = blocks.conv(x, 1024, 3, "fc7_cam", initializer=_normal(0.005), relu=False)
    x = layers.Dropout(0.5 * dropout, name="drop7")(x)
    # Averaging commutes with the linear layer, so the maps come first.
    heat = layers.Conv2D(
        num_classes, 1, use_bias=False, kernel_initializer=_normal(0.005), name="fc8_cam"
    )(x)
    heat = layers.Activation("linear", dtype="float32", name="heat")(heat)
    class_logits = layers.GlobalAveragePooling2D(dtype="float32", name="class_logits")(heat)
    cam = ResizeLike(name="cam_foreground")([heat, image])
    cam = keras.ops.pad(cam, [[0, 0], [0, 0], [0, 0], [1, 0]])
    outputs = {"class_logits": class_logits, "heat": heat, "cam": cam}
    return keras.Model(image, outputs, name="sec_foreground")


def background_network(num_classes, image_size=321, width=1.0, batchnorm=False, dropout=1.0):
    """Build the classifier whose gradients at conv4_1 are SEC's saliency, small in the background.

    VGG16 with five 2x2 pools and fully connected layers of 1024, 1024 and C units.

    Args: as `foreground_network`.

    Returns:
      `keras.Model` from [B, H, W, 3] (`ops.normalize_image`) to float32 {"class_logits" [B, C]};
      `inference.sec_cues.Saliency` takes the gradient.

    Source: SEC, section 4.1; Simonyan et al., "Deep inside convolutional networks" (2014); the
    released background network.
    """
    image, x = _network_input(image_size, _CLASSIFIER_MEAN)
    blocks = Vgg16Blocks(width, batchnorm)
    for number in range(1, 6):
        x = blocks.block(x, number)
        x = layers.MaxPooling2D(2, 2, padding="same", name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        units = scale_channels(1024, width)
        x = layers.Dense(units, kernel_initializer=_normal(0.005), name=f"{name}_bg")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.Dropout(0.5 * dropout, name=f"drop{name[-1]}")(x)
    x = layers.Dense(num_classes, kernel_initializer=_normal(0.005), name="fc8_bg")(x)
    class_logits = layers.Activation("linear", dtype="float32", name="class_logits")(x)
    return keras.Model(image, {"class_logits": class_logits}, name="sec_background")
