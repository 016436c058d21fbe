"""What the methods' training steps share: one functional network, named loss terms, replicas.

Steps run on TensorFlow, which is imported where it is needed: what a method's module has besides
its step, such as `training.seam.seam_losses`, is for Keras' other backends too.
"""

import keras
from keras import ops


def global_mean(total, count, epsilon=0.0):
    """Return per-example terms whose mean over the global batch is the mean over all that counts.

    For losses that are averaged over valid pixels or pairs: replicas, and examples, hold different
    numbers of those, so an average of their averages would be another number.

    Args:
      total: float32 [B], sums over what counts of each of this replica's examples.
      count: float32 [B], how much that is; no gradient flows into it.
      epsilon: added to the global count, where the reference does so.

    Returns:
      float32 [B]; its mean over the global batch is sum(total) / (sum(count) + epsilon), with both
      sums over all replicas, and 0 where nothing counts.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    counted = ops.sum(ops.stop_gradient(ops.cast(count, "float32")))
    examples = ops.cast(ops.shape(total)[0], "float32")
    counted, examples = context.all_reduce("sum", [counted, examples])
    return total * tf.math.divide_no_nan(examples, counted + epsilon)


class TrainingStep(keras.Model):
    """Base of the training steps: `train_step` from a method's `loss_terms`.

    Args:
      net: the functional model to train; what is saved and exported.

    A subclass gives `term_names` and the method `loss_terms(batch)`, which returns a float32 [B]
    for each of them; the step minimises the sum of their means over the global batch.
    """

    term_names = ()

    def __init__(self, net, **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self.trackers = {name: keras.metrics.Mean(name=name) for name in (*self.term_names, "loss")}
        self.built = True

    @property
    def metrics(self):
        """One mean per term: a replica's own value in the log would be an average of replicas."""
        return list(self.trackers.values())

    def compile(self, optimizer, **kwargs):
        """Compile, under the strategy's scope, and make the optimizer's slots there at once.

        They must be there before a checkpoint is restored, which would else lose them silently.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.net.trainable_variables)

    def make_train_function(self, force=False):
        """Compile the step; over several hosts with logs that are means over all of them.

        Keras' own does that by `strategy.reduce(..., axis=0)`, which fails on scalars.
        """
        import tensorflow as tf

        from wsss_tf.training import hosts

        strategy = self.distribute_strategy
        if not hosts.is_over_hosts(strategy) or (self.train_function and not force):
            super().make_train_function(force)
            return

        @tf.function(autograph=False)
        def train_function(iterator):
            logs = strategy.run(self.train_step, args=(next(iterator),))
            return {name: strategy.reduce("MEAN", log, axis=None) for name, log in logs.items()}

        self.train_function = train_function

    # It overrides what is private to Keras: under another name it would be without effect.
    assert keras.backend.backend() != "tensorflow" or hasattr(keras.Model, "_maybe_symbolic_build")

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Do nothing: a step is built when it is made, and its optimizer by `compile`.

        Keras would draw a batch for this, and over several hosts (as of Keras 3.15) fail to average
        it, since it is a dict.
        """

    def finish(self, source):
        """Do what is left once training has ended; return whether the network has changed.

        Args:
          source: `data.source.Source` that was trained on.
        """
        del source
        return False

    def call(self, image, training=False):
        """Run the network."""
        return self.net(image, training=training)

    def train_step(self, batch):
        """Take one optimizer step; gradients are of the mean over the global batch."""
        import tensorflow as tf

        # Replicas' gradients are summed, so each contributes its share of the mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            terms = {name: ops.mean(term) for name, term in self.loss_terms(batch).items()}
            loss = sum(terms.values())
            scaled = self.optimizer.scale_loss(loss / replicas)
        variables = self.net.trainable_variables
        gradients = tape.gradient(scaled, variables)
        # A variable that no active term reaches (the PCM of a plain CAM run) has no gradient; it
        # still takes part in weight decay in no official run, so it is left alone.
        pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
        self.optimizer.apply_gradients(pairs)
        for name, value in {**terms, "loss": loss}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}
