"""What happens during `fit` besides the training itself."""

import math

import keras
import tensorflow as tf

from wsss_tf.errors import UserError


class StopOnNonFinite(keras.callbacks.Callback):
    """End the run at the first loss that is not a number, before anything is saved.

    Raises (from `fit`):
      UserError: with the step and the loss terms.
    """

    def on_train_batch_end(self, batch, logs=None):
        if logs and not math.isfinite(logs["loss"]):
            step = int(self.model.optimizer.iterations.numpy())
            terms = ", ".join(f"{name} {float(value):.4g}" for name, value in logs.items())
            raise UserError(
                f"step {step}: the loss is not finite ({terms}); the last checkpoint is kept. "
                "Lower the learning rate, or look at the images of this step."
            )


class EndOfEpoch(keras.callbacks.Callback):
    """Validate, save a checkpoint, and write to TensorBoard, after each epoch.

    Args:
      checkpoints: `training.checkpoints.Checkpoints`.
      validate: function without arguments that returns (dict of scalars, dict of uint8 [H, W, 3]
        pictures) for the network as it is; the scalar "miou", if there, chooses the best network.
        None for no validation.
      writer: `tf.summary` writer; None to write nothing.
      after_first_step: called once, when the first step has been taken (the operative
        configuration is complete only then).
      log_every: steps between two points of the loss curves.
    """

    def __init__(
        self, checkpoints, validate=None, writer=None, after_first_step=None, log_every=10
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.validate = validate
        self.writer = writer or tf.summary.create_noop_writer()
        self.after_first_step = after_first_step
        self.log_every = log_every

    def on_train_batch_end(self, batch, logs=None):
        """Write the losses (means since the epoch began) and the learning rate."""
        if self.after_first_step is not None:
            self.after_first_step()
            self.after_first_step = None
        step = self.checkpoints.step
        if step % self.log_every == 0:
            with self.writer.as_default(step):
                for name, value in logs.items():
                    tf.summary.scalar(f"train/{name}", value)
                tf.summary.scalar("train/learning_rate", self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        """Validate, save, write; the scores join Keras' own log of the epoch."""
        scalars, pictures = self.validate() if self.validate else ({}, {})
        self.checkpoints.save(scalars.get("miou"))
        with self.writer.as_default(self.checkpoints.step):
            for name, value in scalars.items():
                tf.summary.scalar(f"validation/{name}", value)
            for name, picture in pictures.items():
                tf.summary.image(name, picture[None])
        self.writer.flush()
        if logs is not None:
            logs.update({f"val_{name}": float(value) for name, value in scalars.items()})
