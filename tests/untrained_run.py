"""A run folder as training leaves it, with the network as it is before: made in a second."""

import keras

from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import recipe as recipe_lib


def untrained_run(run_dir, class_names, *gin_files):
    """Write one for classes, "background" first, of which the network is not to know."""
    keras.utils.set_random_seed(0)
    run, recipe = RunFolder(run_dir), recipe_lib.load(gin_files)
    run.checkpoints.mkdir(parents=True)
    recipe.network(num_classes=len(class_names) - 1).save(run.network())
    run.write_class_names(class_names)
    recipe_lib.save_parsed_config(run_dir, "untrained")
