"""A trained run as inference takes it up: recipe, network, and the pictures to be labelled."""

import dataclasses

from wsss_tf.data.folder import pictures_source
from wsss_tf.errors import UserError
from wsss_tf.files.calibration import load_calibration
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.trained_network import load_network


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run that has been trained.

    Attributes:
      folder: its `RunFolder`.
      recipe: `recipe.Recipe` that it was trained with.
      class_names: the K names in mask order.
      gin_bindings: strings that the recipe was loaded with.
    """

    folder: RunFolder
    recipe: recipe_lib.Recipe
    class_names: tuple
    gin_bindings: tuple = ()

    def network(self, checkpoint="last"):
        """Return the network of checkpoint "last" or "best", for inference alone."""
        return load_network(
            self.folder, checkpoint, for_inference=True, gin_bindings=self.gin_bindings
        )

    def threshold(self, background_threshold=None):
        """Return the background threshold that is asked for.

        None is the one that `wsss_tf.calibrate` chose, or else the recipe's.
        """
        calibration = None if background_threshold is not None else load_calibration(self.folder)
        if calibration is not None:
            return calibration.background_threshold
        return self.recipe.threshold(background_threshold)

    def split_source(self, split):
        """Return a split of the run's data set, without masks.

        Raises:
          UserError: there is none, or the data set has other classes now.
        """
        source = self.recipe.true_source(split).without_masks()
        if tuple(source.class_names) != self.class_names:
            raise UserError(
                f"the run was trained on the classes {list(self.class_names)}, "
                f"the data set now has {list(source.class_names)}."
            )
        return source

    def source(self, output, split=None, pictures=None):
        """Return what is to be labelled, without bad images, which are recorded in `output`.

        Args:
          output: folder.
          split: of the run's data set; or None, and
          pictures: a folder of pictures without labels.

        Raises:
          UserError: as in `split_source` and `training_run.checked_source`.
        """
        from wsss_tf.runs.data_warnings import warn_of_data
        from wsss_tf.runs.training_run import checked_source

        if pictures is None:
            source = self.split_source(split)
        else:
            source = pictures_source(pictures, self.class_names)
            warn_of_data(source)
        return checked_source(self.recipe, source, output)


def open_run(run_dir, gin_bindings=()):
    """Return the `TrainedRun` of a folder.

    Args:
      run_dir: folder, as `wsss_tf.train` made it.
      gin_bindings: strings that override its config.gin.

    Raises:
      UserError: it holds none.
    """
    folder = RunFolder(run_dir)
    recipe = recipe_lib.load_run(folder, gin_bindings)
    return TrainedRun(folder, recipe, folder.read_class_names(), tuple(gin_bindings))
