"""A profile of some training steps, for the profile page of TensorBoard."""

import keras
import tensorflow as tf


class ProfileSteps(keras.callbacks.Callback):
    """Record steps `first` to `last` (the first of a run is 1) under `folder`/plugins/profile.

    Args:
      folder: the TensorBoard folder of the run.
      first, last: as counted by the optimizer, so a resumed run counts on. A run that goes on from
        within the range records the rest of it, one from behind it nothing.

    Each step is marked, by which the profile page tells steps apart. Recording costs time (and
    files of some MiB): what the page says about shares holds, the steps are slower than others.
    """

    def __init__(self, folder, first, last):
        super().__init__()
        self.folder = str(folder)
        self.first = first
        self.last = last
        self._is_on = False
        self._mark = None

    def on_train_batch_begin(self, batch, logs=None):
        """Begin the recording, and the mark of each step in it."""
        number = int(self.model.optimizer.iterations.numpy()) + 1
        if not self.first <= number <= self.last:
            return
        if not self._is_on:
            tf.profiler.experimental.start(self.folder)
            self._is_on = True
        self._mark = tf.profiler.experimental.Trace("train", step_num=number, _r=1)
        self._mark.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        """End the mark, and the recording after its last step."""
        if self._mark is None:
            return
        self._mark.__exit__(None, None, None)
        self._mark = None
        if int(self.model.optimizer.iterations.numpy()) >= self.last:
            self.close()

    def close(self):
        """End a recording whose last step the run does not reach.

        Not at the end of `fit`, which may be called twice for a run.
        """
        if self._is_on:
            tf.profiler.experimental.stop()
            self._is_on = False
