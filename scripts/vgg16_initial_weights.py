"""Make the initial weights of SEC's networks from Keras' VGG16.

  python scripts/vgg16_initial_weights.py --output=vgg16_largefov.npz [--weights=FILE]

Without --weights Keras downloads its ImageNet weights. The convolutions serve all three networks;
fc6 and fc7, decimated from the fully connected layers as DeepLab does, the segmentation network.
"""

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_WEIGHTS = flags.DEFINE_string(
    "weights", "imagenet", "Weights file of keras.applications.VGG16 with its top."
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.")


def main():
    """Run the script."""
    if not _OUTPUT.value or not _OUTPUT.value.endswith(".npz"):
        raise UserError(f"--output={_OUTPUT.value}: give a file that ends in .npz.")
    import pathlib

    import keras
    import numpy as np

    from wsss_tf import run_folder
    from wsss_tf.backbones.vgg16_largefov import subsample_vgg16

    if _WEIGHTS.value != "imagenet" and not pathlib.Path(_WEIGHTS.value).is_file():
        raise UserError(f"--weights={_WEIGHTS.value}: no such file.")
    try:
        vgg16 = keras.applications.VGG16(weights=_WEIGHTS.value)
    except (OSError, ValueError) as error:
        raise UserError(f"--weights={_WEIGHTS.value}: {error}") from error
    with run_folder.atomic_path(_OUTPUT.value) as temporary:
        np.savez(temporary, **subsample_vgg16(vgg16))
    print(f"{_OUTPUT.value}: {pathlib.Path(_OUTPUT.value).stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    command.run(main)
