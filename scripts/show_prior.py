"""Draw what a trained CPNet or SANet has learnt about an image.

  python scripts/show_prior.py --run_dir=RUN --image=FILE --pixel=120,200 --output=DIR

CPNet: the prior map of one pixel (row,column), how likely each position of the crop around it is of
the same class; FILE_120_200_prior.png in grey and FILE_120_200_overlay.png over the crop, where the
pixel is marked. SANet: the attention of each of its four modules, the mean over the channels, as
FILE_sa1.png to FILE_sa4.png; no pixel is needed.
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

    from wsss_tf import images
    from wsss_tf.recipe import load_network

    path = pathlib.Path(_IMAGE.value)
    if not path.is_file():
        raise UserError(f"--image={path}: no such file.")
    try:
        image = images.decode_image(tf.io.read_file(str(path))).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"--image={path}: not a JPEG or PNG, or damaged.") from error
    net = load_network(_RUN_DIR.value, _CHECKPOINT.value)
    output = pathlib.Path(_OUTPUT.value)
    if "prior" in net.output:
        row, column = _pixel(image.shape)
        crop, scores, inside = prior_of(net, image, row, column)
        stem = f"{path.stem}_{row}_{column}"
        _save(output / f"{stem}_prior.png", (255 * scores).round().astype("uint8"))
        _save(output / f"{stem}_overlay.png", _marked(crop, scores, inside))
    elif maps := attention_of(net, image):
        for name, scores in maps.items():
            _save(output / f"{path.stem}_{name}.png", (255 * scores).round().astype("uint8"))
    else:
        raise UserError(f"{_RUN_DIR.value}: its network has neither a prior nor attention modules.")


def prior_of(net, image, row, column):
    """Return the prior map of a pixel.

    Args:
      net: CPNet.
      image: uint8 [H, W, 3].
      row, column: the pixel.

    Returns:
      (crop uint8 [h, w, 3] of the network's size around the pixel, black outside the picture;
      probabilities [h, w]; (row, column) of the pixel in the crop).
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from wsss_tf import ops

    layer = net.get_layer("context_prior")
    trunk = keras.Model(net.input, layer.input)
    stride = 64 // trunk.compute_output_shape((1, 64, 64, 3))[1]
    height, width = (stride * n for n in layer.size)
    # As near the middle as the picture allows.
    top = int(np.clip(row - height // 2, 0, max(0, image.shape[0] - height)))
    left = int(np.clip(column - width // 2, 0, max(0, image.shape[1] - width)))
    seen = image[top : top + height, left : left + width]
    rest = [(0, height - seen.shape[0]), (0, width - seen.shape[1]), (0, 0)]
    # Beyond the picture is the mean colour, zero once normalised.
    normal = np.pad(np.asarray(ops.normalize_image(seen)), rest)
    logits = tf.function(lambda x: net(x, training=False)["prior"])(normal[None])[0]
    position = (row - top) // stride * layer.size[1] + (column - left) // stride
    low = tf.reshape(tf.sigmoid(logits[position]), (1, *layer.size, 1))
    scores = ops.resize_bilinear(low, (height, width), align_corners=False)[0, :, :, 0].numpy()
    return np.pad(seen, rest), scores, (row - top, column - left)


def attention_of(net, image):
    """Return {module name: attention [H, W] scaled to a maximum of 1} of a SANet, else {}."""
    import keras
    import numpy as np

    from wsss_tf import ops
    from wsss_tf.layers.squeeze_attention import SqueezeAttention

    modules = [layer for layer in net.layers if isinstance(layer, SqueezeAttention)]
    if not modules:
        return {}
    inputs = keras.Model(net.input, {layer.name: layer.input for layer in modules})
    features = inputs(np.asarray(ops.normalize_image(image))[None], training=False)
    maps = {}
    for layer in modules:
        mean = np.mean(layer.attn(features[layer.name], training=False), axis=-1, keepdims=True)
        full = ops.resize_bilinear(mean, image.shape[:2], align_corners=False)[0, :, :, 0]
        maps[layer.name] = np.asarray(full) / max(float(np.max(full)), 1e-12)
    return maps


def _pixel(shape):
    try:
        row, column = (int(text) for text in (_PIXEL.value or "").split(","))
    except ValueError:
        row = column = -1
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        size = f"{shape[0]} x {shape[1]}"
        raise UserError(f"--pixel={_PIXEL.value}: give ROW,COLUMN inside the picture of {size}.")
    return row, column


def _marked(crop, scores, pixel):
    from wsss_tf.evaluation import plots

    picture = plots.overlay(crop, scores).copy()
    row, column = pixel
    for r in range(max(0, row - 4), min(len(picture), row + 5)):
        picture[r, column] = (0, 255, 0)
    picture[row, max(0, column - 4) : column + 5] = (0, 255, 0)
    return picture


def _save(path, picture):
    from PIL import Image

    from wsss_tf.run_folder import atomic_path

    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
    print(path)


if __name__ == "__main__":
    command.run(main)
