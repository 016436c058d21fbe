"""A trained network with its preprocessing, as a SavedModel that needs nothing of this package.

Signatures, of stock TensorFlow ops only; K is the number of class names, C that of the classes of a
network that gives CAMs, which has no background (C = K - 1):

  serving_default: `image_bytes` string [B], JPEG or PNG, each of any size, to
    `mask_bytes` string [B]: palette PNGs of the pictures' own sizes, values 0..K-1,
    `classes` string [B]: the names of the classes in the mask, one a line, in mask order,
    `pixels` int32 [B, K]: how many pixels of the mask each class has,
    `scores` float32 [B, K]: each class's highest probability in the picture; of CAMs the
    classifier's probability, and for background 1 minus the highest of those.
  probabilities: `images` float32 [B, H, W, 3], 0..255 RGB, any size, to `probabilities` float32
    [B, H, W, K]; of a classifier [B, C].
  cam (of CAMs only): `images`, as above, to `cams` float32 [B, H, W, C] in [0, 1] and
    `probabilities` float32 [B, C].

The name `mask_bytes` has TensorFlow Serving write it in base64. The outputs of serving_default have
one shape for each picture, whatever its size, so that a server may cut a batch and join the
answers. Assets: `class_names.txt`, one name a line, and `palette.txt`, its colour, "r g b".
"""

import pathlib
import tempfile

import tensorflow as tf

from wsss_tf.files import images
from wsss_tf.files.png import palette

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")


class _Service(tf.Module):
    """What the two kinds of network have in common: bytes in, encoded mask and scores out.

    A kind adds `probabilities`, and `mask_and_scores` from a uint8 [1, H, W, 3] to the mask int32
    [H, W] and scores float32 [K].
    """

    def __init__(self, compute, class_names, max_pixels):
        super().__init__()
        self.compute = compute
        self.class_names = tuple(class_names)
        self.max_pixels = max_pixels

    @tf.function(autograph=False, input_signature=[_IMAGE_BYTES])
    def image_bytes(self, image_bytes):
        """Masks of encoded pictures of any size, encoded too."""
        classes = len(self.class_names)

        def one(contents):
            mask, scores = self.mask_and_scores(_decode(contents, self.max_pixels)[None])
            pixels = tf.math.bincount(mask, minlength=classes, maxlength=classes)
            names = tf.boolean_mask(tf.constant(self.class_names), pixels > 0)
            return {
                "mask_bytes": images.encode_mask(mask, classes),
                "classes": tf.strings.reduce_join(names, separator="\n"),
                "pixels": pixels,
                "scores": scores,
            }

        signature = {
            "mask_bytes": tf.TensorSpec([], tf.string),
            "classes": tf.TensorSpec([], tf.string),
            "pixels": tf.TensorSpec([classes], tf.int32),
            "scores": tf.TensorSpec([classes], tf.float32),
        }
        # One after the other: memory is then that of one picture, whatever the batch.
        return tf.map_fn(one, image_bytes, fn_output_signature=signature, parallel_iterations=1)

    def signatures(self):
        """Return {name: function}."""
        return {"serving_default": self.image_bytes, "probabilities": self.probabilities}


class _MaskService(_Service):
    """Around one `MultiScalePredictor`."""

    @tf.function(autograph=False, input_signature=[_IMAGES])
    def probabilities(self, images):
        """Class probabilities of a batch of pictures of equal size."""
        return {"probabilities": self.compute(_to_pictures(images))}

    def mask_and_scores(self, picture):
        """See the base class."""
        probabilities = self.compute(picture)[0]
        mask = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return mask, tf.reduce_max(probabilities, axis=[0, 1])


class _CamService(_Service):
    """Around one `MultiScaleCam`; masks are made as `infer` makes pseudo labels without labels."""

    def __init__(self, compute, class_names, max_pixels, background_threshold, label_threshold):
        super().__init__(compute, class_names, max_pixels)
        self.background_threshold = background_threshold
        self.label_threshold = label_threshold

    @tf.function(autograph=False, input_signature=[_IMAGES])
    def cam(self, images):
        """CAMs of a batch of pictures of equal size."""
        outputs = self.compute(_to_pictures(images))
        return {name: outputs[name] for name in ("cams", "probabilities")}

    @tf.function(autograph=False, input_signature=[_IMAGES])
    def probabilities(self, images):
        """The classifier's probabilities alone."""
        return {"probabilities": self.compute(_to_pictures(images))["probabilities"]}

    def mask_and_scores(self, picture):
        """See the base class."""
        outputs = self.compute(picture)
        # As the files of `infer` hold them.
        cams = tf.cast(tf.cast(outputs["cams"][0], tf.float16), tf.float32)
        probabilities = outputs["probabilities"][0]
        cams = tf.where(probabilities > self.label_threshold, cams, -1.0)
        winner = 1 + tf.argmax(cams, axis=-1, output_type=tf.int32)
        mask = tf.where(tf.reduce_max(cams, axis=-1) > self.background_threshold, winner, 0)
        background = 1.0 - tf.reduce_max(probabilities, keepdims=True)
        return mask, tf.concat([background, probabilities], axis=0)

    def signatures(self):
        """See the base class."""
        return {**super().signatures(), "cam": self.cam}


def _to_pictures(images):
    """Return float images as uint8: the network was trained on 8-bit pictures."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


def _decode(contents, max_pixels):
    """Decode a picture; one of more than `max_pixels` is refused by its header.

    A small file may hold a picture that needs more memory than the server has.
    """
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG

    kind = tf.debugging.Assert(
        is_png | is_jpeg, ["image_bytes: neither a JPEG nor a PNG"], summarize=1
    )
    with tf.control_dependencies([kind]):
        size = tf.cond(
            is_png,
            lambda: images.png_size(contents),
            lambda: tf.image.extract_jpeg_shape(contents, tf.int64)[:2],
        )
    pixels = tf.reduce_prod(size)
    fits = tf.debugging.Assert(
        tf.reduce_all(size > 0) & (pixels <= max_pixels),
        ["image_bytes: a picture of", pixels, "pixels; this model takes 1 to", max_pixels],
    )
    with tf.control_dependencies([fits]):
        return images.decode_image(tf.identity(contents))


def save_mask_model(predictor, path, class_names, max_pixels):
    """Write a SavedModel of a network that predicts masks.

    Args:
      predictor: `inference.segment.MultiScalePredictor`, or `inference.limited_side.LimitedSide` of
        one; its options are part of the graph.
      path: folder to write; must not exist.
      class_names: K names, in mask order.
      max_pixels: a larger picture is an InvalidArgument error.
    """
    _save(_MaskService(predictor, class_names, max_pixels), path)


def save_cam_model(compute, path, class_names, max_pixels, background_threshold, label_threshold):
    """Write a SavedModel of a network that gives class activation maps.

    Args:
      compute: `inference.multi_scale_cam.MultiScaleCam`, or `LimitedSide` of one; its options are
        part of the graph.
      path, class_names, max_pixels: as in `save_mask_model`; background is the first name.
      background_threshold, label_threshold: as in `inference.write_cams.label_source`.
    """
    _save(
        _CamService(compute, class_names, max_pixels, background_threshold, label_threshold), path
    )


def _save(service, path):
    # The service itself must not be saved: below a Keras variable TensorFlow writes a second one,
    # restores that, and leaves the one that the functions read without a value. Python's loader
    # copes with it, the C++ loader of a server does not. So only the variables go along.
    saved = tf.Module()
    saved.network = [variable.value for variable in service.compute.net.variables]
    colours = palette()[: len(service.class_names)]
    with tempfile.TemporaryDirectory() as folder:
        names_file = pathlib.Path(folder) / "class_names.txt"
        names_file.write_text("\n".join(service.class_names) + "\n", encoding="utf-8")
        palette_file = pathlib.Path(folder) / "palette.txt"
        palette_file.write_text("".join(f"{r} {g} {b}\n" for r, g, b in colours))
        saved.class_names = tf.saved_model.Asset(str(names_file))
        saved.palette = tf.saved_model.Asset(str(palette_file))
        tf.saved_model.save(saved, str(path), signatures=service.signatures())
