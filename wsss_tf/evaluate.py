"""Score the CAMs or predicted masks of a run, or any folder of them, against ground-truth masks.

A run (writes metrics.json and report.html into it, for CAMs also curves.png):
  python -m wsss_tf.evaluate --run_dir=RUN --split=val

Any PNG masks, such as labels of the CRF, against those of the run's data set:
  python -m wsss_tf.evaluate --run_dir=RUN --split=train --predictions=RUN/crf_low_labels

Any PNG masks, no run at all:
  python -m wsss_tf.evaluate --predictions=DIR --masks=DIR --class_names=FILE --output=metrics.json
"""

import pathlib

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.errors import UserError
from wsss_tf.evaluation import metrics as metrics_lib
from wsss_tf.files.run_folder import RunFolder, write_json

_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Run folder with config.gin, and cams/ or predictions/."
)
_SPLIT = flags.DEFINE_string(
    "split", None, "Split to score; default: the run's validation split. With --predictions a name."
)
command_flags.define_data()
flags.adopt_module_key_flags(command_flags)  # for --help
_BACKGROUND_THRESHOLD = flags.DEFINE_float(
    "background_threshold",
    None,
    "Score CAMs at this threshold instead of the best of 0.00, 0.01 .. 0.59.",
    lower_bound=0,
    upper_bound=1,
)
_ABSENT_AS_ZERO = flags.DEFINE_bool(
    "absent_as_zero", False, "Count a class in neither masks nor predictions as 0 in the mean."
)
_REPORT_IMAGES = flags.DEFINE_integer(
    "report_images", 24, "Images that report.html shows.", lower_bound=0
)
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of predicted PNG masks.")
_MASKS = flags.DEFINE_string("masks", None, "Folder of ground-truth PNG masks, same file names.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file with one class name a line, in mask order."
)
_OUTPUT = flags.DEFINE_string("output", None, "metrics.json to write, with --predictions.")

_RUN_FLAGS = ("data", "gin_bindings", "background_threshold", "report_images")
_FOLDER_FLAGS = ("predictions", "masks", "class_names", "output")


def main():
    """Run the command."""
    given = [name for name in _FOLDER_FLAGS if flags.FLAGS[name].present]
    if _RUN_DIR.value:
        _check_run_flags(given)
        if _PREDICTIONS.value:
            _evaluate_folder_of_run_command()
        else:
            _evaluate_run_command()
    elif given:
        _evaluate_folders_command()
    else:
        raise UserError(
            "nothing to score: give --run_dir, or --predictions with --masks and --class_names."
        )


# === A run ===


def _check_run_flags(given):
    for name in ("masks", "class_names"):
        if name in given:
            raise UserError(
                f"--run_dir and --{name} exclude each other: the run's data set has its own."
            )
    if _OUTPUT.value and not _PREDICTIONS.value:
        raise UserError("--output is for --predictions; a run's scores are written into it.")


def _evaluate_run_command():
    # Here, because two folders of masks need neither gin nor matplotlib, and --help nothing at all.
    from wsss_tf.data.source import loader

    run, recipe, source = _run_and_source()
    options = {
        "absent_as_zero": _ABSENT_AS_ZERO.value,
        "num_report_images": _REPORT_IMAGES.value,
    }
    if recipe.predicts_masks:
        from wsss_tf.evaluation.run_masks import evaluate_run

        if flags.FLAGS["background_threshold"].present:
            raise UserError("--background_threshold is for CAMs; this run predicts masks.")
        options["draw_attention"] = _attention_drawer(run, source)
    else:
        from wsss_tf.evaluation.run_cams import evaluate_run

        options["background_threshold"] = _BACKGROUND_THRESHOLD.value
    metrics = evaluate_run(source, loader(source), run, **options)
    metrics_lib.print_table(metrics)
    print(f"report: {run.report()}")


def _attention_drawer(run, source):
    """Return what draws the attention maps of the run's network; None if it has none."""
    from wsss_tf.inference.attention import attention_drawer, find_attention
    from wsss_tf.runs.trained_network import load_network

    if not _REPORT_IMAGES.value:
        return None
    if not run.network().is_file():
        print("no network in this run folder: the report is without attention maps.")
        return None
    attention = find_attention(load_network(run))
    if attention is None:
        return None
    return attention_drawer(attention, source.class_names, source.has_background)


def _run_and_source():
    """Return the run's folder, its recipe, and the split to score."""
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.data_warnings import warn_of_data

    run = RunFolder(_RUN_DIR.value)
    recipe = recipe_lib.load_run(run, command_flags.gin_bindings())
    split = _SPLIT.value or recipe.validation_split
    if split is None:
        raise UserError("this run has no validation split; say which to score with --split.")
    command.hold(run.reading(split))
    source = recipe.true_source(split)
    warn_of_data(source)
    return run, recipe, source


def _evaluate_folder_of_run_command():
    from wsss_tf.data.source import loader
    from wsss_tf.evaluation.run_masks import score_masks
    from wsss_tf.evaluation.scored_run import positions_to_score

    for name in ("background_threshold", "report_images"):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} means nothing for predicted masks.")
    _check_output()
    run, _, source = _run_and_source()
    positions, skipped = positions_to_score(run, source)
    folder = pathlib.Path(_PREDICTIONS.value)
    _report(
        score_masks(
            source,
            loader(source),
            folder,
            positions,
            skipped,
            absent_as_zero=_ABSENT_AS_ZERO.value,
        )
    )


def _check_output():
    if _OUTPUT.value and pathlib.Path(_OUTPUT.value).is_dir():
        raise UserError(
            f"--output={_OUTPUT.value}: is a folder; name the file, such as metrics.json."
        )


def _report(metrics):
    """Print the metrics, and write them to --output if that is given."""
    metrics_lib.print_table(metrics)
    if metrics.get("extra_predictions"):
        print(f"{metrics['extra_predictions']} predictions have no mask and were not scored.")
    if metrics.get("unlabelled_pixels"):
        print(f"{metrics['unlabelled_pixels']} pixels predicted 255 count as missed.")
    if _OUTPUT.value:
        write_json(_OUTPUT.value, metrics)
        print(f"metrics: {_OUTPUT.value}")


# === Two folders ===


def _evaluate_folders_command():
    for name in _RUN_FLAGS:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} is for --run_dir, it means nothing for predicted masks.")
    for name in ("predictions", "masks", "class_names"):
        if not flags.FLAGS[name].value:
            raise UserError(
                f"--{name} is missing: --predictions, --masks, --class_names go together."
            )
    _check_output()
    # Reading masks imports TensorFlow, for which neither --help nor a wrong flag should wait.
    from wsss_tf.evaluation.mask_folders import evaluate_folders, read_class_names

    metrics = evaluate_folders(
        _PREDICTIONS.value,
        _MASKS.value,
        read_class_names(_CLASS_NAMES.value),
        split=_SPLIT.value,
        absent_as_zero=_ABSENT_AS_ZERO.value,
    )
    _report(metrics)


if __name__ == "__main__":
    command.run(main)
