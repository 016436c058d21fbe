"""A trained network with its preprocessing, as a SavedModel."""

import tensorflow as tf

from wsss_tf import images
from wsss_tf.inference.multi_scale_cam import MultiScaleCam


class _CamService(tf.Module):
    """The two signatures around one `MultiScaleCam`."""

    def __init__(self, compute):
        super().__init__()
        self.compute = compute

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="images")])
    def cam(self, images):
        """CAMs of a batch of pictures of equal size, values 0..255."""
        return self.compute(_to_pictures(images))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        """CAMs of encoded pictures of any size, each on a canvas as large as the largest."""
        channels = self.compute.net.output["cam"].shape[-1] - 1
        sizes = tf.map_fn(
            lambda contents: tf.shape(images.decode_image(contents))[:2],
            image_bytes,
            fn_output_signature=tf.TensorSpec([2], tf.int32),
        )
        canvas = tf.reduce_max(tf.concat([sizes, tf.zeros([1, 2], tf.int32)], axis=0), axis=0)

        def one(contents):
            outputs = self.compute(images.decode_image(contents)[None])
            cams = outputs["cams"][0]
            rest = canvas - tf.shape(cams)[:2]
            padding = [[0, rest[0]], [0, rest[1]], [0, 0]]
            return {"cams": tf.pad(cams, padding), "probabilities": outputs["probabilities"][0]}

        def each():
            signature = {
                "cams": tf.TensorSpec([None, None, channels], tf.float32),
                "probabilities": tf.TensorSpec([channels], tf.float32),
            }
            return tf.map_fn(one, image_bytes, fn_output_signature=signature)

        def none():  # `map_fn` cannot tell the size of what it has not run
            return {
                "cams": tf.zeros([0, 0, 0, channels]),
                "probabilities": tf.zeros([0, channels]),
            }

        return {**tf.cond(tf.size(image_bytes) > 0, each, none), "sizes": sizes}


class _MaskService(tf.Module):
    """The two signatures around one predictor."""

    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="images")])
    def probabilities(self, images):
        """Class probabilities of a batch of pictures of equal size, values 0..255."""
        return {"probabilities": self.predictor(_to_pictures(images))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        """Masks of encoded pictures of any size, encoded too."""
        classes = self.predictor.num_classes

        def one(contents):
            probabilities = self.predictor(images.decode_image(contents)[None])[0]
            mask = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
            return {
                "masks": tf.io.encode_png(tf.cast(mask, tf.uint8)[:, :, None]),
                "scores": tf.reduce_max(probabilities, axis=[0, 1]),
            }

        signature = {
            "masks": tf.TensorSpec([], tf.string),
            "scores": tf.TensorSpec([classes], tf.float32),
        }
        return tf.map_fn(one, image_bytes, fn_output_signature=signature)


def _to_pictures(images):
    """Return float images as uint8: the network was trained on 8-bit pictures."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


def save_mask_model(predictor, path):
    """Write a SavedModel of a network that predicts masks; it needs nothing of this package to run.

    Signatures:
      serving_default: `image_bytes` string [B], JPEG or PNG of any size, to `masks` string [B],
        8-bit grey PNGs of the pictures' own sizes with values 0..K-1, and `scores` float32 [B, K],
        each class's highest probability in the picture.
      probabilities: `images` float32 [B, H, W, 3], 0..255 RGB, any size, to `probabilities`
        float32 [B, H, W, K].

    Args:
      predictor: `inference.segment.MultiScalePredictor`; its options are part of the graph.
      path: folder to write; must not exist.
    """
    service = _MaskService(predictor)
    tf.saved_model.save(
        service,
        str(path),
        signatures={
            "serving_default": service.image_bytes,
            "probabilities": service.probabilities,
        },
    )


def save_cam_model(net, path, output, scales, flip):
    """Write a SavedModel that needs nothing of this package to run.

    Signatures:
      serving_default: `image_bytes` string [B], JPEG or PNG of any size, to `cams` float32
        [B, H, W, C] in [0, 1] (each picture's maps in the upper left corner, zero beyond),
        `sizes` int32 [B, 2] (height, width), `probabilities` float32 [B, C].
      cam: `images` float32 [B, H, W, 3], 0..255 RGB, any size, to `cams` [B, H, W, C] and
        `probabilities` [B, C].

    Args:
      net, output, scales, flip: as in `inference.multi_scale_cam.MultiScaleCam`; these options are
        part of the graph.
      path: folder to write; must not exist.
    """
    service = _CamService(MultiScaleCam(net, output, scales, flip))
    tf.saved_model.save(
        service,
        str(path),
        signatures={"serving_default": service.image_bytes, "cam": service.cam},
    )
