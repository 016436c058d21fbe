"""SANet's training step: masks, dense prediction and classes of the image."""

from wsss_tf.losses.sanet import categorical_loss, class_presence
from wsss_tf.training.supervised import SupervisedStep


class SanetStep(SupervisedStep):
    """The supervised step with SANet's two further losses; see `sanet_step`."""

    def __init__(self, net, cat_weight, den_weight, cat_reduction, **kwargs):
        self.extra_term_names = (
            *(() if cat_weight is None else ("loss_cat",)),
            *(() if den_weight is None else ("loss_den",)),
        )
        super().__init__(net, **kwargs)
        self.cat_weight = cat_weight
        self.den_weight = den_weight
        self.cat_reduction = cat_reduction

    def extra_terms(self, outputs, batch):
        """Return the weighted {"loss_cat": [B], "loss_den": [B]}, those that are switched on."""
        terms = {}
        if self.cat_weight is not None:
            # Of what the augmented crop shows, not of the whole image.
            presence = class_presence(batch["mask"], outputs["logits"].shape[-1])
            loss = categorical_loss(presence, outputs["category_logits"], self.cat_reduction)
            terms["loss_cat"] = self.cat_weight * loss
        if self.den_weight is not None:
            dense = self.cross_entropy(outputs["dense_logits"], batch["mask"])
            terms["loss_den"] = self.den_weight * dense
        return terms


def sanet_step(network, cat_weight=0.2, den_weight=0.8, cat_reduction="mean"):
    """Return the training step for SANet.

    Args:
      network: `models.sanet.sanet_network`.
      cat_weight: alpha, of the categorical loss; None leaves it out.
      den_weight: beta, of the dense prediction's loss, which the paper also calls auxiliary; None
        leaves it out.
      cat_reduction: over the classes, as in `losses.sanet.categorical_loss`.

    Returns:
      `SupervisedStep` with the terms "loss_seg" (of the masks), "loss_cat" and "loss_den". Pixels
      that are ignored count in none; the mean is over the valid pixels of the global batch (ours).

    Raises:
      ValueError: the network has not SANet's outputs.

    Source: SANet (Zhong et al., CVPR 2020), equations 6 to 9.
    """
    if missing := {"category_logits", "dense_logits"} - network.output.keys():
        raise ValueError(f"the network has no output {sorted(missing)}.")
    return SanetStep(network, cat_weight, den_weight, cat_reduction, name="sanet_step")
