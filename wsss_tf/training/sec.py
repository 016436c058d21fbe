"""SEC's training step, and that of the two classifiers its cues come from."""

from keras import ops

from wsss_tf.errors import UserError
from wsss_tf.layers.mean_field import mean_field
from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.losses.sec import clipped_softmax, constrain, expansion, seeding
from wsss_tf.ops import denormalize_image, resize_bilinear
from wsss_tf.training.step import TrainingStep


def crf_image(image, size):
    """Return the colours that the CRF sees on the network's grid.

    Args:
      image: [B, H, W, 3], as `ops.normalize_image` gives.
      size: (h, w) of the grid.

    Returns:
      float32 [B, h, w, 3], whole numbers in 0..255. With aligned corners, 321 to 41 takes every
      eighth pixel as it is.
    """
    colours = denormalize_image(resize_bilinear(image, size, align_corners=True))
    return ops.clip(ops.round(colours), 0.0, 255.0)


class SecStep(TrainingStep):
    """The training step of SEC; see `sec_step`."""

    def __init__(self, net, term_names, decays, crf, **kwargs):
        self.term_names = term_names
        super().__init__(net, **kwargs)
        self.decays = decays
        self.crf = crf

    def loss_terms(self, batch):
        """Return the terms of a batch of "image", "labels" [B, C] and "cues" [B, h, w].

        Cues are classes, 0 for background; 255 (or any number that is no class) is no cue.
        """
        logits = self.net(batch["image"], training=True)["logits_low"]
        classes, present = logits.shape[-1], batch["labels"].shape[-1]
        if classes != present + 1:
            raise ValueError(f"the network has {classes} classes, the labels {present} and one.")
        probs = clipped_softmax(logits)
        terms = {}
        if "loss_seed" in self.term_names:
            if "cues" not in batch:
                raise UserError(
                    "the seeding loss needs localisation cues: make them with "
                    "python -m wsss_tf.cues and give their folder with "
                    "--gin_bindings='sec_augmentation.cues=\"FOLDER\"'."
                )
            _check_grid(batch["cues"], logits)
            cues = ops.expand_dims(ops.cast(batch["cues"], "int32"), -1) == ops.arange(classes)
            terms["loss_seed"] = seeding(probs, cues)
        if "loss_expand" in self.term_names:
            terms["loss_expand"] = expansion(probs, batch["labels"], **self.decays)
        if "loss_constrain" in self.term_names:
            constant = ops.stop_gradient(logits)
            colours = crf_image(batch["image"], ops.shape(constant)[1:3])
            terms["loss_constrain"] = constrain(probs, mean_field(constant, colours, **self.crf))
        return terms


def _check_grid(cues, logits):
    grid, network = cues.shape[1:3], logits.shape[1:3]
    if tuple(grid) != tuple(network):
        sizes = " x ".join(map(str, grid)), " x ".join(map(str, network))
        raise UserError(
            f"sec_augmentation.cues: these cues are {sizes[0]}, but the network's grid is "
            f"{sizes[1]}; make them anew with python -m wsss_tf.cues --grid={network[0]}."
        )


def sec_step(
    network,
    use_seed=True,
    use_expand=True,
    use_constrain=True,
    present_decay=0.996,
    absent_decay=0.0,
    background_decay=0.999,
    crf_iterations=10,
    bilateral_weight=10.0,
    bilateral_xy=80 / 12,
    bilateral_rgb=13.0,
    gaussian_weight=3.0,
    gaussian_xy=3 / 12,
):
    """Return the training step for a SEC network.

    Args:
      network: `models.sec.sec_network`.
      use_seed, use_expand, use_constrain: the three losses, weights 1 each.
      present_decay, absent_decay, background_decay: of rank pooling in the expansion loss, as in
        `losses.sec.expansion`.
      crf_iterations, bilateral_weight, bilateral_xy, bilateral_rgb, gaussian_weight, gaussian_xy:
        of the CRF, as in `layers.mean_field.mean_field`; distances are in pixels of the network's
        grid.

    Returns:
      `SecStep`, to be compiled with an optimizer and fitted.

    Raises:
      ValueError: no loss is left.

    Source: SEC (Kolesnikov and Lampert, ECCV 2016), section 3; official training layers.
    """
    used = {"loss_seed": use_seed, "loss_expand": use_expand, "loss_constrain": use_constrain}
    names = [name for name, is_used in used.items() if is_used]
    if not names:
        raise ValueError("use_seed, use_expand and use_constrain are all False; nothing to learn.")
    return SecStep(
        network,
        term_names=names,
        decays={
            "present_decay": present_decay,
            "absent_decay": absent_decay,
            "background_decay": background_decay,
        },
        crf={
            "iterations": crf_iterations,
            "bilateral_weight": bilateral_weight,
            "bilateral_xy": bilateral_xy,
            "bilateral_rgb": bilateral_rgb,
            "gaussian_weight": gaussian_weight,
            "gaussian_xy": gaussian_xy,
        },
        name="sec_step",
    )


class ClassifierStep(TrainingStep):
    """The training step of a multi-label classifier; see `classifier_step`."""

    term_names = ("loss_cls",)

    def loss_terms(self, batch):
        """Return the term of a batch of "image" and "labels" [B, C]."""
        labels = batch["labels"]
        logits = self.net(batch["image"], training=True)["class_logits"]
        # Summed over the classes, as Caffe's loss is; ours is their mean.
        return {"loss_cls": labels.shape[-1] * sigmoid_cross_entropy(labels, logits)}


def classifier_step(network):
    """Return the training step for a network with the output "class_logits" [B, C].

    Args:
      network: `models.sec.foreground_network` or `models.sec.background_network`.

    Returns:
      `ClassifierStep`: independent sigmoid cross entropies, summed over the classes.

    Source: SEC's localisation networks.
    """
    return ClassifierStep(network, name="classifier_step")
