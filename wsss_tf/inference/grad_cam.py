"""Grad-CAM and Grad-CAM++: class activation maps from the gradients of a class score."""

import keras
import tensorflow as tf

from wsss_tf.inference.multi_scale_cam import SCALES, normalize_scores, sum_over_copies
from wsss_tf.ops import resize_bilinear

METHODS = ("gradcam", "gradcam++")


def grad_cam_weights(features, gradients, method):
    """Return the weight of each feature channel in a class's map.

    Args:
      features: float32 [B, h, w, D], any sign.
      gradients: float32 [B, h, w, D], of the class's score with respect to `features`.
      method: "gradcam": the sum of the gradient over positions. (Its mean in the paper: the same
        map up to a factor, but with the sum the maps of copies of different sizes count alike when
        they are added up, and a linear classifier's map is the plain CAM itself.)
        "gradcam++": the sum of a * ReLU(g) with a = g^2 / (2 g^2 + S g^3), S the sum of the
        channel's positive values over positions. (The paper's is that of all values, of features
        after a ReLU, where it is the same. Of linear or swish features S could be negative and the
        denominator pass through zero.)

    Returns:
      float32 [B, D]; for "gradcam++" between 0 and half the sum of ReLU(g).

    Source: Selvaraju et al., ICCV 2017, equation 1; Chattopadhyay et al., WACV 2018, equations 5
    and 19, for a score whose higher derivatives are powers of its first.
    """
    if method == "gradcam":
        return tf.reduce_sum(gradients, axis=[1, 2])
    # a = 1 / (2 + S g): divided by g^2, which is far below float32's range for small gradients.
    positive = tf.nn.relu(gradients)
    total = tf.reduce_sum(tf.nn.relu(features), axis=[1, 2], keepdims=True)
    return tf.reduce_sum(positive / (2 + total * positive), axis=[1, 2])


def split_at_head(net):
    """Cut a network with `models.seam.seam_head` in two.

    Returns:
      (`keras.Model` from the image to [features, cam], `keras.Model` from features to cam_low),
      features [B, h, w, D] being the backbone's last stage, which the classifier sees.

    Raises:
      ValueError: the network has no such head.
    """
    try:
        features = net.get_layer("dropout7").input  # the head's first layer, on any backbone
        head = keras.Model(features, net.output["cam_low"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{net.name} is not a network with SEAM's head: {error}") from error
    return keras.Model(net.input, [features, net.output["cam"]]), head


class GradCam(tf.Module):
    """Grad-CAM or Grad-CAM++ of pictures of any size, over scales and flips as the plain CAM.

    The score of a class is the spatial mean of its raw map, cam_low. Gradients are those of the
    head with respect to its input, exact, a class at a time and only of the classes asked for: the
    backbone runs once a copy, forwards.

    Args:
      net: a network with SEAM's head, such as `models.seam.seam_network`.
      method: one of `METHODS`.
      scales, flip: as in `multi_scale_cam.multi_scale_scores`.

    Call: `module(pictures uint8 [B, H, W, 3], labels [B, C])` returns {"cams": float32
    [B, H, W, C] in [0, 1], zero for a class that no picture of the batch has, "probabilities":
    float32 [B, C]}. Without labels every class is asked for.

    Memory: the gradient of one class, [2 B, h, w, D] with flip.
    """

    def __init__(self, net, method="gradcam", scales=SCALES, flip=True):
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"method {method!r}; there are {', '.join(METHODS)}.")
        self.body, self.head = split_at_head(net)
        self.num_classes = self.head.output.shape[-1] - 1
        self.method = method
        self.scales = tuple(scales)
        self.flip = flip

    def __call__(self, pictures, labels=None):
        if labels is None:
            labels = tf.ones([tf.shape(pictures)[0], self.num_classes])
        return self._compute(pictures, labels)

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.uint8),
            tf.TensorSpec([None, None], tf.float32),
        ],
    )
    def _compute(self, pictures, labels):
        asked = tf.reduce_any(labels > 0, axis=0)
        # A loop over no class has no shape, so there is always one; it is taken out at the end.
        first = tf.range(self.num_classes) == 0
        class_ids = tf.where(tf.cond(tf.reduce_any(asked), lambda: asked, lambda: first))[:, 0]
        class_ids = tf.cast(class_ids, tf.int32)

        def run(copies):
            features, cam = self.body(copies, training=False)
            maps = self._maps(tf.cast(features, tf.float32), class_ids)
            # As the network does with its own maps: to the input's size, and ReLU there.
            maps = tf.nn.relu(resize_bilinear(maps, tf.shape(copies)[1:3], align_corners=True))
            return maps, tf.reduce_mean(tf.cast(cam, tf.float32), axis=[1, 2])[:, 1:]

        total, logits = sum_over_copies(
            run, pictures, self.scales, self.flip, tf.size(class_ids), self.num_classes
        )
        cams = tf.clip_by_value(normalize_scores(total), 0.0, 1.0)
        # Back to all classes, in order: [B, H, W, P] -> [B, H, W, C].
        spread = tf.one_hot(class_ids, self.num_classes) * tf.cast(asked, tf.float32)
        return {
            "cams": tf.tensordot(cams, spread, axes=[[3], [0]]),
            "probabilities": tf.sigmoid(logits),
        }

    def _maps(self, features, class_ids):
        """Return the sum over channels of weight * features, [B, h, w, P], of P classes."""

        def of_class(class_id):
            with tf.GradientTape() as tape:
                tape.watch(features)
                scores = self.head(features, training=False)
                score = tf.reduce_mean(tf.gather(scores, class_id + 1, axis=-1), axis=[1, 2])
            weights = grad_cam_weights(features, tape.gradient(score, features), self.method)
            return tf.einsum("bhwd,bd->bhw", features, weights)

        maps = tf.map_fn(of_class, class_ids, tf.float32, parallel_iterations=1)
        return tf.transpose(maps, [1, 2, 3, 0])
