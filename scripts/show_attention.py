"""Draw what a trained network takes to belong to a pixel: CPNet's prior, SANet's attention.

  python scripts/show_attention.py --run_dir=RUN --image=FILE --pixel=120,200 --output=DIR

--pixel is ROW,COLUMN in the picture. Each layer that has such a map gives FILE_120_200_LAYER.png,
in grey, and FILE_120_200_LAYER_overlay.png, over the picture, the pixel marked. CPNet's
context_prior is how likely each position is of the pixel's class, in the crop around it that the
network takes; the maps of SANet's sa1 to sa4 say how near each position's attention is to the
pixel's.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of a trained network.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which network.")
_IMAGE = flags.DEFINE_string("image", None, "Picture, JPEG or PNG.")
_PIXEL = flags.DEFINE_string("pixel", None, "ROW,COLUMN in the picture, from 0.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the PNGs.")


def main():
    """Run the script."""
    for flag in (_RUN_DIR, _IMAGE, _OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing.")
    import tensorflow as tf

    from wsss_tf.evaluation import plots
    from wsss_tf.files import images
    from wsss_tf.inference.attention import find_attention
    from wsss_tf.runs.trained_network import load_network

    path = pathlib.Path(_IMAGE.value)
    if not path.is_file():
        raise UserError(f"--image={path}: no such file.")
    try:
        image = images.decode_image(tf.io.read_file(str(path))).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"--image={path}: not a JPEG or PNG, or damaged.") from error
    row, column = _pixel(image.shape)
    attention = find_attention(load_network(_RUN_DIR.value, _CHECKPOINT.value))
    if attention is None:
        raise UserError(f"{_RUN_DIR.value}: its network has neither a prior nor attention modules.")
    seen, maps, pixel = attention(image, row, column)
    for name, scores in maps.items():
        stem = pathlib.Path(_OUTPUT.value) / f"{path.stem}_{row}_{column}_{name}"
        _save(f"{stem}.png", (255 * scores).round().astype("uint8"))
        _save(f"{stem}_overlay.png", plots.mark_pixel(plots.overlay(seen, scores), *pixel))


def _pixel(shape):
    try:
        row, column = (int(text) for text in (_PIXEL.value or "").split(","))
    except ValueError:
        row = column = -1
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        size = f"{shape[0]} x {shape[1]}"
        raise UserError(f"--pixel={_PIXEL.value}: give ROW,COLUMN inside the picture of {size}.")
    return row, column


def _save(path, picture):
    from PIL import Image

    from wsss_tf.files.run_folder import atomic_path

    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
    print(path)


if __name__ == "__main__":
    command.run(main)
