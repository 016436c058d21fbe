"""The training steps of IRN and of its classifier."""

import keras
import numpy as np
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.losses.affinity import affinity_terms, pair_kinds
from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.losses.irn import TERM_WEIGHTS, displacement_terms
from wsss_tf.training.affinity import check_labels, weighted_means
from wsss_tf.training.step import TrainingStep


class BoundaryStep(TrainingStep):
    """The training step of IRN's boundaries; see `irn_step`."""

    term_names = ("loss_bg", "loss_fg", "loss_neg")

    def loss_terms(self, batch):
        """Return the weighted terms of a batch of "image" and "affinity_labels" [B, h, w]."""
        outputs = self.net(batch["image"], training=True)
        return self.pair_terms(outputs, batch)[0]

    def pair_terms(self, outputs, batch):
        """Return these terms, and what they count: the kinds of pairs, and their radius."""
        labels = batch["affinity_labels"]
        size = outputs["edge_logits"].shape[1:3]
        check_labels(size, labels, batch["image"], "IRN's boundaries", "irn_augmentation")
        radius = self.net.get_layer("affinity").radius_on(*size)
        kinds = pair_kinds(labels, radius)
        return weighted_means(affinity_terms(outputs["affinity"], kinds)), kinds, radius


class DisplacementStep(BoundaryStep):
    """The same with displacements."""

    term_names = (*BoundaryStep.term_names, "loss_dp_fg", "loss_dp_bg")

    def loss_terms(self, batch):
        """Return the weighted terms, as `BoundaryStep` does."""
        outputs = self.net(batch["image"], training=True)
        terms, kinds, radius = self.pair_terms(outputs, batch)
        more = displacement_terms(outputs["displacement"], kinds, radius)
        return {**terms, **weighted_means(more, TERM_WEIGHTS)}

    def finish(self, source, batch_size=32):
        """Set the mean that inference takes away from displacements: that over the pictures.

        Losses know differences of displacements only, so that their mean is left to chance.

        Args:
          source: as in the base class; its pictures are cut, or padded with the mean colour, to
            the crop size at the top left.
          batch_size: pictures run together; those that fill no batch are left out.

        Source: IRN, official `step/train_irn.py`.
        """
        side = self.net.get_layer("affinity").crop_size

        @tf.autograph.experimental.do_not_convert
        def picture(index):
            image = ops.normalize_image(source.load(index)["image"])[:side, :side]
            spare = side - tf.shape(image)[:2]
            image = tf.pad(image, [[0, spare[0]], [0, spare[1]], [0, 0]])
            return tf.ensure_shape(image, [side, side, 3])

        network = keras.Model(self.net.input, self.net.output["displacement"])

        @tf.function(autograph=False)
        def mean(images):
            return tf.reduce_mean(network(images, training=True), axis=[0, 1, 2])

        size = min(batch_size, len(source))
        data = tf.data.Dataset.range(len(source)).map(picture).batch(size, drop_remainder=True)
        means = [mean(images).numpy() for images in data]
        self.net.get_layer("mean_shift").mean.assign(np.mean(means, axis=0))
        return True


def irn_step(network):
    """Return the training step for IRN.

    Args:
      network: `models.irn.irn_network`, with displacements or without.

    Returns:
      A step to be compiled with an optimizer and fitted. Its terms "loss_bg", "loss_fg",
      "loss_neg", and with displacements "loss_dp_fg" and "loss_dp_bg", are weighted: their sum is
      the loss. It raises `UserError` where the labels are of another stride than the network.
    """
    kind = DisplacementStep if "displacement" in network.output else BoundaryStep
    return kind(network, name="irn_step")


class ClassifierStep(TrainingStep):
    """The training step of IRN's classifier; see `irn_cam_step`."""

    term_names = ("loss_cls",)

    def loss_terms(self, batch):
        """Return the term of a batch of "image" and "labels" [B, C]."""
        logits = self.net(batch["image"], training=True)["class_logits"]
        return {"loss_cls": sigmoid_cross_entropy(batch["labels"], logits)}


def irn_cam_step(network):
    """Return the training step for IRN's classifier.

    Args:
      network: `models.irn.irn_cam_network`.

    Returns:
      `ClassifierStep`: independent sigmoid cross entropies, averaged over the classes.
    """
    return ClassifierStep(network, name="irn_cam_step")
