"""CPNet's training step: segmentation, auxiliary and affinity loss."""

from wsss_tf.losses.cpnet import affinity_loss, downsample_mask
from wsss_tf.training.supervised import SupervisedStep


class CpnetStep(SupervisedStep):
    """The supervised step with CPNet's affinity loss; see `cpnet_step`."""

    def __init__(self, net, prior_weight, part_weights, map_size, masked, **kwargs):
        self.extra_term_names = () if prior_weight is None else ("loss_prior",)
        super().__init__(net, **kwargs)
        self.prior_weight = prior_weight
        self.part_weights = part_weights
        self.map_size = map_size
        self.masked = masked

    def extra_terms(self, outputs, batch):
        """Return {"loss_prior": [B]}, the affinity loss against the masks at the prior's size."""
        if self.prior_weight is None:
            return {}
        num_classes = outputs["logits"].shape[-1]
        mask = downsample_mask(batch["mask"], self.map_size)
        loss = affinity_loss(
            outputs["prior"], mask, num_classes, *self.part_weights, masked=self.masked
        )
        return {"loss_prior": self.prior_weight * loss}


def cpnet_step(
    network,
    aux_weight=0.4,
    prior_weight=1.0,
    unary_weight=1.0,
    global_weight=1.0,
    over_all_pixels=False,
    masked_affinity=False,
    hard_probability=None,
    hard_share=1 / 16,
):
    """Return the training step for CPNet and its variants.

    Args:
      network: `models.cpnet.cpnet_network`.
      aux_weight: of the auxiliary loss; None leaves it out.
      prior_weight: of the affinity loss; None leaves it out, and the prior then learns from the
        segmentation alone. A network without a prior needs None.
      unary_weight, global_weight: of the affinity loss' two parts, as in
        `losses.cpnet.affinity_loss`.
      over_all_pixels: divide the cross entropies by all pixels, as the official code's host did,
        instead of those that are not ignored.
      masked_affinity: leave ignored pixels out of the affinity loss, as `masked` in
        `losses.cpnet.affinity_terms`. False is the official code.
      hard_probability: the segmentation loss (not the auxiliary one) counts only pixels whose true
        class has at most this probability, as `losses.segmentation.hard_pixels`; None counts all.
      hard_share: and at least this share of an image's pixels, the hardest ones.

    Returns:
      `SupervisedStep` with the terms "loss_seg", "loss_aux" and "loss_prior".

    Raises:
      ValueError: a term's output is not there; both `over_all_pixels` and `hard_probability` (when
        the loss is computed).

    Source: CPNet (Yu et al., CVPR 2020), equations 5 and 6: weights 1, 0.4 and 1, and 1 and
    1 within the affinity loss.
    """
    map_size = None
    if prior_weight is not None:
        if "prior" not in network.output:
            raise ValueError(
                "the network has no output 'prior'; set cpnet_step.prior_weight to None."
            )
        map_size = network.get_layer("context_prior").size
    return CpnetStep(
        network,
        prior_weight,
        (unary_weight, global_weight),
        map_size,
        masked_affinity,
        aux_weight=aux_weight,
        over_all_pixels=over_all_pixels,
        hard_probability=hard_probability,
        hard_share=hard_share,
        name="cpnet_step",
    )
