"""The network of a run folder."""

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import recipe as recipe_lib


def load_network(run_dir, checkpoint="last", for_inference=False, gin_bindings=()):
    """Return the trained network of a run, a functional `keras.Model`.

    One that this version of Keras cannot make again from its file is built from the run's recipe
    and given the weights. It computes as exactly as the recipe's `tensor_float_32` says, and all
    else from now on.

    Args:
      run_dir: run folder.
      checkpoint: "last", or "best" by validation.
      for_inference: fold BatchNorm into convolutions, as `models.folding.folded` does.
      gin_bindings: strings that override the run's config.gin.

    Raises:
      UserError: there is none, or it is damaged.
    """
    from wsss_tf.training import networks

    run = RunFolder(run_dir)
    run.warn_of_training()
    path = run.network(checkpoint)
    if not path.is_file():
        raise UserError(f"{path}: no such network; it is written at the end of the first epoch.")
    _set_precision(run, gin_bindings)
    try:
        net = networks.load_network(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        try:
            net = _rebuilt(run, path)
        except (UserError, ValueError) as second:
            raise UserError(_not_readable(path, error, second)) from error
    if for_inference:
        from wsss_tf.models.folding import folded

        net = folded(net)
    return net


def _set_precision(run, gin_bindings):
    """Have GPUs compute as the run's recipe says, if it has one."""
    from wsss_tf.training.precision import set_tensor_float_32

    if run.config.is_file() or run.plain_config.is_file():
        with recipe_lib.settings_kept():
            set_tensor_float_32(recipe_lib.load_run(run, gin_bindings).tensor_float_32)


def _rebuilt(run, path):
    """Return a run's network, built from its recipe, with the weights of a file.

    Raises:
      ValueError, UserError: the file is damaged, or of another network.
    """
    import keras

    from wsss_tf.training import networks

    if networks.version_of(path) is None:
        raise ValueError("it is no file of Keras")
    policy = keras.config.dtype_policy()
    with recipe_lib.settings_kept():
        try:
            recipe, class_names = recipe_lib.load_run(run), run.read_class_names()
            has_background = class_names[0] == "background"
            keras.config.set_dtype_policy(recipe.precision)
            count = len(class_names) - (has_background and not recipe.predicts_masks)
            net = recipe.network(num_classes=count)
        finally:
            keras.config.set_dtype_policy(policy)
    networks.load_weights_into(net, path)
    return net


def _not_readable(path, error, second):
    import keras

    from wsss_tf.training import networks

    written, own = networks.version_of(path), keras.__version__
    if written is None or written == own:
        return f"{path}: is damaged, or no file of Keras ({error}); train again."
    return (
        f"{path}: was written by Keras {written} and cannot be read with {own} ({error}), nor do "
        f"its weights fit the network of the recipe ({second}); use Keras {written}."
    )
