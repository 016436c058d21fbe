"""Fit a training step from where it stopped."""

import sys

import tensorflow as tf

from wsss_tf.training.callbacks import EndOfEpoch, StopOnNonFinite
from wsss_tf.training.checkpoints import Checkpoints


def fit(step, batches, steps_per_epoch, total_steps, run_dir, validate=None, after_first_step=None):
    """Train, resuming from the latest checkpoint of the run folder if there is one.

    Args:
      step: compiled `training.step.TrainingStep`, built under its strategy's scope.
      batches: function of a step number to the dataset of batches from that step on.
      steps_per_epoch: optimizer steps between two checkpoints.
      total_steps: how many the whole run has; its last epoch may be a shorter one.
      run_dir: run folder, a `pathlib.Path`; checkpoints and TensorBoard files go there.
      validate, after_first_step: as in `callbacks.EndOfEpoch`; `after_first_step` is given the
        summary writer.

    Returns:
      The step number the run went on from (0 for a new one).

    Raises:
      UserError: a loss that is not finite, or a checkpoint of another network.
    """
    checkpoints = Checkpoints(step, run_dir / "checkpoints")
    first_step = checkpoints.restore()
    if first_step >= total_steps:
        return first_step
    writer = tf.summary.create_file_writer(str(run_dir / "tensorboard"))
    note = None if after_first_step is None else lambda: after_first_step(writer)
    options = {
        "shuffle": False,
        # One line an epoch where nobody watches a progress bar.
        "verbose": 1 if sys.stdout.isatty() else 2,
        "callbacks": [StopOnNonFinite(), EndOfEpoch(checkpoints, validate, writer, note)],
    }
    done = first_step // steps_per_epoch
    whole, rest = divmod(total_steps - first_step, steps_per_epoch)
    if whole:
        step.fit(
            batches(first_step),
            initial_epoch=done,
            epochs=done + whole,
            steps_per_epoch=steps_per_epoch,
            **options,
        )
    if rest:
        step.fit(
            batches(total_steps - rest),
            initial_epoch=done + whole,
            epochs=done + whole + 1,
            steps_per_epoch=rest,
            **options,
        )
    writer.close()
    return first_step
