"""Train a run: data, network and step from a recipe, put together in a run folder."""

import contextlib

import keras
import tensorflow as tf

from wsss_tf.data import batches as batches_lib
from wsss_tf.data import checks
from wsss_tf.data.class_counts import class_lines, class_warnings
from wsss_tf.data.pseudo_labels import missing_pseudo_labels, with_pseudo_labels
from wsss_tf.errors import UserError, warn
from wsss_tf.files.run_folder import RunFolder, atomic_path, write_json
from wsss_tf.inference.attention import find_attention
from wsss_tf.inference.limited_side import limited
from wsss_tf.inference.segment import multi_scale_predictor
from wsss_tf.interop.imagenet import imagenet_weights
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.data_warnings import warn_of_data
from wsss_tf.runs.infer_cams import make_maps
from wsss_tf.runs.validation import make_mask_validation, make_validation
from wsss_tf.training.devices import make_strategy
from wsss_tf.training.hosts import is_chief
from wsss_tf.training.initial_weights import load_initial_weights
from wsss_tf.training.loop import fit
from wsss_tf.training.precision import set_tensor_float_32


def train(recipe, run_dir, profile_steps=None):
    """Train a recipe in a run folder, resuming if it holds a checkpoint.

    Args:
      recipe: `recipe.Recipe`.
      run_dir: folder; over several hosts on a file system that all of them share.
      profile_steps: (first, last) step to record for TensorBoard's profile page; None for none.

    Raises:
      UserError: whatever the user can put right; see the modules called.
    """
    run = RunFolder(run_dir)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    set_tensor_float_32(recipe.tensor_float_32)
    # Before any operation: one over several hosts must be the first to use TensorFlow.
    strategy = make_strategy(recipe.devices, recipe.batch_size)
    # Of several hosts one stands for all of them.
    with run.training() if is_chief(strategy) else contextlib.nullcontext():
        _train(recipe, run, strategy, profile_steps)


def _train(recipe, run, strategy, profile_steps):
    run_dir = run.path
    source = _training_source(recipe, run_dir)
    _check_class_names(run, source)
    labels_needed = recipe.weakly_supervised and recipe.require_labels
    source = checked_source(recipe, source, run_dir, require_labels=labels_needed)
    for line in class_lines(source):
        print(line)
    for line in class_warnings(source) if recipe.weakly_supervised else ():
        warn(line)
    if recipe.prepare_source is not None:
        source = recipe.prepare_source(source)
    augmentation = recipe.augmentation()
    steps = max(batches_lib.steps_per_epoch(source, recipe.batch_size), recipe.min_epoch_steps)
    if recipe.batch_size > len(source):
        print(
            f"note: split {source.split!r} of {source.name} has {len(source)} images, fewer than a "
            f"batch ({recipe.batch_size}), which shows some of them twice or more."
        )
    total_steps = steps * recipe.epochs if recipe.steps is None else recipe.steps
    if total_steps < 1:
        raise UserError(f"a run of {total_steps} steps: set Recipe.epochs or Recipe.steps.")

    with strategy.scope():
        net = recipe.network(num_classes=recipe.num_outputs(source))
        _initialise(net, recipe)
        step = recipe.step(net)
        step.compile(optimizer=recipe.optimizer(total_steps=total_steps))

    if recipe.predicts_masks:
        # Also to have gin note their settings in config.gin, which inference reads.
        make_predictor(recipe, net)
        make_postprocess(recipe)
    validate = None
    if recipe.validation_split is not None and recipe.validation_images:
        val_source = recipe.true_source(recipe.validation_split)
        val_source = checked_source(recipe, val_source, run_dir)
        if recipe.predicts_masks:
            predictor = make_predictor(recipe, net, scales=(1.0,), flip=False)
            validate = make_mask_validation(
                val_source,
                limited(predictor, recipe.max_side),
                recipe.validation_images,
                find_attention(net),
            )
        else:
            compute = make_maps(net, cam_output=recipe.cam_output, merging=recipe.cam_merging)
            validate = make_validation(
                val_source, limited(compute, recipe.max_side), recipe.validation_images
            )

    if profile_steps is not None and profile_steps[0] > total_steps:
        raise UserError(f"--profile_steps begins with {profile_steps[0]}; there are {total_steps}.")

    def batches(first_step, input_context=None):
        return batches_lib.training_batches(
            source, augmentation, recipe.batch_size, recipe.seed, first_step, input_context
        )

    def after_first_step(writer):
        config = recipe_lib.save_config(run)
        with writer.as_default(0):
            tf.summary.text(run.config.name, "\n".join("    " + x for x in config.splitlines()))

    if is_chief(strategy):
        run.write_class_names(source.class_names)
    print(
        f"{source.name}/{source.split}: {len(source)} images, {source.num_classes} classes, "
        f"{_supervision(recipe)}; {total_steps} steps of {recipe.batch_size}, {steps} an epoch; "
        f"{strategy.num_replicas_in_sync} replica(s)."
    )
    first_step = fit(
        step, batches, steps, total_steps, run_dir, validate, after_first_step, profile_steps
    )
    if is_chief(strategy) and step.finish(source):
        with atomic_path(run.network()) as temporary:
            net.save(temporary)
    if first_step >= total_steps:
        print(f"already trained for {first_step} steps; nothing to do.")
    elif first_step:
        print(f"went on from step {first_step}.")
    print(f"network: {run.network()}")


def _training_source(recipe, run_dir):
    """Return the source to train on, with the masks that the recipe says, or none.

    Raises:
      UserError: the source has not what the kind of supervision needs.
    """
    source = recipe.source(split=recipe.train_split)
    warn_of_data(source, compare_masks=recipe.pseudo_labels is None)
    if recipe.weakly_supervised:
        if recipe.pseudo_labels is not None:
            raise UserError(
                f"Recipe.pseudo_labels = {str(recipe.pseudo_labels)!r}, but this recipe learns "
                "from image labels and reads no masks (Recipe.weakly_supervised is True)."
            )
        if not source.has_background:
            raise UserError(
                f"{source.name}: its first class is {source.class_names[0]!r}, not 'background', "
                "so it cannot be learnt from image labels."
            )
        return source.without_masks()
    if recipe.pseudo_labels is not None:
        # Bad images have no pseudo label either; where each has one, images and labels are checked
        # together, once.
        if recipe.skip_bad_images and missing_pseudo_labels(source, recipe.pseudo_labels):
            source = checked_source(recipe, source.without_masks(), run_dir)
        return with_pseudo_labels(source, recipe.pseudo_labels)
    if not source.has_masks:
        raise UserError(
            f"{source.name}: split {source.split!r} has no masks to train on: in a folder of "
            "your own they belong into SegmentationClass. Or give a folder of pseudo labels as "
            "Recipe.pseudo_labels."
        )
    return source


def _check_class_names(run, source):
    """Refuse to go on with a network whose outputs are other classes, or the same in another order.

    Raises:
      UserError: the run has a network, and was trained on other classes.
    """
    if not run.network().is_file():
        return
    known = run.read_class_names()
    if tuple(source.class_names) != known:
        raise UserError(
            f"--run_dir={run.path}: was trained on the classes {', '.join(known)}, but "
            f"{source.name} has {', '.join(source.class_names)}, in this order: put back "
            "class_names.txt, or what else names them, or train in another folder."
        )


def _supervision(recipe):
    if recipe.weakly_supervised:
        return "image labels only"
    if recipe.pseudo_labels is not None:
        return f"pseudo labels of {recipe.pseudo_labels}"
    return "masks of the data set"


def make_predictor(recipe, net, **options):
    """Return the recipe's function of pictures to class probabilities.

    Args:
      recipe: `recipe.Recipe` of a network that predicts masks.
      net: the network.
      **options: `scales` or `flip`, to override the recipe's.
    """
    return (recipe.predictor or multi_scale_predictor)(net, **options)


def make_postprocess(recipe):
    """Return the recipe's function of (probabilities, image) to probabilities, or None."""
    return None if recipe.postprocess is None else recipe.postprocess()


def _initialise(net, recipe):
    recipe_lib.check_initial_weights(recipe)
    if recipe.initial_weights is None:
        return
    weights, origin = _initial_weights(net, recipe)
    loaded, missing, unused = load_initial_weights(net, weights, origin)
    print(f"initial weights {origin}: {len(loaded)} variables loaded.")
    for what, names in (("kept random", missing), ("not used", unused)):
        if names:
            print(f"  {what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")


def _initial_weights(net, recipe):
    """Return what the recipe starts from, a file or arrays by variable path, and its name."""
    if recipe.initial_weights != recipe_lib.IMAGENET:
        path = recipe_lib.find_weights(recipe.initial_weights)
        return path, path
    backbone_name = getattr(net, "backbone_name", None)
    if backbone_name is None:
        raise UserError(
            f"Recipe.initial_weights = {recipe_lib.IMAGENET!r}: the network {net.name!r} does not "
            "say which backbone it has (its attribute backbone_name, as models.heads.network sets "
            "it); give a file instead."
        )
    return imagenet_weights(backbone_name), f"of {backbone_name} from ImageNet"


def checked_source(recipe, source, run_dir, require_labels=False):
    """Return the source without bad images, which are recorded in the run folder.

    Raises:
      UserError: there is a bad image, and the recipe does not say to skip such.
    """
    source, bad = checks.check(
        source,
        skip_bad_images=recipe.skip_bad_images,
        cache=RunFolder(run_dir).checked_images,
        require_labels=require_labels,
    )
    if bad:
        run = RunFolder(run_dir)
        path = run.bad_images
        merged = {**run.read_bad_images(), **dict(bad)}
        write_json(path, sorted(merged.items()))
        print(f"{len(bad)} bad image(s) of split {source.split!r} skipped; see {path}.")
    return source
