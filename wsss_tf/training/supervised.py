"""The training step of networks that learn masks, true ones or pseudo labels."""

import tensorflow as tf

from wsss_tf.losses.segmentation import softmax_cross_entropy
from wsss_tf.ops import resize_bilinear
from wsss_tf.training.step import TrainingStep, global_mean


class SupervisedStep(TrainingStep):
    """Softmax cross entropy of "logits", and of "aux_logits" where there is a weight for them.

    Args: as `supervised_step`.

    A method with further terms is a subclass that names them in `extra_term_names` and returns
    them, weighted, from `extra_terms(outputs, batch)`; the network runs once for all terms.
    """

    extra_term_names = ()

    def __init__(
        self,
        net,
        aux_weight=None,
        over_all_pixels=False,
        align_corners=False,
        hard_probability=None,
        hard_share=1 / 16,
        **kwargs,
    ):
        wanted = ["logits"] if aux_weight is None else ["logits", "aux_logits"]
        if missing := set(wanted) - set(net.output):
            raise ValueError(f"the network has no {sorted(missing)}, only {sorted(net.output)}.")
        self.term_names = (
            "loss_seg",
            *(() if aux_weight is None else ("loss_aux",)),
            *self.extra_term_names,
        )
        super().__init__(net, **kwargs)
        self.aux_weight = aux_weight
        self.over_all_pixels = over_all_pixels
        self.align_corners = align_corners
        self.hard = {"hard_probability": hard_probability, "hard_share": hard_share}

    def loss_terms(self, batch):
        """Return the weighted terms of a batch of "image" [B, H, W, 3] and "mask" [B, H, W]."""
        outputs = self.net(batch["image"], training=True)
        terms = {"loss_seg": self.cross_entropy(outputs["logits"], batch["mask"], **self.hard)}
        if self.aux_weight is not None:
            auxiliary = self.cross_entropy(outputs["aux_logits"], batch["mask"])
            terms["loss_aux"] = self.aux_weight * auxiliary
        return {**terms, **self.extra_terms(outputs, batch)}

    def extra_terms(self, outputs, batch):
        """Return a method's own terms, {name: float32 [B]} for `extra_term_names`.

        Args:
          outputs: the network's, by name.
          batch: as the pipeline gives it: "image", "mask", "labels", "uniform" and "index".
        """
        return {}

    def cross_entropy(self, logits, mask, **hard):
        """Return [B], whose mean over the global batch is the mean over its pixels.

        Args:
          logits: [B, h, w, K]; resized to the mask's size if they have another.
          mask: uint8 [B, H, W].
          **hard: `hard_probability` and `hard_share` of `losses.segmentation`; none counts all.
        """
        if logits.shape[1:3] != mask.shape[1:3]:
            logits = resize_bilinear(logits, tf.shape(mask)[1:3], self.align_corners)
        return global_mean(*softmax_cross_entropy(logits, mask, self.over_all_pixels, **hard))


def supervised_step(network, aux_weight=None, over_all_pixels=False, align_corners=False):
    """Return the training step for a network that predicts masks.

    Args:
      network: with the output "logits", and "aux_logits" for `aux_weight`.
      aux_weight: factor on the auxiliary output's loss; None leaves the term out.
      over_all_pixels: divide the losses by all pixels instead of those that are not ignored.
      align_corners: how logits smaller than the masks are resized, as in `ops.resize_bilinear`.

    Returns:
      `SupervisedStep`, to be compiled with an optimizer and fitted.
    """
    return SupervisedStep(
        network, aux_weight, over_all_pixels, align_corners, name="supervised_step"
    )
