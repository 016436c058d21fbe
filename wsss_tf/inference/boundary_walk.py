"""Affinities for the random walk from the class boundaries that IRN sees in a picture."""

import keras
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.inference.random_walk import Grid, PictureGraph
from wsss_tf.inference.walk_settings import IRN_WALK
from wsss_tf.models.heads import stride_of

# Sizes of which each backbone gives whole maps.
_WHOLE = 32
# The sigmoid of it is exactly one in float32.
_SURE = 100.0


def mean_boundary(edge_logits, size):
    """Return the logits of pictures from those of them and of their mirror images.

    Args:
      edge_logits: [2 B, h', w', 1]: of B padded pictures, and then of B padded mirror images.
      size: (h, w) of the part that shows a picture, at the top left.

    Returns:
      float32 [B, h, w, 1]: the mean of both, the latter turned back.
    """
    inside = tf.cast(edge_logits, tf.float32)[:, : size[0], : size[1]]
    plain, mirrored = tf.split(inside, 2)
    return plain / 2 + tf.reverse(mirrored, [2]) / 2


def bordered_affinity(layer, edge_logits, radius):
    """Return the affinities of all pairs on a map, which is surrounded by boundaries for that.

    Args:
      layer: `layers.path_affinity.PathAffinity`.
      edge_logits: [B, h, w, 1].
      radius: of the pairs, pixels of the map.

    Returns:
      float32 [B, O, M], of the map with `radius` pixels more left, right and below: `Grid.border`.
      No path leaves the map with an affinity above 0.

    Source: IRN, official `misc/indexing.py`, `propagate_to_edge`.
    """
    border = [[0, 0], [0, radius], [radius, radius], [0, 0]]
    return layer(tf.pad(edge_logits, border, constant_values=_SURE), radius=radius)


class PictureBoundary:
    """Affinities along paths, for batches of pictures of any size.

    Args:
      net: `models.irn.irn_network`, which knows its stride and the size it was trained at.
      radius: of the pairs, pixels of the map; another than in training.

    Call: `compute(pictures uint8 [B, H, W, 3])` returns a list of B `random_walk.PictureGraph`,
    h = ceil(H / stride) and w = ceil(W / stride), whose boundaries are the mean of the picture's
    and its mirror image's. Pictures are padded to the right and below, with the mean colour, to the
    crop size of the training, since GroupNorm's statistics are those of the padded map; larger ones
    to multiples of 32 pixels. (The official code cuts them at 512.)

    Source: IRN, official `step/make_sem_seg_labels.py`.
    """

    settings = IRN_WALK

    def __init__(self, net, radius=5):
        self.net = keras.Model(net.input, net.output["edge_logits"])
        self.layer = net.get_layer("affinity")
        self.radius = radius
        self.stride = stride_of(net, "edge_logits")

    def __call__(self, pictures):
        height, width = (-(-n // self.stride) for n in pictures.shape[1:3])
        affinities, boundaries = self._compute(tf.convert_to_tensor(pictures))
        grid = Grid(height, width, self.radius, self.stride, border=self.radius)
        return [
            PictureGraph(affinity, grid, boundary)
            for affinity, boundary in zip(affinities.numpy(), boundaries.numpy())
        ]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def _compute(self, pictures):
        size = tf.shape(pictures)[1:3]
        whole = tf.maximum(-(-size // _WHOLE) * _WHOLE, self.layer.crop_size)
        images = ops.normalize_image(pictures)
        images = tf.concat([images, tf.reverse(images, [2])], axis=0)
        spare = whole - size
        padded = tf.pad(images, [[0, 0], [0, spare[0]], [0, spare[1]], [0, 0]])
        on_map = -(-size // self.stride)
        logits = mean_boundary(self.net(padded, training=False), tf.unstack(on_map))
        affinity = bordered_affinity(self.layer, logits, self.radius)
        return affinity, tf.sigmoid(logits[..., 0])
