"""AffinityNet's training step."""

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.losses.affinity import TERM_WEIGHTS, affinity_terms, pair_kinds
from wsss_tf.training.step import TrainingStep, global_mean


class AffinityStep(TrainingStep):
    """The training step of AffinityNet; see `affinity_step`."""

    term_names = tuple(f"loss_{name}" for name in TERM_WEIGHTS)

    def loss_terms(self, batch):
        """Return the weighted terms of a batch of "image" and "affinity_labels" [B, h, w]."""
        image, labels = batch["image"], batch["affinity_labels"]
        outputs = self.net(image, training=True)
        size = outputs["features"].shape[1:3]
        if size != labels.shape[1:3]:
            raise UserError(
                f"AffinityNet's features are {_by(size)}, its labels {_by(labels.shape[1:3])} "
                "(height x width): the labels want the network's stride, "
                f"affinity_augmentation.stride = {image.shape[1] // size[0]}."
            )
        radius = self.net.get_layer("affinity").radius_on(*size)
        affinity = outputs["affinity"]
        return {
            f"loss_{name}": TERM_WEIGHTS[name] * global_mean(total, count, epsilon=ops.EPSILON)
            for name, (total, count) in affinity_terms(affinity, pair_kinds(labels, radius)).items()
        }


def _by(size):
    return " x ".join(map(str, size))


def affinity_step(network):
    """Return the training step for AffinityNet.

    Args:
      network: `models.affinitynet.affinity_network`.

    Returns:
      `AffinityStep`, to be compiled with an optimizer and fitted. Its terms "loss_bg", "loss_fg"
      and "loss_neg" are weighted: their sum is the loss. It raises `UserError` where the labels are
      of another stride than the network.
    """
    return AffinityStep(network, name="affinity_step")
