"""SEAM's siamese training step; with its losses off, the CAM baseline."""

from keras import ops

from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.losses.seam import cross_equivariance, equivariance, minimum_pooling
from wsss_tf.ops import max_norm
from wsss_tf.training.affine import Affine
from wsss_tf.training.step import TrainingStep


def seam_losses(outputs1, outputs2, labels, transform, weights, hard_pixel_ratio=0.2):
    """Return SEAM's loss terms from the outputs of the two branches.

    Args:
      outputs1: {"cam", "cam_rv"} [B, H, W, K] of the image.
      outputs2: the same of the transformed image, [B, H', W', K].
      labels: [B, C] multi-hot.
      transform: function of maps [B, H, W, K] to [B, H', W', K], as applied to the image.
      weights: {"er", "ecr", "minimum_pooling"} factors; a term with None is left out.
      hard_pixel_ratio: as in `losses.seam.cross_equivariance`.

    Returns:
      Dict of weighted [B] terms: "loss_cls", and "loss_rvmin", "loss_er", "loss_ecr" where wanted.

    Source: SEAM, equation 7; official `train_SEAM.py`.
    """
    present = ops.cast(labels, "float32")
    mask = ops.concatenate([ops.ones_like(present[:, :1]), present], axis=1)[:, None, None, :]

    def classification(outputs):
        logits = ops.mean(outputs["cam"], axis=(1, 2))[:, 1:]
        return sigmoid_cross_entropy(labels, logits)

    def pooled(outputs):
        return minimum_pooling((outputs["cam_rv"] * mask)[..., 1:])

    def first(maps):  # normalised at full size, then transformed, then masked
        return transform(max_norm(maps)) * mask

    def second(maps):
        return max_norm(maps) * mask

    terms = {"loss_cls": (classification(outputs1) + classification(outputs2)) / 2}
    if weights["minimum_pooling"] is not None:
        terms["loss_rvmin"] = weights["minimum_pooling"] * (pooled(outputs1) + pooled(outputs2)) / 2
    if weights["er"] is None and weights["ecr"] is None:
        return terms
    cam1, cam2 = first(outputs1["cam"]), second(outputs2["cam"])
    if weights["er"] is not None:
        terms["loss_er"] = weights["er"] * equivariance(cam1, cam2)
    if weights["ecr"] is not None:
        terms["loss_ecr"] = weights["ecr"] * (
            cross_equivariance(cam2, first(outputs1["cam_rv"]), hard_pixel_ratio)
            + cross_equivariance(cam1, second(outputs2["cam_rv"]), hard_pixel_ratio)
        )
    return terms


class SeamStep(TrainingStep):
    """The training step of SEAM and of the CAM baseline; see `seam_step`."""

    def __init__(self, net, transform, weights, hard_pixel_ratio, start, ramp, **kwargs):
        self.term_names = [
            "loss_cls",
            *(["loss_rvmin"] if weights["minimum_pooling"] is not None else []),
            *(["loss_er"] if weights["er"] is not None else []),
            *(["loss_ecr"] if weights["ecr"] is not None else []),
        ]
        super().__init__(net, **kwargs)
        self.transform = transform
        self.term_weights = weights
        self.hard_pixel_ratio = hard_pixel_ratio
        self.start, self.ramp = start, ramp

    def loss_terms(self, batch):
        """Return the weighted terms of a batch of "image", "labels" and "uniform" [B, 4]."""
        image, labels = batch["image"], batch["labels"]
        outputs1 = self.net(image, training=True)
        if self.transform is None:  # the CAM baseline has one branch
            logits = ops.mean(outputs1["cam"], axis=(1, 2))[:, 1:]
            return {"loss_cls": sigmoid_cross_entropy(labels, logits)}

        def transform(x):
            return self.transform(x, batch["uniform"])

        outputs2 = self.net(transform(image), training=True)
        ramp = self._ramp()
        weights = {k: None if w is None else w * ramp for k, w in self.term_weights.items()}
        return seam_losses(outputs1, outputs2, labels, transform, weights, self.hard_pixel_ratio)

    def _ramp(self):
        if not self.start and not self.ramp:
            return 1.0
        step = ops.cast(self.optimizer.iterations, "float32")
        return ops.clip((step - self.start) / max(self.ramp, 1), 0.0, 1.0)


def seam_step(
    network,
    siamese=True,
    use_er=True,
    use_pcm=True,
    hard_pixel_ratio=0.2,
    er_weight=1.0,
    ecr_weight=1.0,
    minimum_pooling_weight=1.0,
    rescale=0.3,
    flip=False,
    rotation=0.0,
    translation=0.0,
    consistency_start=0,
    consistency_ramp=0,
):
    """Return the training step for a SEAM network.

    Args:
      network: `models.seam.seam_network`.
      siamese: False trains the CAM baseline: one branch, classification only.
      use_er: the equivariance loss between the branches' CAMs.
      use_pcm: train the PCM: the cross equivariance loss and minimum pooling.
      hard_pixel_ratio: share of pixels that ECR keeps; 1 turns the mining off.
      er_weight, ecr_weight: 1 in the paper.
      minimum_pooling_weight: the official implementation's extra term, absent from the paper;
        None leaves it out.
      rescale, flip, rotation, translation: the transform A, as in `training.affine.Affine`.
      consistency_start, consistency_ramp: the siamese terms' weights rise from 0 at step `start`
        to 1 `ramp` steps later. 0 and 0 in the paper, which starts from a trained classifier; from
        scratch the refined maps degenerate unless the classifier has learnt something first.

    Returns:
      `SeamStep`, to be compiled with an optimizer and fitted.
    """
    if not siamese:
        use_er = use_pcm = False
    return SeamStep(
        network,
        transform=Affine(rescale, flip, rotation, translation) if siamese else None,
        weights={
            "er": er_weight if use_er else None,
            "ecr": ecr_weight if use_pcm else None,
            "minimum_pooling": minimum_pooling_weight if use_pcm else None,
        },
        hard_pixel_ratio=hard_pixel_ratio,
        start=consistency_start,
        ramp=consistency_ramp,
        name="seam_step",
    )
