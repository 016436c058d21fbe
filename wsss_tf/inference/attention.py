"""Maps of what belongs to a chosen pixel, from whichever layers of a network have such maps.

A layer has one if it has the method `pixel_attention(x, row, column)`, of its input [B, h, w, D]
and a position in it to float32 [B, h, w] in [0, 1], and the attribute `map_size`: the (h, w) that
it takes, or None for any.
"""

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import distance_transform_edt

from wsss_tf import ops
from wsss_tf.evaluation import plots
from wsss_tf.masks import IGNORE


def find_attention(net):
    """Return the `PixelAttention` of a network, or None if none of its layers has such maps."""
    layers = [layer for layer in net.layers if hasattr(layer, "pixel_attention")]
    return PixelAttention(net, layers) if layers else None


class PixelAttention(tf.Module):
    """The attention maps of a network for a pixel of a picture of any size.

    Args:
      net: network with normalised pictures as input (`ops.normalize_image`); its weights are not
        copied, so during training the maps are those of the moment.
      layers: those of its layers that have `pixel_attention`.

    Call: `attention(image uint8 [H, W, 3], row, column)` returns (seen, maps, (row, column)):
    seen, uint8 [h, w, 3], is the picture or, where a layer takes maps of one size only, the part of
    that size around the pixel, black beyond the picture; maps {layer name: float32 [h, w] in
    [0, 1]}; and the pixel's place in them.
    """

    def __init__(self, net, layers):
        super().__init__()
        self.layers = layers
        self.inputs = keras.Model(net.input, {layer.name: layer.input for layer in layers})
        self.window = self._window()

    def _window(self):
        """Return the picture size (h, w) that fixes all map sizes; None if none is fixed."""
        shapes = self.inputs.compute_output_shape((1, 64, 64, 3))
        windows = {
            tuple(side * (64 // shapes[layer.name][1]) for side in layer.map_size)
            for layer in self.layers
            if layer.map_size is not None
        }
        if len(windows) > 1:
            raise ValueError(f"layers that take pictures of different sizes: {sorted(windows)}.")
        return windows.pop() if windows else None

    def __call__(self, image, row, column):
        height, width = self.window or image.shape[:2]
        # As near the middle as the picture allows.
        top = int(np.clip(row - height // 2, 0, max(0, image.shape[0] - height)))
        left = int(np.clip(column - width // 2, 0, max(0, image.shape[1] - width)))
        seen = image[top : top + height, left : left + width]
        rest = [(0, height - seen.shape[0]), (0, width - seen.shape[1]), (0, 0)]
        # Beyond the picture is the mean colour, zero once normalised.
        normal = np.pad(np.asarray(ops.normalize_image(seen)), rest)
        row, column = int(row) - top, int(column) - left
        maps = self._maps(tf.constant(normal[None]), tf.constant(row), tf.constant(column))
        maps = {layer.name: maps[layer.name][0].numpy() for layer in self.layers}
        return np.pad(seen, rest), maps, (row, column)

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([1, None, None, 3], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
    )
    def _maps(self, image, row, column):
        size = tf.shape(image)[1:3]
        maps = {}
        for name, x in self.inputs(image, training=False).items():
            low = tf.shape(x)[1:3]
            at = (row * low[0] // size[0], column * low[1] // size[1])
            [layer] = [layer for layer in self.layers if layer.name == name]
            attention = layer.pixel_attention(x, *at)[..., None]
            maps[name] = ops.resize_bilinear(attention, size, align_corners=False)[..., 0]
        return maps


def chosen_pixels(mask, count, has_background):
    """Return a pixel in the middle of each of a picture's largest classes.

    Args:
      mask: uint8 [h, w], labels, true or predicted; 255 is no class.
      count: at most so many pixels.
      has_background: mask value 0 is chosen only where there is no other.

    Returns:
      list of (mask value, row, column), the largest class first; the pixel is the one farthest
      from all others. A mask without any class gives (None, row, column) of the middle.
    """
    values, areas = np.unique(mask[mask != IGNORE], return_counts=True)
    order = sorted(zip(-areas, values))
    if has_background and len(order) > 1:
        order = [(area, value) for area, value in order if value]
    if not order:
        return [(None, mask.shape[0] // 2, mask.shape[1] // 2)]
    pixels = []
    for _, value in order[:count]:
        # A border of zeros: the picture's edge is not the midst of anything.
        depth = distance_transform_edt(np.pad(mask == value, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(np.argmax(depth), depth.shape)
        pixels.append((int(value), int(row), int(column)))
    return pixels


def attention_pictures(attention, image, row, column):
    """Return {layer name: uint8 [h, w, 3] the picture under the map, the pixel marked}.

    Args:
      attention: `PixelAttention`.
      image: uint8 [H, W, 3].
      row, column: the pixel.
    """
    seen, maps, pixel = attention(image, row, column)
    return {name: plots.mark_pixel(plots.overlay(seen, one), *pixel) for name, one in maps.items()}


def attention_drawer(attention, class_names, has_background, count=2):
    """Return the function that draws the maps of pixels of an image's largest classes.

    Args:
      attention: `PixelAttention`.
      class_names: K strings in mask order.
      has_background: as in `chosen_pixels`.
      count: how many pixels at most.

    Returns:
      Function of (image uint8 [H, W, 3], mask uint8 [H, W]) to a list of (caption, uint8
      [h, w, 3]), the caption being the layer's name and the class at the marked pixel.
    """

    def draw(image, mask):
        pairs = []
        for value, row, column in chosen_pixels(mask, count, has_background):
            where = "the middle" if value is None else class_names[value]
            drawn = attention_pictures(attention, image, row, column)
            pairs += [(f"{name}: {where}", picture) for name, picture in drawn.items()]
        return pairs

    return draw
