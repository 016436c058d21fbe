"""Checkpoints from which a run goes on as if it had never stopped."""

import pathlib
import shutil

import tensorflow as tf

from wsss_tf.errors import UserError
from wsss_tf.files.left_overs import remove_files
from wsss_tf.files.run_folder import atomic_path, network_path


class Checkpoints:
    """All the state of a run: weights, optimizer slots and step, dropout's seeds, best score.

    Args:
      step: compiled `training.step.TrainingStep`.
      folder: of a run. It holds TensorFlow checkpoints to resume from, and the networks themselves,
        "last" and "best".

    The position in the data is not stored: it follows from the optimizer's step. Of several hosts
    all restore, from the same folder, and only the chief saves: no variable here differs between
    them (only those of metrics do, which are not kept).
    """

    def __init__(self, step, folder):
        self.net = step.net
        self.optimizer = step.optimizer
        self.folder = pathlib.Path(folder)
        self.best = tf.Variable(-1.0, dtype=tf.float32, trainable=False, name="best_miou")
        # Keras leaves the states of its seed generators out of what TensorFlow tracks.
        seeds = [v.value for v in self.net.variables if "seed" in v.path]
        checkpoint = tf.train.Checkpoint(
            net=self.net, optimizer=self.optimizer, seeds=seeds, best=self.best
        )
        self._checkpoint = checkpoint
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(self.folder), max_to_keep=2, checkpoint_name="step"
        )

    @property
    def step(self):
        """The number of optimizer steps taken so far, an int."""
        return int(self.optimizer.iterations.numpy())

    def restore(self):
        """Go back to the latest checkpoint, if there is one; return the step, 0 for none.

        Raises:
          UserError: it is the checkpoint of another network or optimizer.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return 0
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
        except (ValueError, AssertionError, tf.errors.OpError) as error:
            raise UserError(
                f"{path}: is not a checkpoint of this network and optimizer "
                f"({str(error).splitlines()[0]}); use another --run_dir."
            ) from error
        return self.step

    def save(self, miou=None):
        """Save the state; also the network as "last", and as "best" if `miou` is the best.

        Args:
          miou: validation score of the network as it is now; None if there is none.
        """
        if miou is not None and miou > float(self.best.numpy()):
            self.best.assign(miou)
            self._save_net("best")
            with atomic_path(network_path(self.folder, "last")) as temporary:
                shutil.copyfile(network_path(self.folder, "best"), temporary)
        else:
            self._save_net("last")
        # Last, so that a checkpoint never points past the network files.
        self._manager.save(checkpoint_number=self.step)

    def remove_left_overs(self):
        """Remove what a killed process was writing, or was about to remove."""
        remove_files(self.folder)
        known = {pathlib.Path(path).name for path in self._manager.checkpoints}
        for path in self.folder.glob("checkpoint.tmp*"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("step-*"):
            if path.is_dir():  # step-N_temp, in which TensorFlow writes
                shutil.rmtree(path, ignore_errors=True)
            elif known and path.stem not in known:
                path.unlink(missing_ok=True)

    def _save_net(self, checkpoint):
        with atomic_path(network_path(self.folder, checkpoint)) as temporary:
            self.net.save(temporary)
