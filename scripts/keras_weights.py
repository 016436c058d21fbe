"""Write ImageNet weights of `keras.applications` as a file for `Recipe.initial_weights`.

  python scripts/keras_weights.py --name=ResNet101 --output=resnet101_keras.npz

Names: ResNet50, ResNet101 (for dilated_resnet.variant='keras'), EfficientNetB0 to EfficientNetB7.
Keras downloads the weights. --weights=FILE takes a weights file of that network instead.
"""

import re

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_NAME = flags.DEFINE_string("name", None, "Network of keras.applications.")
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "'imagenet', or a file without classifier.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.")


def main():
    """Run the script."""
    match = re.fullmatch(r"ResNet(50|101)|EfficientNet(B[0-7])", _NAME.value or "")
    if not match:
        raise UserError(
            f"--name={_NAME.value}: choose ResNet50, ResNet101 or EfficientNetB0 to B7."
        )
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    import keras

    from wsss_tf.backbones.dilated_resnet import dilated_resnet
    from wsss_tf.backbones.efficientnet import efficientnet
    from wsss_tf.backbones.keras_weights import copy_keras_weights
    from wsss_tf.training.initial_weights import save_weights

    depth, size = match.groups()
    try:
        source = getattr(keras.applications, _NAME.value)(include_top=False, weights=_WEIGHTS.value)
    except Exception as error:  # Keras raises nothing narrower for a failed download
        raise UserError(f"{_NAME.value}: no weights {_WEIGHTS.value!r}: {error}") from error
    if depth:
        net = dilated_resnet(int(depth), variant="keras")
    else:
        net = efficientnet(size.lower())
    copied = copy_keras_weights(net, source)
    save_weights(net, _OUTPUT.value)
    print(f"{_OUTPUT.value}: {len(copied)} layers of {_NAME.value}.")


if __name__ == "__main__":
    command.run(main)
