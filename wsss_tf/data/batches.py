"""From a source to batches: every batch is a pure function of (seed, epoch, position).

There is no shuffle buffer and no iterator state. A step's examples follow from its number by
arithmetic, so resuming at step k means starting to count at k, and how many replicas or workers
share a batch does not change what is in it.
"""

import tensorflow as tf

from wsss_tf.errors import UserError

UNIFORM_DRAWS = 4


def steps_per_epoch(source, batch_size):
    """Return how many whole batches the source holds; each epoch leaves out another remainder.

    1 where it holds not even one: see `training_batches`.

    Raises:
      UserError: a batch of no examples.
    """
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}; choose one from 1 on.")
    return max(1, len(source) // batch_size)


def training_batches(source, augment, batch_size, seed, first_step=0, input_context=None):
    """Return the endless dataset of training batches from a step on.

    Args:
      source: `data.source.Source` of n examples.
      augment: function of (example, rng_seed int32 [2]) to an example whose shapes are static; it
        may use stateless random operations only.
      batch_size: B, examples in a global batch. An epoch is n // B steps; which n % B examples it
        leaves out is drawn anew each epoch. Where B is above n, an epoch is one step, and passes
        over the source follow each other without a gap, from batch to batch.
      seed: integer in [0, 2**31); of order and augmentation.
      first_step: number of the step that the first batch is for (the optimizer's iterations).
      input_context: None, and the dataset may be given to `Model.fit`, under `MirroredStrategy`
        too: it splits each batch by position. For several hosts pass what
        `strategy.distribute_datasets_from_function` gives: the dataset then holds this host's part
        of each global batch, in batches for one replica.

    Returns:
      `tf.data.Dataset` of {key: [B, ...]}: what `augment` returns but for strings, "index" int64
      [B] (positions in the source), and "uniform" [B, 4] in [0, 1), for random choices of the
      training step. Step s, slot j depends on the seed, the epoch s // steps_per_epoch and the
      position in it only (for B above n, on s and j in their stead).

    Raises:
      UserError: batch size or seed out of range.
      ValueError: the batch cannot be split over the replicas evenly.
    """
    in_epoch = min(steps_per_epoch(source, batch_size) * batch_size, len(source))
    if not 0 <= seed < 2**31:
        raise UserError(f"seed = {seed}; choose an integer from 0 to {2**31 - 1}.")
    part, parts, device_batch = 0, 1, batch_size
    if input_context is not None:
        part, parts = input_context.input_pipeline_id, input_context.num_input_pipelines
        device_batch = input_context.get_per_replica_batch_size(batch_size)
    part_size = batch_size // parts
    if part_size % device_batch or part_size * parts != batch_size:
        raise ValueError(f"a batch of {batch_size} does not split over {parts} hosts evenly.")

    @tf.autograph.experimental.do_not_convert
    def example(count):
        # `count` runs over this host's examples, `number` over those of all hosts.
        number = count // part_size * batch_size + part * part_size + count % part_size
        epoch, position = number // in_epoch, number % in_epoch
        index = tf.random.experimental.index_shuffle(
            position, seed=tf.stack([tf.constant(seed, tf.int64), epoch]), max_index=len(source) - 1
        )
        own_seed = tf.stack([tf.constant(seed, tf.int32), tf.cast(number, tf.int32)])
        augment_seed, step_seed = tf.unstack(tf.random.split(own_seed, num=2))
        loaded = source.load(index)
        augmented = augment(loaded, augment_seed)
        return {
            # No strings: replicas cannot take a part of them.
            **{key: value for key, value in augmented.items() if value.dtype != tf.string},
            "index": index,
            "uniform": tf.random.stateless_uniform([UNIFORM_DRAWS], step_seed),
        }

    dataset = tf.data.Dataset.range(first_step * part_size, tf.int64.max)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(device_batch, drop_remainder=True)
    options = tf.data.Options()
    # Sharding by file or element would give each worker another order than the one above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
