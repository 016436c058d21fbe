"""Write SEC's localisation cues for the images of a split, as CUES/<id>.png.

From the two classifiers of the paper, trained with gin/sec_foreground.gin and sec_background.gin:
  python scripts/make_sec_cues.py --foreground_run=RUN1 --background_run=RUN2 --split=train \\
      --output=CUES
From the score maps that wsss_tf.infer wrote for any CAM or SEAM run:
  python scripts/make_sec_cues.py --cams=RUN/cams --gin_file=gin/sec.gin --output=CUES
From cues in the published format, one .npz of class, row and column an image:
  python scripts/make_sec_cues.py --rows=FOLDER --grid=41 --output=CUES

Cues lie on the grid of the network that they are for: --gin_file, which may be repeated, names the
files that SEC will be trained with, and --grid the side itself. With the two classifiers neither is
needed where the foreground network has that grid, as in the paper.

Then train SEC with --gin_bindings='sec_augmentation.cues="CUES"'. Images that have cues already are
left alone. A PNG holds 0 for background, class numbers from 1, and 255 where there is no cue.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_FOREGROUND_RUN = flags.DEFINE_string("foreground_run", None, "Run of gin/sec_foreground.gin.")
_BACKGROUND_RUN = flags.DEFINE_string("background_run", None, "Run of gin/sec_background.gin.")
_SPLIT = flags.DEFINE_string("split", "train", "Split of the foreground run's data set.")
_CAMS = flags.DEFINE_string("cams", None, "Folder cams/ of a run, instead of the two classifiers.")
_ROWS = flags.DEFINE_string("rows", None, "Folder of <id>.npz in the published format, instead.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.")
_GRID = flags.DEFINE_integer("grid", None, "Side of the grid of the network to train.", 1)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "Recipe and overlays of the network to train, which tell its grid."
)
_LAYER = flags.DEFINE_string(
    "layer", None, "Layer of the background network that the gradient is taken at."
)
_FOREGROUND_SHARE = flags.DEFINE_float(
    "foreground_share", 0.2, "Share of a class's highest score that its cues exceed.", 0, 1
)
_BACKGROUND_SHARE = flags.DEFINE_float(
    "background_share", 0.1, "Share of the pixels, the least salient, that are background.", 0, 1
)
_BACKGROUND_THRESHOLD = flags.DEFINE_float(
    "background_threshold", 0.05, "With --cams: background is where all scores are below.", 0, 1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures run together.", 1)
_NPZ = flags.DEFINE_bool("npz", False, "Also write <id>.npz in the published format.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write files that exist again.")
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Override the run's config.gin, such as the folder of the data set."
)


def main():
    """Run the script."""
    if not _OUTPUT.value:
        raise UserError("--output is missing.")
    runs = _FOREGROUND_RUN.value, _BACKGROUND_RUN.value
    if sum(map(bool, (any(runs), _CAMS.value, _ROWS.value))) != 1 or any(runs) != all(runs):
        raise UserError(
            "give --foreground_run together with --background_run, or --cams, or --rows."
        )
    from tqdm import tqdm

    from wsss_tf.files import images
    from wsss_tf.inference import sec_cues

    size = _size()
    if size is None and not any(runs):
        raise UserError(
            "which grid? Give the files that SEC will be trained with as --gin_file, or its side "
            "as --grid (41 in the paper)."
        )
    output = pathlib.Path(_OUTPUT.value)
    make = _from_cams if _CAMS.value else _from_rows if _ROWS.value else _from_runs
    written = kept = labelled = pixels = 0
    total, results = make(output, size)
    for image_id, index in tqdm(results, "cues", total, unit="image", disable=None):
        if index is None:
            kept += 1
            continue
        if _NPZ.value:
            sec_cues.save_rows(output / f"{image_id}.npz", index)
        images.save_mask(output / f"{image_id}.png", index)
        written += 1
        labelled += int((index != sec_cues.NO_CUE).sum())
        pixels += index.size
    print(f"{written} written, {kept} kept: {output}")
    if written:
        print(f"{labelled / pixels:.1%} of the pixels are cues.")


def _size():
    """Return (h, w) of the grid that is asked for, or None where nothing is said."""
    if _GRID.value is not None and _GIN_FILE.value:
        raise UserError("--grid and --gin_file: give one of them.")
    if _GRID.value is not None:
        return _GRID.value, _GRID.value
    if not _GIN_FILE.value:
        return None
    from wsss_tf.runs import recipe as recipe_lib

    network = recipe_lib.load(_GIN_FILE.value).network(num_classes=2)
    if "logits_low" not in network.output:
        raise UserError(f"--gin_file={_GIN_FILE.value[0]}: not a recipe of SEC's network.")
    return network.output["logits_low"].shape[1:3]


def _is_done(output, image_id):
    return not _OVERWRITE.value and (output / f"{image_id}.png").is_file()


def _from_files(folder, flag, output, read):
    """Return how many .npz files there are, and (id, index map or None) of each."""
    folder = pathlib.Path(folder)
    files = sorted(folder.rglob("[!.]*.npz"))
    if not files:
        raise UserError(f"--{flag}={folder}: no such folder, or no .npz file in it.")
    ids = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    pairs = zip(ids, files)
    return len(ids), (
        (image_id, None if _is_done(output, image_id) else read(path)) for image_id, path in pairs
    )


def _from_rows(output, size):
    from wsss_tf.inference import sec_cues

    def read(path):
        try:
            return sec_cues.to_index(sec_cues.load_rows(path), size)
        except ValueError as error:
            raise UserError(f"{path}: {error} Is --grid={size[0]} right?") from error

    return _from_files(_ROWS.value, "rows", output, read)


def _from_cams(output, size):
    from wsss_tf.files import run_folder
    from wsss_tf.inference import sec_cues

    folder = pathlib.Path(_CAMS.value)

    def read(path):
        image_id = path.relative_to(folder).with_suffix("").as_posix()
        try:
            class_ids, cams = run_folder.load_cams(folder, image_id)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as score maps: {error}") from error
        return sec_cues.cues_of_cams(
            class_ids,
            cams,
            size,
            _FOREGROUND_SHARE.value,
            _BACKGROUND_THRESHOLD.value,
        )

    return _from_files(folder, "cams", output, read)


def _from_runs(output, size):
    import tensorflow as tf

    from wsss_tf import ops
    from wsss_tf.files.run_folder import RunFolder
    from wsss_tf.inference import sec_cues
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.training_run import checked_source

    recipe = recipe_lib.load_run(_FOREGROUND_RUN.value, _GIN_BINDINGS.value)
    networks = [recipe_lib.load_network(run.value) for run in (_FOREGROUND_RUN, _BACKGROUND_RUN)]
    names = [RunFolder(run.value).read_class_names() for run in (_FOREGROUND_RUN, _BACKGROUND_RUN)]
    source = recipe.source(split=_SPLIT.value).without_masks()
    if len({*names, tuple(source.class_names)}) != 1:
        raise UserError(
            f"the classes differ: the runs were trained on {list(names[0])} and {list(names[1])}, "
            f"the data set has {list(source.class_names)}."
        )
    compute = sec_cues.LocalizationMaps(*networks, _LAYER.value)
    sizes = [network.get_layer("warp").size for network in networks]
    if sizes[0] != sizes[1]:
        raise UserError(f"the two networks take images of {sizes[0]} and {sizes[1]} pixels.")
    output.mkdir(parents=True, exist_ok=True)
    source = checked_source(recipe, source, output)
    ids = source.ids
    todo = [i for i, image_id in enumerate(ids) if not _is_done(output, image_id)]

    def load(i):  # warped as the networks would do it, so that sizes are equal
        image = tf.cast(source.read(i)["image"], tf.float32)[None]
        return i, ops.normalize_image(ops.resize_bilinear(image, sizes[0], True)[0])

    def results():
        for i in set(range(len(ids))) - set(todo):
            yield ids[i], None
        dataset = tf.data.Dataset.from_tensor_slices(tf.constant(todo, tf.int64))
        dataset = dataset.map(load, num_parallel_calls=2).batch(_BATCH_SIZE.value).prefetch(1)
        for positions, batch in dataset:
            maps = compute(batch)
            for i, heat, gradient in zip(
                positions.numpy(), maps["heat"].numpy(), maps["gradient"].numpy()
            ):
                yield (
                    ids[i],
                    sec_cues.cues_of_maps(
                        heat,
                        gradient,
                        source.labels[i],
                        _FOREGROUND_SHARE.value,
                        _BACKGROUND_SHARE.value,
                        size,
                    ),
                )

    return len(ids), results()


if __name__ == "__main__":
    command.run(main)
