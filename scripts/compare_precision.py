"""Compare the networks' outputs in half precision with those in float32.

  python scripts/compare_precision.py [--policy=mixed_bfloat16] [--methods=seam,irn] [--size=96]

Networks on EfficientNet-Lite0 with its ImageNet weights and random heads, two pictures of patches
with noise. The error is the largest difference, as a share of the largest value in float32. Labels
are the pixels whose strongest class is another; with random heads classes are nearly tied.
"""

import numpy as np
from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_METHODS = ("seam", "sec", "cpnet", "sanet", "irn")

_CHOSEN = flags.DEFINE_list("methods", list(_METHODS), "Whose networks.")
_POLICY = flags.DEFINE_string("policy", "mixed_bfloat16", "Keras dtype policy.")
_SIZE = flags.DEFINE_integer("size", 96, "Side of the pictures, pixels.", 32)


def main():
    """Run the script."""
    if unknown := set(_CHOSEN.value) - set(_METHODS):
        raise UserError(f"--methods: {sorted(unknown)} unknown; there are {', '.join(_METHODS)}.")
    import keras
    import tensorflow as tf

    from wsss_tf import ops
    from wsss_tf.interop.imagenet import imagenet_weights
    from wsss_tf.training.initial_weights import load_initial_weights

    size = _SIZE.value
    rng = np.random.default_rng(0)
    coarse = tf.image.resize(rng.random((2, 8, 8, 3)), (size, size), "bicubic")
    noise = rng.normal(0, 8, coarse.shape)
    image = ops.normalize_image(np.clip(coarse, 0, 1) * 255 + noise)
    weights = imagenet_weights("efficientnet_lite0")
    print("| network | output | error | labels |\n| --- | --- | ---: | ---: |", flush=True)
    for method in _CHOSEN.value:
        keras.utils.set_random_seed(0)
        nets = []
        for policy in ("float32", _POLICY.value):
            keras.config.set_dtype_policy(policy)
            nets.append(_network(method, size))
        keras.config.set_dtype_policy("float32")
        load_initial_weights(nets[0], weights, "ImageNet")
        nets[1].set_weights(nets[0].get_weights())
        exact, rounded = (
            {name: np.asarray(value, np.float32) for name, value in net(image).items()}
            for net in nets
        )
        for name, expected in exact.items():
            error = np.abs(rounded[name] - expected).max() / np.abs(expected).max()
            print(f"| {method} | {name} | {error:.1e} | {_changed(expected, rounded[name])} |")


def _network(method, size):
    from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
    from wsss_tf.models import cpnet, irn, sanet, seam, sec

    makers = {
        "seam": lambda: seam.seam_network(20, efficientnet_lite),
        "sec": lambda: sec.sec_network(21, size, efficientnet_lite),
        "cpnet": lambda: cpnet.cpnet_network(21, size, efficientnet_lite),
        "sanet": lambda: sanet.sanet_network(21, efficientnet_lite),
        "irn": lambda: irn.irn_network(backbone=efficientnet_lite),
    }
    return makers[method]()


def _changed(expected, actual):
    """Return the share of pixels with another strongest class; "–" of what is no map of classes."""
    if expected.ndim != 4 or expected.shape[-1] < 3:
        return "–"
    return f"{(expected.argmax(-1) != actual.argmax(-1)).mean():.1%}"


if __name__ == "__main__":
    command.run(main)
