"""Official checkpoints of ResNet38 and the networks on it: their tensors, and where they go here.

Names and layouts are PyTorch's, as the official implementations of SEAM, AffinityNet and the
DeepLab retraining save them. MXNet's ImageNet weights are renamed to them first.
"""

import dataclasses
import re

import numpy as np

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.errors import UserError

# Unit: (channels in, of the first and of each further convolution), and their kernel sizes.
_RESIDUAL, _BOTTLENECK = (3, 3), (1, 3, 1)
_UNITS = {
    "b2": (64, (128, 128), _RESIDUAL),
    **{f"b2_{i}": (128, (128, 128), _RESIDUAL) for i in (1, 2)},
    "b3": (128, (256, 256), _RESIDUAL),
    **{f"b3_{i}": (256, (256, 256), _RESIDUAL) for i in (1, 2)},
    "b4": (256, (512, 512), _RESIDUAL),
    **{f"b4_{i}": (512, (512, 512), _RESIDUAL) for i in (1, 2, 3, 4, 5)},
    "b5": (512, (512, 1024), _RESIDUAL),
    **{f"b5_{i}": (1024, (512, 1024), _RESIDUAL) for i in (1, 2)},
    "b6": (1024, (512, 1024, 2048), _BOTTLENECK),
    "b7": (2048, (1024, 2048, 4096), _BOTTLENECK),
}
_BRANCHES = ("branch2a", "branch2b1", "branch2b2")
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a tensor goes, and what it must look like.

    Attributes:
      path: of the Keras variable.
      shape: in the source's layout; None where any number of classes will do.
    """

    path: str
    shape: tuple


def targets(model, num_outputs=None, width=1.0):
    """Return {tensor name: Target} of a whole network.

    Args:
      model: "resnet38", "seam", "affinitynet" or "deeplab".
      num_outputs: K, channels of the classifier (background included); None takes any.
      width: factor on the channel counts, as `backbones.channels.scale_channels` applies it.

    The head of AffinityNet and DeepLab is expected with its layer names as Keras names too.
    """
    prefix = "backbone." if model == "deeplab" else ""
    found = {}

    def channels(count):
        return scale_channels(count, width)

    def conv(name, path, filters, inputs, size, bias=False):
        found[f"{name}.weight"] = Target(f"{path}/kernel", (filters, inputs, size, size))
        if bias:
            found[f"{name}.bias"] = Target(f"{path}/bias", (filters,))

    def norm(name, path, count):
        for theirs, ours in _NORM.items():
            found[f"{name}.{theirs}"] = Target(f"{path}/{ours}", (count,))

    conv(f"{prefix}conv1a", "conv1a", channels(64), 3, 3)
    for unit, (inputs, filters, sizes) in _UNITS.items():
        counts = [channels(count) for count in (inputs, *filters)]
        for branch, before, after, size in zip(_BRANCHES, counts, counts[1:], sizes):
            norm(f"{prefix}{unit}.bn_{branch}", f"{unit}_bn_{branch}", before)
            conv(f"{prefix}{unit}.conv_{branch}", f"{unit}_conv_{branch}", after, before, size)
        if "_" not in unit:
            shortcut = f"{unit}_conv_branch1"
            conv(f"{prefix}{unit}.conv_branch1", shortcut, counts[-1], counts[0], 1)
    norm(f"{prefix}bn7", "bn7", channels(4096))

    if model == "seam":
        side3, side4 = channels(64), channels(128)
        conv("fc8", "fc8", num_outputs, channels(4096), 1)
        conv("f8_3", "f8_3", side3, channels(512), 1)
        conv("f8_4", "f8_4", side4, channels(1024), 1)
        conv("f9", "pcm/f9", channels(192), 3 + side3 + side4, 1)
    elif model == "affinitynet":
        sides = [channels(count) for count in (64, 128, 256)]
        for name, filters, inputs in zip(("f8_3", "f8_4", "f8_5"), sides, (512, 1024, 4096)):
            conv(name, name, filters, channels(inputs), 1)
        conv("f9", "f9", sum(sides), sum(sides), 1)
    elif model == "deeplab":
        conv("conv_fov", "conv_fov", channels(512), channels(4096), 3)
        norm("bn_fov", "bn_fov", channels(512))
        conv("conv_fov2", "conv_fov2", channels(512), channels(512), 1)
        norm("bn_fov2", "bn_fov2", channels(512))
        conv("cls_conv", "cls_conv", num_outputs, channels(512), 1, bias=True)
    return found


def rename_mxnet(name):
    """Return PyTorch's name of a tensor of the ImageNet `.params` file, or the name as it is.

    Units are `2a`, `2b1`, `2b2` .. there, and `b2`, `b2_1`, `b2_2` .. here.
    """
    statistics = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
                  "moving_var": "running_var", "weight": "weight"}  # fmt: skip
    if name == "conv1a_weight":
        return "conv1a.weight"
    if match := re.fullmatch(r"bn7_(gamma|beta|moving_mean|moving_var)", name):
        return f"bn7.{statistics[match[1]]}"
    match = re.fullmatch(
        r"(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)_(weight|gamma|beta|moving_mean|moving_var)", name
    )
    if not match:
        return name
    kind, stage, number, branch, what = match.groups()
    unit = f"b{stage}" + (f"_{number}" if number else "")
    return f"{unit}.{'conv' if kind == 'res' else 'bn'}_{branch}.{statistics[what]}"


def convert(tensors, expected):
    """Turn a checkpoint's tensors into arrays by variable path.

    Args:
      tensors: {PyTorch's name: array}.
      expected: as `targets` gives it.

    Returns:
      (arrays, missing, unused): {Keras path: float32 array, kernels [kh, kw, in, out]}; names of
      expected tensors that are not there; names of tensors that are not expected (PyTorch's counts
      of batches aside, which nothing needs).

    Raises:
      UserError: a shape differs (the tensor is named), or no tensor is an expected one.
    """
    arrays = {}
    for name, target in expected.items():
        if name in tensors:
            arrays[target.path] = _array(name, tensors[name], target.shape)
    missing = [name for name in expected if name not in tensors]
    unused = [
        name
        for name in tensors
        if name not in expected and not name.endswith("num_batches_tracked")
    ]
    if not arrays:
        raise UserError(
            f"none of the network's {len(expected)} tensors is in the file; it has "
            f"{', '.join(unused[:3])} .. ({len(tensors)} in all)."
        )
    return arrays, missing, unused


def _array(name, tensor, shape):
    same = len(tensor.shape) == len(shape) and all(
        wanted in (None, found) for found, wanted in zip(tensor.shape, shape)
    )
    if not same:
        wanted = tuple("any" if count is None else count for count in shape)
        raise UserError(
            f"{name} has the shape {tensor.shape}, the network needs {wanted}"
            f"{_class_hint(tensor.shape, shape)}."
        )
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(tensor, "float32")


def _class_hint(found, wanted):
    if len(found) == len(wanted) and found[1:] == wanted[1:] and wanted[0] is not None:
        return f"; is it for {found[0]} classes (background included), not {wanted[0]}?"
    return ""
