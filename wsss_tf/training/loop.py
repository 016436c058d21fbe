"""Fit a training step from where it stopped."""

import sys

import tensorflow as tf

from wsss_tf.files.run_folder import RunFolder
from wsss_tf.training import hosts
from wsss_tf.training.callbacks import EndOfEpoch, StopOnNonFinite
from wsss_tf.training.checkpoints import Checkpoints
from wsss_tf.training.profiling import ProfileSteps


def fit(
    step,
    batches,
    steps_per_epoch,
    total_steps,
    run_dir,
    validate=None,
    after_first_step=None,
    profile_steps=None,
):
    """Train, resuming from the latest checkpoint of the run folder if there is one.

    Args:
      step: compiled `training.step.TrainingStep`, built under its strategy's scope.
      batches: function of (first step, input_context) to the dataset of batches from that step on;
        see `data.batches.training_batches`.
      steps_per_epoch: optimizer steps between two checkpoints.
      total_steps: how many the whole run has; its last epoch may be a shorter one.
      run_dir: run folder; checkpoints and TensorBoard files go there.
      validate, after_first_step: as in `callbacks.EndOfEpoch`; `after_first_step` is given the
        summary writer.
      profile_steps: (first, last) step to record for TensorBoard's profile page; None for none.

    Of several hosts each calls this; the chief validates and writes while the others wait for it.

    Returns:
      The step number the run went on from (0 for a new one).

    Raises:
      UserError: a loss that is not finite, a checkpoint of another network, or hosts that do not
        see the same.
      LostWorker: another host has gone.
    """
    strategy = step.distribute_strategy
    checkpoints = Checkpoints(step, RunFolder(run_dir).checkpoints)
    if hosts.is_chief(strategy):
        checkpoints.remove_left_overs()
    first_step = checkpoints.restore()
    hosts.check_same_everywhere(
        strategy, **{"last step": first_step, "number of steps": total_steps}
    )
    if first_step >= total_steps:
        return first_step
    callbacks, profile = [StopOnNonFinite()], None
    writer = tf.summary.create_noop_writer()
    if hosts.is_chief(strategy):
        tensorboard = RunFolder(run_dir).tensorboard
        writer = tf.summary.create_file_writer(str(tensorboard))
        note = None if after_first_step is None else lambda: after_first_step(writer)
        callbacks.append(EndOfEpoch(checkpoints, validate, writer, note))
        if profile_steps is not None:
            profile = ProfileSteps(tensorboard, *profile_steps)
            callbacks.insert(0, profile)
    options = {
        "shuffle": False,
        # One line an epoch where nobody watches a progress bar.
        "verbose": 1 if sys.stdout.isatty() else 2,
        "callbacks": callbacks,
    }

    def dataset(first):
        if not hosts.is_over_hosts(strategy):  # Keras splits each batch over the replicas
            return batches(first)
        return strategy.distribute_datasets_from_function(lambda context: batches(first, context))

    done = first_step // steps_per_epoch
    whole, rest = divmod(total_steps - first_step, steps_per_epoch)
    with hosts.lost_worker_as_error(strategy):
        if whole:
            step.fit(
                dataset(first_step),
                initial_epoch=done,
                epochs=done + whole,
                steps_per_epoch=steps_per_epoch,
                **options,
            )
        if rest:
            step.fit(
                dataset(total_steps - rest),
                initial_epoch=done + whole,
                epochs=done + whole + 1,
                steps_per_epoch=rest,
                **options,
            )
    if profile is not None:
        profile.close()
    writer.close()
    return first_step
