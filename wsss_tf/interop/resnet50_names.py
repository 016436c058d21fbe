"""Official checkpoints of ResNet-50 and of IRN's networks on it: tensors, and where they go here.

Names and layouts are PyTorch's, of torchvision's classifier and of the official IRN. IRN's files
hold every tensor of the backbone three times and those of the heads twice, under other names, and
its networks the indices of all path pixels.
"""

import re

from wsss_tf.backbones.channels import scale_channels
from wsss_tf.interop.resnet38_names import Target

MODELS = ("resnet50", "irn_cam", "irn")

_BLOCKS = (3, 4, 6, 3)
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_SOURCES = (64, 256, 512, 1024, 2048)
_EDGE_FILTERS = 32
_DP_FILTERS = (64, 128, 256, 256, 256, 256, 256)
# Copies under other names, ImageNet's classifier, and what no network has.
_IGNORED = re.compile(
    r"(?:backbone|stage\d|newly_added|edge_layers|dp_layers|fc)\..*|fc_dp7\.4\..*"
    r"|path_indices\d+|disp_target"
)


def is_ignored(name):
    """Return whether a tensor is a copy of another, or means nothing here."""
    return _IGNORED.fullmatch(name) is not None


def targets(model, num_outputs=None, width=1.0):
    """Return {tensor name: Target} of a whole network.

    Args:
      model: one of MODELS; "irn" has displacements.
      num_outputs: K, classes, background included; IRN's classifier has one output less. None takes
        any.
      width: factor on the backbone's channel counts.
    """
    prefix = "" if model == "resnet50" else "resnet50."
    found = {}

    def channels(count):
        return scale_channels(count, width)

    def conv(name, path, filters, inputs, size=1):
        found[f"{name}.weight"] = Target(f"{path}/kernel", (filters, inputs, size, size))

    def norm(name, path, count, parts=_NORM):
        for part in parts:
            found[f"{name}.{part}"] = Target(f"{path}/{_NORM[part]}", (count,))

    def conv_norm(theirs, norm_name, ours, filters, inputs, size=1):
        conv(f"{prefix}{theirs}", f"{ours}_conv", filters, inputs, size)
        norm(f"{prefix}{norm_name}", f"{ours}_bn", filters)

    conv_norm("conv1", "bn1", "conv1", channels(64), 3, 7)
    before = channels(64)
    for stage, repeats in enumerate(_BLOCKS, start=1):
        middle, after = channels(32 * 2**stage), channels(128 * 2**stage)
        for block in range(repeats):
            theirs, ours = f"layer{stage}.{block}.", f"conv{stage + 1}_block{block + 1}"
            sizes = ((middle, before, 1), (middle, middle, 3), (after, middle, 1))
            for i, (filters, inputs, size) in enumerate(sizes, start=1):
                names = f"{theirs}conv{i}", f"{theirs}bn{i}", f"{ours}_{i}"
                conv_norm(*names, filters, inputs, size)
            if block == 0:
                names = f"{theirs}downsample.0", f"{theirs}downsample.1", f"{ours}_0"
                conv_norm(*names, after, before)
            before = after

    sources = [channels(count) for count in _SOURCES]
    if model == "irn_cam":
        classes = None if num_outputs is None else num_outputs - 1
        conv("classifier", "classifier", classes, sources[-1])
    elif model == "irn":
        group_norm = ("weight", "bias")
        for i, inputs in enumerate(sources, start=1):
            conv(f"fc_edge{i}.0", f"fc_edge{i}", _EDGE_FILTERS, inputs)
            norm(f"fc_edge{i}.1", f"fc_edge{i}_gn", _EDGE_FILTERS, group_norm)
        conv("fc_edge6", "fc_edge6", 1, len(sources) * _EDGE_FILTERS)
        found["fc_edge6.bias"] = Target("fc_edge6/bias", (1,))
        joint = sum(_DP_FILTERS[2:5]), sum(_DP_FILTERS[:2]) + _DP_FILTERS[5]
        for i, (inputs, filters) in enumerate(zip((*sources, *joint), _DP_FILTERS), start=1):
            conv(f"fc_dp{i}.0", f"fc_dp{i}", filters, inputs)
            norm(f"fc_dp{i}.1", f"fc_dp{i}_gn", filters, group_norm)
        conv("fc_dp7.3", "fc_dp7_out", 2, _DP_FILTERS[-1])
        found["mean_shift.running_mean"] = Target("mean_shift/mean", (2,))
    return found
