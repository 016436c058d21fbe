"""Train a recipe, or go on with a run that was interrupted.

  python -m wsss_tf.train --gin_file=gin/seam.gin --gin_file=gin/data/shapes.gin --run_dir=RUN

Later --gin_file override earlier ones, and --gin_bindings override them all. The same command
again resumes from the last checkpoint.
"""

import pathlib

from absl import flags

from wsss_tf import command, run_folder
from wsss_tf import recipe as recipe_lib
from wsss_tf.errors import UserError

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Recipe and overlays; later ones win.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Single settings, such as 'Recipe.batch_size=4'."
)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; made if it is not there.")


def main():
    """Run the command."""
    if not _RUN_DIR.value:
        raise UserError("--run_dir is missing: the folder that the run is to be kept in.")
    recipe = recipe_lib.load(_GIN_FILE.value, _GIN_BINDINGS.value)
    train(recipe, pathlib.Path(_RUN_DIR.value))


def train(recipe, run_dir):
    """Train a recipe in a run folder, resuming if it holds a checkpoint.

    Args:
      recipe: `recipe.Recipe`.
      run_dir: `pathlib.Path`.

    Raises:
      UserError: whatever the user can put right; see the modules called.
    """
    # Here, so that --help and a misspelt flag answer at once.
    import keras
    import tensorflow as tf

    from wsss_tf.data import pipeline
    from wsss_tf.training.devices import make_strategy
    from wsss_tf.training.loop import fit
    from wsss_tf.validation import make_validation

    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    strategy = make_strategy(recipe.devices, recipe.batch_size)

    source = recipe.source(split=recipe.train_split)
    if not source.has_background and recipe.weakly_supervised:
        raise UserError(
            f"{source.name}: its first class is {source.class_names[0]!r}, not 'background', so it "
            "cannot be learnt from image labels."
        )
    if recipe.weakly_supervised:
        source = source.without_masks()
    source = recipe_lib.checked_source(recipe, source, run_dir, require_labels=recipe.weakly_supervised)
    augmentation = recipe.augmentation()
    steps = pipeline.steps_per_epoch(source, recipe.batch_size)

    with strategy.scope():
        net = recipe.network(num_classes=source.num_classes)
        _initialise(net, recipe)
        step = recipe.step(net)
        step.compile(optimizer=recipe.optimizer(total_steps=steps * recipe.epochs))

    validate = None
    if recipe.validation_split is not None:
        val_source = recipe.source(split=recipe.validation_split)
        val_source = recipe_lib.checked_source(recipe, val_source, run_dir)
        validate = make_validation(val_source, net, recipe.cam_output, recipe.validation_images)

    def batches(first_step):
        return pipeline.training_batches(
            source, augmentation, recipe.batch_size, recipe.seed, first_step
        )

    def after_first_step(writer):
        config = recipe_lib.save_config(run_dir)
        with writer.as_default(0):
            tf.summary.text("config.gin", "\n".join("    " + x for x in config.splitlines()))

    run_folder.write_text(run_dir / "class_names.txt", "\n".join(source.class_names) + "\n")
    print(
        f"{source.name}/{source.split}: {len(source)} images, {source.num_classes} classes; "
        f"{recipe.epochs} epochs of {steps} steps of {recipe.batch_size}; "
        f"{strategy.num_replicas_in_sync} replica(s)."
    )
    first_step = fit(
        step, batches, steps, recipe.epochs, run_dir, validate, after_first_step
    )
    if first_step >= steps * recipe.epochs:
        print(f"already trained for {first_step} steps; nothing to do.")
    elif first_step:
        print(f"went on from step {first_step}.")
    print(f"network: {run_dir / 'checkpoints' / 'last.keras'}")


def _initialise(net, recipe):
    from wsss_tf.training.initial_weights import load_initial_weights

    if recipe.initial_weights is None:
        if recipe.require_initial_weights:
            raise UserError(
                "this recipe starts from pretrained weights: give their file with "
                "--gin_bindings='Recipe.initial_weights=\"FILE\"', or train from scratch with "
                "--gin_file=gin/size/small.gin."
            )
        return
    path = recipe_lib.find_weights(recipe.initial_weights)
    loaded, missing, unused = load_initial_weights(net, path)
    print(f"initial weights {path}: {len(loaded)} variables loaded.")
    for what, names in (("kept random", missing), ("not used", unused)):
        if names:
            print(f"  {what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")


if __name__ == "__main__":
    command.run(main)
