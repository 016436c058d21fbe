"""AffinityNet's training step."""

from wsss_tf import ops
from wsss_tf.losses.affinity import TERM_WEIGHTS, affinity_terms, pair_kinds
from wsss_tf.training.step import TrainingStep, global_mean


class AffinityStep(TrainingStep):
    """The training step of AffinityNet; see `affinity_step`."""

    term_names = tuple(f"loss_{name}" for name in TERM_WEIGHTS)

    def __init__(self, net, radius, **kwargs):
        super().__init__(net, **kwargs)
        self.radius = radius

    def loss_terms(self, batch):
        """Return the weighted terms of a batch of "image" and "affinity_labels" [B, h, w]."""
        features = self.net(batch["image"], training=True)["features"]
        labels = batch["affinity_labels"]
        if features.shape[1:3] != labels.shape[1:3]:
            raise ValueError(f"features {features.shape} and labels {labels.shape} differ in size.")
        radius = ops.search_radius(*labels.shape[1:3], self.radius)
        affinity = ops.pairwise_affinity(features, radius)
        return {
            f"loss_{name}": TERM_WEIGHTS[name] * global_mean(total, count, epsilon=ops.EPSILON)
            for name, (total, count) in affinity_terms(affinity, pair_kinds(labels, radius)).items()
        }


def affinity_step(network, radius=5):
    """Return the training step for AffinityNet.

    Args:
      network: `models.affinitynet.affinity_network`.
      radius: pixels of the feature map in which pairs are made; less on maps under
        2 radius + 1 pixels.

    Returns:
      `AffinityStep`, to be compiled with an optimizer and fitted. Its terms "loss_bg", "loss_fg"
      and "loss_neg" are weighted: their sum is the loss.
    """
    return AffinityStep(network, radius, name="affinity_step")
