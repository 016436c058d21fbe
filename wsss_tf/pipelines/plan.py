"""The stages that follow from a pipeline's settings, its recipes and its data."""

import dataclasses
import functools
import hashlib
import importlib.util
import json

from wsss_tf.errors import UserError
from wsss_tf.inference import cam_crf
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.settings import bindings_of
from wsss_tf.runs import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Plan:
    """A pipeline with its data, ready to be run.

    Attributes:
      stages: `stage.Stage`s, in order.
      train, score, val: `data.source.Source` of the three splits; `val` is None where the
        segmentation recipe has no validation split.
      crf_powers: low and high background power of the dense CRF.
      report_images, full_supervision: as in `settings.Pipeline`.
    """

    stages: tuple
    train: object
    score: object
    val: object
    crf_powers: tuple
    report_images: int
    full_supervision: bool


# === Recipes ===


@dataclasses.dataclass(frozen=True)
class _Trained:
    """A recipe as a stage trains it: what `train` is given, and what that is made of."""

    recipe: recipe_lib.Recipe
    flags: tuple
    settings: str
    weights: str

    @property
    def inputs(self):
        return {"settings": self.settings, "weights": self.weights}


def _load(name, files, overlays, gin_bindings):
    """Return the `_Trained` of one recipe; gin then knows its settings and no others."""
    files, bindings = [*files, *overlays], bindings_of(name, gin_bindings)
    recipe = recipe_lib.load(files, bindings)
    flags = [f"--gin_file={path}" for path in files]
    flags += [f"--gin_bindings={binding}" for binding in bindings]
    settings = recipe_lib.parsed_config()
    return _Trained(recipe, tuple(flags), settings, _weights(recipe))


def _weights(recipe):
    """Return what the recipe starts from, as text that changes with the weights."""
    from wsss_tf.data.fingerprint import file_fingerprint

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


# === Stages ===


def make_plan(pipeline, gin_files, gin_bindings, run_dir):
    """Return the `Plan` of a pipeline: every recipe is read and the data set looked through.

    So that what is wrong with the last stage is said before the first begins.

    Args:
      pipeline: `settings.Pipeline`.
      gin_files: the first is the pipeline's own, the others are overlays of every recipe.
      gin_bindings: as the user gave them.
      run_dir: folder of all the stages, a `pathlib.Path`.

    Raises:
      UserError: whatever is wrong with recipes or data.
    """
    overlays = gin_files[1:]
    cam = _load("cam", pipeline.cam_recipe, overlays, gin_bindings)
    train = cam.recipe.source(split=cam.recipe.train_split)
    score_split = pipeline.score_split or train.split
    score = cam.recipe.true_source(score_split)
    _check_part(score, train)
    affinity = _load("affinity", pipeline.affinity_recipe, overlays, gin_bindings)
    segmentation = _load("segmentation", pipeline.segmentation_recipe, overlays, gin_bindings)
    _check_kinds(cam.recipe, affinity.recipe, segmentation.recipe)
    val_split = segmentation.recipe.validation_split
    val = None if val_split is None else segmentation.recipe.true_source(val_split)
    if pipeline.full_supervision and not train.has_masks:
        raise UserError(
            f"Pipeline.full_supervision needs masks, but split {train.split!r} of {train.name} "
            "has none."
        )
    _check_library()

    plan = Plan(
        stages=(),
        train=train,
        score=score,
        val=val,
        crf_powers=_crf_powers(pipeline, cam.recipe),
        report_images=pipeline.report_images,
        full_supervision=pipeline.full_supervision,
    )
    stages = _labels(pipeline, cam, affinity, plan, run_dir)
    stages += _networks(pipeline, segmentation, plan, run_dir)
    stages += _results(plan, run_dir)
    return dataclasses.replace(plan, stages=tuple(stages))


def _check_part(score, train):
    strangers = sorted(set(score.ids) - set(train.ids))
    if strangers:
        raise UserError(
            f"Pipeline.score_split = {score.split!r}: image {strangers[0]!r} is not in the split "
            f"{train.split!r} that is trained on, so it gets no label."
        )


def _check_kinds(cam, affinity, segmentation):
    splits = {"cam": cam, "affinity": affinity, "segmentation": segmentation}
    splits = {name: recipe.train_split for name, recipe in splits.items()}
    if len(set(splits.values())) > 1:
        raise UserError(f"Recipe.train_split differs between the stages: {splits}.")
    if cam.predicts_masks or not cam.weakly_supervised:
        raise UserError("Pipeline.cam_recipe: is no recipe of class activation maps.")
    if affinity.prepare_source is None:
        raise UserError("Pipeline.affinity_recipe: is no recipe such as gin/affinity.gin.")
    if not segmentation.predicts_masks or segmentation.weakly_supervised:
        raise UserError("Pipeline.segmentation_recipe: is no recipe that learns from masks.")


def _check_library():
    if importlib.util.find_spec("pydensecrf") is None:
        raise UserError(
            "the pipeline needs pydensecrf, which is not installed: pip install pydensecrf2 "
            "(Python 3.10 to 3.12; it does not build on 3.13)."
        )


def _train(name, trained, run_dir, data, after, *bindings):
    """Return the stage that trains a recipe in the folder of its name."""
    flags = [*trained.flags, *(f"--gin_bindings={binding}" for binding in bindings)]
    made = ("config.gin", "class_names.txt", "checkpoints", "tensorboard")
    made += ("checked_images.json", "bad_images.json")
    return Stage(
        name=name,
        steps=(("train", *flags, f"--run_dir={run_dir / name}"),),
        inputs={**trained.inputs, "data": data},
        after=after,
        outputs=tuple(f"{name}/{file}" for file in made),
        proof=f"{name}/checkpoints/last.keras",
    )


def _threshold(pipeline, recipe):
    """Return the background threshold of the maps."""
    own = pipeline.background_threshold
    threshold = recipe.background_threshold if own is None else own
    if not 0 < threshold < 1:
        raise UserError(f"Recipe.background_threshold = {threshold!r}; give one between 0 and 1.")
    return threshold


def _crf_powers(pipeline, recipe):
    """Return the low and the high background power of the dense CRF."""
    if pipeline.crf_powers is not None:
        return tuple(pipeline.crf_powers)
    if pipeline.crf_thresholds is not None:
        # The low power's background scores more: a class must beat the high threshold.
        low, high = pipeline.crf_thresholds
        return cam_crf.power_of_threshold(high), cam_crf.power_of_threshold(low)
    threshold = _threshold(pipeline, recipe)
    return tuple(cam_crf.power_for_maps(threshold, power) for power in cam_crf.BACKGROUND_POWERS)


def _walk_power(pipeline, recipe):
    """Return the background power of the random walk."""
    if pipeline.background_power is not None:
        return pipeline.background_power
    if pipeline.walk_threshold is not None:
        return cam_crf.power_of_threshold(pipeline.walk_threshold)
    return cam_crf.power_for_maps(_threshold(pipeline, recipe), cam_crf.WALK_POWER)


def _labels(pipeline, cam, affinity, plan, run_dir):
    """Return the stages up to the pseudo labels."""
    from wsss_tf.data.fingerprint import fingerprint

    data = fingerprint(plan.train.without_masks())
    scales = [f"--scales={_comma(pipeline.scales)}", "--flip" if pipeline.flip else "--noflip"]
    infer = ("infer", f"--run_dir={run_dir / 'cam'}", f"--split={plan.train.split}", *scales)
    threshold = f"--background_threshold={_threshold(pipeline, cam.recipe):g}"
    processes = pipeline.crf_processes
    scale = f"--crf_scale={pipeline.crf_scale:g}"
    crf = (
        f"--crf_powers={_comma(plan.crf_powers)}",
        f"--crf_iterations={pipeline.crf_iterations}",
        f"--crf_unary_weight={pipeline.crf_unary_weight:g}",
        scale,
    )
    in_processes = [] if processes is None else [f"--crf_processes={processes}"]
    walk = (
        f"--background_power={_walk_power(pipeline, cam.recipe):g}",
        f"--affinity_power={pipeline.affinity_power:g}",
        f"--walk_steps={pipeline.walk_steps}",
        *(("--walk_crf", scale) if pipeline.walk_crf else ("--nowalk_crf",)),
    )
    return [
        _train("cam", cam, run_dir, data, ()),
        Stage(
            name="cams",
            steps=((*infer, threshold),),
            inputs={"flags": [*scales, threshold]},
            after=("cam",),
            outputs=("cam/cams", "cam/pseudo_labels"),
            proof="cam/cams",
        ),
        Stage(
            name="crf",
            steps=((*infer, "--crf", *crf, *in_processes),),
            inputs={"flags": crf},
            after=("cams",),
            outputs=("cam/crf_low", "cam/crf_high", "cam/crf_low_labels", "cam/crf_high_labels"),
            proof="cam/crf_high_labels",
        ),
        _train(
            "affinity",
            affinity,
            run_dir,
            data,
            ("crf",),
            f"with_crf_maps.cam_run={json.dumps(str(run_dir / 'cam'), ensure_ascii=False)}",
        ),
        Stage(
            name="walk",
            steps=((*infer, "--random_walk", f"--affinity_run={run_dir / 'affinity'}", *walk),),
            inputs={"flags": walk},
            after=("cams", "affinity"),
            outputs=("affinity/pseudo_labels",),
            proof="affinity/pseudo_labels",
        ),
    ]


def _networks(pipeline, segmentation, plan, run_dir):
    """Return the stages from the pseudo labels to networks that are scored and exported."""
    from wsss_tf.data.fingerprint import fingerprint

    labels = json.dumps(str(run_dir / "affinity" / "pseudo_labels"), ensure_ascii=False)
    data = fingerprint(plan.train.without_masks())
    stages = [
        _train(
            "segmentation",
            segmentation,
            run_dir,
            data,
            ("walk",),
            f"Recipe.pseudo_labels={labels}",
        ),
        *_predictions("segmentation", plan, run_dir),
    ]
    if pipeline.full_supervision:
        data = fingerprint(plan.train)
        stages.append(_train("full_supervision", segmentation, run_dir, data, ()))
        stages += _predictions("full_supervision", plan, run_dir)
    flags = (
        f"--scales={_comma(pipeline.export_scales)}",
        "--flip" if pipeline.export_flip else "--noflip",
    )
    run = f"--run_dir={run_dir / 'segmentation'}"
    export = Stage(
        name="export",
        steps=(("export", run, f"--output={run_dir / 'export'}", "--version=1", *flags),),
        inputs={"flags": flags},
        after=("segmentation",),
        outputs=("export/1", "export/.1.*"),
        proof="export/1/saved_model.pb",
        is_resumable=False,
    )
    return [*stages, export]


def _predictions(name, plan, run_dir):
    """Return the stages that predict and score the validation split, none where there is none."""
    from wsss_tf.data.fingerprint import fingerprint

    if plan.val is None:
        return []
    split = plan.val.split
    on_split = (f"--run_dir={run_dir / name}", f"--split={split}")
    steps = [("infer", *on_split)]
    if plan.val.has_masks:
        steps.append(("evaluate", *on_split))
    return [
        Stage(
            name=f"{name}_scores",
            steps=tuple(steps),
            inputs={"data": fingerprint(plan.val)},
            after=(name,),
            # Scores and reports are written over, also those that were made by hand.
            outputs=(f"{name}/predictions",),
            proof=f"{name}/" + (f"metrics_{split}.json" if plan.val.has_masks else "predictions"),
        )
    ]


def _results(plan, run_dir):
    """Return the stages that score the labels and show everything."""
    from wsss_tf.data.fingerprint import fingerprint
    from wsss_tf.pipelines import results

    shown = run_dir / "shown"
    infer = ("infer", f"--run_dir={run_dir / 'segmentation'}", f"--input={shown / 'pictures'}")
    scored = ["segmentation_scores"] if plan.val else []
    if plan.val and plan.full_supervision:
        scored.append("full_supervision_scores")
    label_scores = Stage(
        name="label_scores",
        steps=(functools.partial(results.score_labels, plan, run_dir),),
        inputs={"data": fingerprint(plan.score)},
        after=("cams", "crf", "walk"),
        outputs=("label_scores.json",),
        proof="label_scores.json",
    )
    predict = (
        functools.partial(results.write_pictures, plan, run_dir),
        (*infer, f"--output={shown}"),
    )
    write = functools.partial(results.write_results, plan, run_dir)
    report = Stage(
        name="report",
        steps=(*predict, write) if plan.report_images else (write,),
        inputs={"images": plan.report_images, "full_supervision": plan.full_supervision},
        after=("segmentation", "label_scores", *scored),
        outputs=("shown", "results.json", "results.md", "report.html"),
        proof="results.json",
        # Pictures of another choice must not be left among those shown.
        is_resumable=False,
    )
    return [label_scores, report]


def _comma(numbers):
    return ",".join(f"{number:g}" for number in numbers)
