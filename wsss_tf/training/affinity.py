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
        check_labels(size, labels, image, "AffinityNet's features", "affinity_augmentation")
        radius = self.net.get_layer("affinity").radius_on(*size)
        return weighted_means(affinity_terms(outputs["affinity"], pair_kinds(labels, radius)))


def weighted_means(terms, weights=TERM_WEIGHTS):
    """Return {"loss_..": float32 [B]} of the terms that `losses.affinity` or `losses.irn` give.

    Args:
      terms: {name: (total [B], count [B])}.
      weights: {name: factor}.
    """
    return {
        f"loss_{name}": weights[name] * global_mean(total, count, epsilon=ops.EPSILON)
        for name, (total, count) in terms.items()
    }


def check_labels(size, labels, image, what, augmentation):
    """Check that labels of pixels are on the grid of the network.

    Args:
      size: (h, w) of the network's maps.
      labels: [B, h, w].
      image: [B, H, W, 3].
      what: the maps are called in the message.
      augmentation: whose `stride` the labels have.

    Raises:
      UserError: they are not.
    """
    if tuple(size) != tuple(labels.shape[1:3]):
        raise UserError(
            f"{what} are {_by(size)}, its labels {_by(labels.shape[1:3])} (height x width): the "
            f"labels want the network's stride, {augmentation}.stride = "
            f"{image.shape[1] // size[0]}."
        )


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
