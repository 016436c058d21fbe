"""A recipe: what gin files configure, and how the commands load it."""

import contextlib
import dataclasses
import logging
import pathlib
import tokenize
from collections.abc import Callable

import gin

from wsss_tf.errors import UserError
from wsss_tf.files.folder_layout import ROOT_BINDING
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import plain_config


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The factories and numbers that make a run; every field is a gin binding `Recipe.<field>`.

    Attributes:
      source: `source(split=...)` -> `data.source.Source`; the data set, to train on and to score.
      network: `network(num_classes=...)` -> functional `keras.Model` with named outputs. It is
        given C (foreground classes) where there is a `cam_output`, K (all classes, those of the
        masks) where there is none.
      augmentation: `augmentation()` -> function of (example, seed) for training.
      step: `step(network)` -> `keras.Model` whose `train_step` is the method.
      optimizer: `optimizer(total_steps=...)` -> `keras.optimizers.Optimizer`.
      prepare_source: `prepare_source(source)` -> the source that is trained on, for what earlier
        stages have left beside the pictures; None takes the source as it is.
      train_split, validation_split: split names; None as the second means no validation.
      batch_size: examples in a global batch.
      epochs: passes over the training split.
      min_epoch_steps: least steps of an epoch: the pictures of a split with fewer are gone through
        several times.
      steps: length of the run in optimizer steps, instead of in `epochs`.
      seed: of initial weights, order and augmentation.
      initial_weights: what to start from: "imagenet" for the weights that the network's backbone
        has from ImageNet (`interop.imagenet` says which have, and where they come from); an `.npz`,
        `.keras` or `.weights.h5` file; "package:NAME" for a file that comes with this package; or
        None for random values.
      require_initial_weights: refuse to train without `initial_weights` (the paper's recipes).
      cam_output: the network output that inference takes as class scores; None for a network that
        predicts masks: its output "logits", [B, H, W, K], are the scores.
      cam_merging: how the maps of scaled and mirrored copies of a picture become one: "seam", or
        "irn" (`inference.multi_scale_cam`, `inference.strided_cam`).
      background_threshold: of that network's maps: the score in (0, 1) that a pixel must beat to be
        its strongest class. The background powers of the dense CRF and the random walk follow it.
      validation_images: how many validation images to score after each epoch, spread evenly; 0
        for no validation.
      max_side: longer side, pixels, at which inference and validation see larger pictures; their
        maps and masks have the pictures' own size. None for no limit.
      devices: "auto" (all GPUs, else one device), "one", or a list such as ["CPU:0", "CPU:1"].
      precision: Keras dtype policy.
      tensor_float_32: whether GPUs may round the factors of float32 convolutions and products to 10
        bits (TF32), in training and wherever the trained network is loaded; None leaves it to the
        framework, which lets them.
      weakly_supervised: train on image labels; some masks are read, only to compare.
      pseudo_labels: folder of masks that take the place of the training split's own, such as
        "RUN/pseudo_labels"; None trains on the data set's masks. Not for weak supervision.
      validation_source: as `source`, where validation, inference and evaluation are on another one
        than training (one whose masks are the truth); None for `source`.
      predictor: for a network that predicts masks: `predictor(network)` -> function of pictures to
        class probabilities, such as `inference.segment.multi_scale_predictor`; None for that one
        with its defaults. Also takes `scales` and `flip`, which the commands set.
      postprocess: for such a network: `postprocess()` -> function of (probabilities float32
        [h, w, K], image uint8 [h, w, 3]) to probabilities [h, w, K], such as a CRF, that inference
        applies to each picture; None for none.
      deterministic: bitwise repeatable runs (`tf.config.experimental.enable_op_determinism`).
      require_labels: an image of the training split without any label, that is not known to show
        none of the classes either, is a bad one; False takes it as a picture of background only.
      skip_bad_images: leave unreadable images out (and count them) instead of stopping.
    """

    source: Callable
    network: Callable
    augmentation: Callable
    step: Callable
    optimizer: Callable
    prepare_source: Callable | None = None
    train_split: str = "train"
    validation_split: str | None = "val"
    batch_size: int = 8
    epochs: int = 8
    min_epoch_steps: int = 1
    steps: int | None = None
    seed: int = 0
    initial_weights: str | None = None
    require_initial_weights: bool = False
    cam_output: str | None = "cam_rv"
    cam_merging: str = "seam"
    background_threshold: float = 0.26
    validation_images: int = 100
    max_side: int | None = None
    devices: object = "auto"
    precision: str = "float32"
    tensor_float_32: bool | None = None
    weakly_supervised: bool = True
    pseudo_labels: str | None = None
    validation_source: Callable | None = None
    predictor: Callable | None = None
    postprocess: Callable | None = None
    deterministic: bool = False
    require_labels: bool = True
    skip_bad_images: bool = False

    def __post_init__(self):
        if self.max_side is not None and not (isinstance(self.max_side, int) and self.max_side > 0):
            raise UserError(
                f"Recipe.max_side = {self.max_side!r}; give pixels, or None for no limit."
            )

    def threshold(self, background_threshold):
        """Return the background threshold that is asked for: None is the recipe's."""
        own = self.background_threshold
        return own if background_threshold is None else background_threshold

    def side_limit(self, max_side):
        """Return the limit that `max_side` asks for: None is the recipe's, 0 is None."""
        return self.max_side if max_side is None else max_side or None

    @property
    def predicts_masks(self):
        """Whether the network gives "logits" of masks instead of class activation maps."""
        return self.cam_output is None

    def num_outputs(self, source):
        """Return what `network` takes as `num_classes`: K for masks, C for CAMs."""
        return len(source.class_names) if self.predicts_masks else source.num_classes

    def true_source(self, split):
        """Return a split of the source whose masks are the truth."""
        return (self.validation_source or self.source)(split=split)


# As `Recipe.initial_weights`: those of the backbone.
IMAGENET = "imagenet"

# Where the recipes are: in an installed package, and in a checkout.
_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
_FOLDERS = tuple(f for f in (_PACKAGE / "gin", _PACKAGE.parent / "gin") if f.is_dir())
for _folder in _FOLDERS:
    gin.add_config_file_search_path(str(_folder))  # for `include` in a recipe


def _find(path):
    """Return an existing gin file: as given, else by the same name among the installed recipes."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    name = pathlib.Path(*path.parts[1:]) if path.parts[0] == "gin" else path
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"--gin_file={path}: no such file, here or among the installed recipes.")


# Imports in gin files from before modules moved, as in the config.gin of older runs, and what they
# are now.
_MOVED_IMPORTS = {
    "from wsss_tf import recipe": "from wsss_tf.runs import recipe",
    "from wsss_tf.pipelines import pipeline": "from wsss_tf.pipelines import settings as pipeline",
}


def with_moved_imports(text):
    """Return the lines of gin text with the imports that they have now."""
    return [_MOVED_IMPORTS.get(line.partition("#")[0].strip(), line) for line in text.splitlines()]


def _parse(path):
    text = path.read_text(encoding="utf-8")
    lines = with_moved_imports(text)
    if lines == text.splitlines():
        gin.parse_config_file(str(path))  # which names the file in its errors
    else:
        gin.parse_config(lines)


def load(gin_files, gin_bindings=(), kind=Recipe, text=None):
    """Parse gin files and bindings, later ones overriding earlier, and return the `Recipe`.

    Args:
      gin_files: paths, of files here or among the installed recipes.
      gin_bindings: strings such as "Recipe.batch_size=4".
      kind: another class that such files configure, to return one of it.
      text: what comes before the files, gin text.

    Raises:
      UserError: a file is missing, a name unknown or misspelt, a required value not set.
    """
    if not gin_files and text is None:
        raise UserError("no --gin_file; for example --gin_file=gin/seam.gin.")
    gin.clear_config()
    # gin logs an error for every folder in which it does not find an included file.
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    where = ""
    try:
        if text is not None:
            gin.parse_config(text)
        for path in gin_files:
            where = f"--gin_file={path}"
            _parse(_find(path))
        where = "--gin_bindings"
        gin.parse_config(list(gin_bindings))
        where = "the settings"
        gin.finalize()
        return gin.get_configurable(kind)()
    except _GIN_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"gin: {_gin_error(error, where, gin_bindings)}") from error
    finally:
        logging.disable(disabled)


_GIN_ERRORS = (
    ValueError,
    TypeError,
    RuntimeError,
    ImportError,
    AttributeError,
    OSError,
    NameError,
    SyntaxError,
    tokenize.TokenError,
)


def _gin_error(error, where, gin_bindings):
    """Return what is wrong, in a line that says where it stands if gin does not."""
    if isinstance(error, SyntaxError):
        text, number = (error.text or "").strip(), error.lineno or 0
        lines = "\n".join(gin_bindings).splitlines()
        if not text and where == "--gin_bindings" and 0 < number <= len(lines):
            text = lines[number - 1]
        text = f" ({text[:80]!r}{'...' if len(text) > 80 else ''})" if text else ""
        file = f" of {error.filename}" if error.filename else ""
        reason = (error.msg or "").splitlines()[0]
        if reason.startswith("malformed node"):  # Python's words for it
            reason = "no value; values are numbers, 'texts', lists, @functions and %macros"
        return f"{where}: line {number}{file} cannot be read{text}: {reason}"
    if isinstance(error, tokenize.TokenError):
        message, (line, _) = error.args
        return f"{where}: a bracket or a quote is not closed ({message}, line {line})"
    if isinstance(error, RecursionError):
        return f"{where}: it is included or called by itself, or its brackets are nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"{where}: not a UTF-8 text file; save it as UTF-8"
    return str(error).split("in config string:")[0].strip()  # all of them follow


def with_folder(root, gin_files, gin_bindings):
    """Return gin files and bindings to which a folder of the user's own pictures is added.

    Args:
      root: the folder, as `data.folder.folder_source` takes it.
      gin_files, gin_bindings: as `load` takes them. Bindings of theirs win, such as one of
        `Recipe.train_split`; otherwise the splits are those that are there.

    Raises:
      UserError: there is no such folder, nothing to learn from, or no list that is clearly the one
        to train on.
    """
    from wsss_tf.data import folder

    root = folder.training_folder(root)
    bound = {tuple(text.partition("=")[0].strip().split(".")[-2:]) for text in gin_bindings}
    values = {ROOT_BINDING: root}
    if ("Recipe", "train_split") not in bound:
        values["Recipe.train_split"] = folder.training_split(root)
    if ("Recipe", "validation_split") not in bound:
        values["Recipe.validation_split"] = folder.validation_split(root)
    chosen = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    print(f"data: {chosen}")
    bindings = [f"{name}={value!r}" for name, value in values.items()]
    return [*gin_files, "gin/data/folder.gin"], [*bindings, *gin_bindings]


# What older config.gin files bind on networks and is an argument of their backbone, or of nothing,
# now. Inference loads the network as it was saved, so it needs none of these.
_MOVED = {
    "seam_network": ("width", "train_batchnorm", "freeze_stem"),
    "affinity_network": ("width", "train_batchnorm", "freeze_stem", "dropout"),
    "affinity_step": ("radius",),
    "deeplab_network": ("width", "freeze_batchnorm", "freeze_stem"),
    "sec_network": ("width", "batchnorm", "dropout"),
    "foreground_network": ("width", "batchnorm"),
    "background_network": ("width", "batchnorm"),
}


def load_run(run_dir, gin_bindings=()):
    """Return the `Recipe` that a run folder was trained with.

    It is read from config.json, plain values; a folder without one is a program, see
    `plain_config`.

    Raises:
      UserError: the folder holds no run, or one of a version whose settings were others.
    """
    run = RunFolder(run_dir)
    config, plain = run.config, plain_config.read(run, _FOLDERS)
    if plain is None and not config.is_file():
        raise UserError(
            f"--run_dir={run.path}: no config.gin in it; train first, or check the path."
        )
    is_of_folder = "folder_source" in (plain or config.read_bytes().decode("utf-8", "replace"))
    if not is_of_folder and any(text.startswith(f"{ROOT_BINDING}=") for text in gin_bindings):
        raise UserError(
            f"--data: the run in {run.path} was not trained on a folder of pictures; pictures of "
            "another kind are labelled with --input=FOLDER of wsss_tf.infer."
        )
    if plain is not None:
        return load([], gin_bindings, text=plain)
    try:
        return load([config], gin_bindings)
    except UserError as error:
        moved = _moved_bindings(config)
        if not moved:
            raise
        raise UserError(
            f"{config}: of an older version, in which networks had settings that are their "
            f"backbone's now: {', '.join(moved)}. Remove these lines to go on with the trained "
            "network as it is, or train again."
        ) from error


def _moved_bindings(config):
    """Return which lines of a config.gin bind what has moved, as "name.parameter"."""
    lines = config.read_text(encoding="utf-8").splitlines()
    keys = [line.partition("=")[0].strip().split(".")[-2:] for line in lines if "=" in line]
    return [".".join(key) for key in keys if len(key) == 2 and key[1] in _MOVED.get(key[0], ())]


def check_initial_weights(recipe):
    """Refuse a recipe that needs weights to start from and names none.

    Raises:
      UserError: it is one.
    """
    if recipe.require_initial_weights and recipe.initial_weights is None:
        raise UserError(
            "this recipe starts from pretrained weights: give "
            "--gin_bindings='Recipe.initial_weights=\"imagenet\"' where the backbone has such, "
            'their file as "FILE", or train the small network with --gin_file=gin/size/small.gin.'
        )


def find_weights(path):
    """Return a weights file: as given, or one that comes with the package, as "package:NAME"."""
    if not str(path).startswith("package:"):
        return pathlib.Path(path)
    name = str(path).removeprefix("package:")
    return _PACKAGE / "backbones" / "weights" / name


def save_config(run_dir):
    """Write the operative configuration (defaults included) to the run folder and return it."""
    text = gin.operative_config_str()
    plain_config.write(RunFolder(run_dir), text, _FOLDERS)
    return text


def check_recorded_bindings(run_dir, bindings):
    """Check gin bindings that a run folder's files hold, if it is one of plain values.

    Raises:
      UserError: they are more than settings.
    """
    run = RunFolder(run_dir)
    if run.plain_config.is_file():
        try:
            plain_config.check_bindings(bindings, _FOLDERS)
        except ValueError as error:
            raise UserError(f"{run.cams}: a record is refused, because {error}.") from error


@contextlib.contextmanager
def settings_kept():
    """Have the settings that are parsed now be those again at the end.

    Of recipes that were loaded before, whose functions look their settings up when they are called.
    """
    settings = gin.config_str()
    try:
        yield
    finally:
        gin.clear_config()
        gin.parse_config(settings)


def parsed_config():
    """Return what was parsed last, without defaults, as gin text in a fixed order."""
    return gin.config_str()


def save_parsed_config(run_dir, comment):
    """Write what was parsed, without defaults, to a run folder that was not trained.

    The operative configuration is that of what has been called, which is little there.
    """
    text = f"# {comment}\n\n{parsed_config()}"
    plain_config.write(RunFolder(run_dir), text, _FOLDERS)
