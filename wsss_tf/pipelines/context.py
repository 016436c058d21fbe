"""What the stages of a pipeline know of each other, of their recipes and of the data."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable

from wsss_tf.data.fingerprint import file_fingerprint, fingerprint
from wsss_tf.errors import UserError
from wsss_tf.pipelines.records import Stage
from wsss_tf.runs import recipe as recipe_lib

# === What a stage says of itself ===


@dataclasses.dataclass(frozen=True)
class Description:
    """A stage as gin lists it, before recipes and data are known.

    Attributes:
      name: of the stage.
      resolve: `resolve(context)` -> `Planned`; called once, in the order of the list. What it
        raises as `UserError` is said before the first stage is run.
      recipe: gin files of a stage that trains, else (). Bindings may begin with its name.
      compares: whether it is there to compare with only, and left out without
        `Pipeline.full_supervision`.
    """

    name: str
    resolve: Callable
    recipe: tuple = ()
    compares: bool = False


@dataclasses.dataclass(frozen=True)
class Maps:
    """Class activation maps that a stage writes.

    Attributes:
      run: run folder, which has them in `cams/`.
      on_split: flags that name this folder and the split.
      stage: name of the stage after which they are ready.
      background_threshold: score that a pixel must beat to be its strongest class; None where it is
        chosen once the maps are there.
      threshold_is_set: whether it was given for these maps, and is not to be chosen.
      what: they are called in the results.
    """

    run: pathlib.Path
    on_split: tuple
    stage: str
    background_threshold: float | None
    threshold_is_set: bool = False
    what: str = "CAM"


@dataclasses.dataclass(frozen=True)
class Scores:
    """Where the scores of a trained network are.

    Attributes:
      what: is scored, such as "network trained on masks".
      path: of its metrics; None where there is nothing to score it with.
      note: then a sentence that says why.
    """

    what: str
    path: pathlib.Path | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A stage that is ready to be run, and what it leaves for others.

    Attributes:
      stage: `records.Stage`; None where there is nothing to do.
      maps: `Maps` that it writes, if it does.
      scored: {what they are: folder} of masks `<id>.png` of the pictures that are trained on, to be
        scored.
      shown: likewise, of masks or cues to be shown in the report.
      scores: `Scores` of a network, if it makes such.
      made: {what it is: path} of what its user will look for at the end.
    """

    stage: Stage | None
    maps: Maps | None = None
    scored: dict = dataclasses.field(default_factory=dict)
    shown: dict = dataclasses.field(default_factory=dict)
    scores: Scores | None = None
    made: dict = dataclasses.field(default_factory=dict)


# === Recipes ===


@dataclasses.dataclass(frozen=True)
class Trained:
    """A recipe as a stage trains it.

    Attributes:
      recipe: `recipe.Recipe`.
      files, bindings: what it was loaded from.
      settings: what these say, as text in a fixed order.
      weights: what it starts from, as text that changes with the weights.
    """

    recipe: recipe_lib.Recipe
    files: tuple
    bindings: tuple
    settings: str
    weights: str

    @property
    def flags(self):
        """The flags of `train`."""
        files = (f"--gin_file={path}" for path in self.files)
        return (*files, *(f"--gin_bindings={binding}" for binding in self.bindings))

    @property
    def inputs(self):
        """What the trained network depends on, beside the data."""
        return {"settings": self.settings, "weights": self.weights}

    def source(self, split):
        """Return `data.source.Source` of a split to train on."""
        # Loaded again: gin may know the settings of another recipe by now.
        return recipe_lib.load(self.files, self.bindings).source(split=split)

    def true_source(self, split):
        """Return the same with the masks that are the truth."""
        return recipe_lib.load(self.files, self.bindings).true_source(split)


def _weights(recipe):
    """Return what the recipe starts from, as text that changes with the weights."""
    recipe_lib.check_initial_weights(recipe)
    if recipe.initial_weights is None:
        return ""
    if recipe.initial_weights == recipe_lib.IMAGENET:
        from wsss_tf.interop import imagenet

        return imagenet.fingerprint()  # of which backbone is among the settings
    path = recipe_lib.find_weights(recipe.initial_weights)
    if str(recipe.initial_weights).startswith("package:") and path.is_file():
        # Its time is that of an installation.
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return file_fingerprint(path)


# === The context ===


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is resolved with.

    Attributes:
      run_dir: folder of all the stages, a `pathlib.Path`.
      overlays: gin files that come after those of every recipe.
      bindings: `bindings(name)` -> the gin bindings of the stage of that name that trains.
      score_split: as in `settings.Pipeline`.
      full_supervision, at_once: likewise.
      trained: {name: `Trained`} of the stages so far that train.
      planned: {name: `Planned`} of all stages so far, in order.
    """

    run_dir: pathlib.Path
    overlays: tuple
    bindings: Callable
    score_split: str | None = None
    full_supervision: bool = False
    at_once: int = 1
    trained: dict = dataclasses.field(default_factory=dict)
    planned: dict = dataclasses.field(default_factory=dict)

    def load(self, name, files, has_weights=False):
        """Return the `Trained` of a stage's recipe, and keep it in `trained`.

        Args:
          name: of the stage.
          files: gin files of the recipe.
          has_weights: whether it starts from those of an earlier stage, whatever it says itself.

        Raises:
          UserError: whatever is wrong with it; or it is trained on another split than the first.
        """
        files, bindings = (*files, *self.overlays), tuple(self.bindings(name))
        recipe = recipe_lib.load(files, bindings)
        settings = recipe_lib.parsed_config()
        weights = "" if has_weights else _weights(recipe)
        self.trained[name] = Trained(recipe, files, bindings, settings, weights)
        splits = {stage: one.recipe.train_split for stage, one in self.trained.items()}
        if len(set(splits.values())) > 1:
            raise UserError(f"Recipe.train_split differs between the stages: {splits}.")
        return self.trained[name]

    @property
    def first_run(self):
        """Run folder of the first stage that trains; it says which pictures are bad."""
        return self.run_dir / next(iter(self.trained))

    @functools.cached_property
    def train(self):
        """`data.source.Source` of the split that is trained on, of the first recipe."""
        first = next(iter(self.trained.values()))
        return first.source(first.recipe.train_split)

    @functools.cached_property
    def train_data(self):
        """The fingerprint of `train` without its masks."""
        return fingerprint(self.train.without_masks())

    @functools.cached_property
    def score(self):
        """The same of the split that labels are scored on, with the masks that are the truth.

        Raises:
          UserError: it has pictures that are not trained on.
        """
        split = self.score_split or self.train.split
        score = next(iter(self.trained.values())).true_source(split)
        strangers = sorted(set(score.ids) - set(self.train.ids))
        if strangers:
            raise UserError(
                f"Pipeline.score_split = {split!r}: image {strangers[0]!r} is not in the split "
                f"{self.train.split!r} that is trained on, so it gets no label."
            )
        return score

    @property
    def stages(self):
        """The `records.Stage`s so far, in order."""
        return tuple(one.stage for one in self.planned.values() if one.stage is not None)

    def trained_by(self, setting, name):
        """Return the `Trained` of an earlier stage.

        Args:
          setting: that names the stage, for the message, such as "cams_stage.run".
          name: of the stage.

        Raises:
          UserError: there is none of that name that trains.
        """
        if name not in self.trained:
            raise UserError(
                f"{setting} = {name!r}: no stage of that name trains before it; those that do are "
                f"{', '.join(self.trained) or 'none'}."
            )
        return self.trained[name]

    def maps_of(self, setting, name):
        """Return the `Maps` that an earlier stage writes; arguments as in `trained_by`.

        Raises:
          UserError: there is none of that name that does.
        """
        maps = self.planned[name].maps if name in self.planned else None
        if maps is None:
            raise UserError(
                f"{setting} = {name!r}: no stage of that name before it writes class activation "
                "maps."
            )
        return maps
