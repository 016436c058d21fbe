"""SEC's localisation cues of a whole split or folder: from the two classifiers, maps or rows."""

import pathlib

from wsss_tf.errors import UserError
from wsss_tf.files.calibration import load_calibration
from wsss_tf.runs.crf_settings import threshold_by_odds

# SEC's own, for class scores of its foreground network; and what stands for the latter's saliency
# where cues come from other maps.
FOREGROUND_SHARE = 0.2
BACKGROUND_THRESHOLD = 0.05
# Of maps whose best threshold is known: those of background and classes, by their odds. Chosen on
# photographs, where 96 and 76 % of the cues are right then.
MAPS_ODDS = (0.58, 1.62)


class CueWriter:
    """Writes OUTPUT/<id>.png, index PNGs of cues, and leaves those alone that are there.

    Args:
      output: folder, a `pathlib.Path`.
      overwrite: write files that exist again.
      npz: also write <id>.npz in the published format.
    """

    def __init__(self, output, overwrite=False, npz=False):
        self.output = output
        self.overwrite = overwrite
        self.npz = npz

    def is_done(self, image_id):
        """Return whether an image's cues are there and are to stay."""
        return not self.overwrite and (self.output / f"{image_id}.png").is_file()

    def write(self, total, results):
        """Write the cues of all images, and print how many.

        Args:
          total: number of images.
          results: iterable of (id, index map uint8 [h, w] or None for one that is done).
        """
        from tqdm import tqdm

        from wsss_tf.files import images
        from wsss_tf.inference import sec_cues

        written = kept = labelled = pixels = 0
        for image_id, index in tqdm(results, "cues", total, unit="image", disable=None):
            if index is None:
                kept += 1
                continue
            if self.npz:
                sec_cues.save_rows(self.output / f"{image_id}.npz", index)
            images.save_mask(self.output / f"{image_id}.png", index)
            written += 1
            labelled += int((index != sec_cues.NO_CUE).sum())
            pixels += index.size
        print(f"{written} written, {kept} kept: {self.output}")
        if written:
            print(f"{labelled / pixels:.1%} of the pixels are cues.")


def grid_of(gin_files):
    """Return (h, w) of the grid of the network that some gin files name.

    Raises:
      UserError: it is not SEC's.
    """
    from wsss_tf.runs import recipe as recipe_lib

    network = recipe_lib.load(gin_files).network(num_classes=2)
    if "logits_low" not in network.output:
        raise UserError(f"--gin_file={gin_files[0]}: not a recipe of SEC's network.")
    return network.output["logits_low"].shape[1:3]


def write_from_rows(writer, folder, grid):
    """Write cues from a folder of <id>.npz in the published format.

    Args:
      writer: `CueWriter`.
      folder: the folder.
      grid: (h, w).

    Raises:
      UserError: no files, or one that does not fit the grid.
    """
    from wsss_tf.inference import sec_cues

    def read(path, image_id):
        try:
            return sec_cues.to_index(sec_cues.load_rows(path), grid)
        except ValueError as error:
            raise UserError(f"{path}: {error} Is --grid={grid[0]} right?") from error

    _write_from_files(writer, pathlib.Path(folder), "rows", read)


def write_from_cams(
    writer, folder, grid, foreground_share=None, background_threshold=None, maps_threshold=None
):
    """Write cues from the score maps of a CAM or SEAM run.

    Args:
      writer: `CueWriter`.
      folder: `cams/` of the run.
      grid: (h, w).
      foreground_share, background_threshold: as in `inference.sec_cues.cues_of_cams`; None for
        what follows `maps_threshold` (by `MAPS_ODDS`), or where that is not known 0.2 and 0.05.
      maps_threshold: background threshold of the maps, in (0, 1); None for that which
        `wsss_tf.calibrate` has chosen for the run, if it has.

    Raises:
      UserError: no files, or a broken one; a threshold of 0 or 1.
    """
    from wsss_tf.files import run_folder
    from wsss_tf.inference import sec_cues

    folder = pathlib.Path(folder)
    if maps_threshold is None and (chosen := load_calibration(folder.parent)) is not None:
        maps_threshold = chosen.background_threshold
    low, high = BACKGROUND_THRESHOLD, FOREGROUND_SHARE
    if maps_threshold is not None:
        low, high = (threshold_by_odds(maps_threshold, ratio) for ratio in MAPS_ODDS)
    low = low if background_threshold is None else background_threshold
    high = high if foreground_share is None else foreground_share
    print(f"cues: background below {low:.3g}, a class above {high:.3g} of its highest score.")

    def read(path, image_id):
        try:
            class_ids, cams = run_folder.load_cams(folder, image_id)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as score maps: {error}") from error
        return sec_cues.cues_of_cams(class_ids, cams, grid, high, low)

    _write_from_files(writer, folder, "cams", read)


def _write_from_files(writer, folder, flag, read):
    files = sorted(folder.rglob("[!.]*.npz"))
    if not files:
        raise UserError(f"--{flag}={folder}: no such folder, or no .npz file in it.")
    ids = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    results = (
        (image_id, None if writer.is_done(image_id) else read(path, image_id))
        for image_id, path in zip(ids, files)
    )
    writer.write(len(ids), results)


def write_from_runs(
    writer,
    foreground_run,
    background_run,
    split,
    *,
    grid=None,
    layer=None,
    foreground_share=None,
    background_share=0.1,
    batch_size=8,
    gin_bindings=(),
):
    """Write cues from the two classifiers of the paper.

    Args:
      writer: `CueWriter`.
      foreground_run, background_run: run folders of gin/sec_foreground.gin and sec_background.gin.
      split: of the foreground run's data set.
      grid: (h, w); None for that of the foreground network.
      layer: as in `inference.sec_cues.LocalizationMaps`.
      foreground_share, background_share: as in `inference.sec_cues.cues_of_maps`; None for SEC's
        own share of the foreground, 0.2.
      batch_size: pictures run together.
      gin_bindings: override the foreground run's config.gin.

    Raises:
      UserError: runs that do not belong together, or are of other networks; a bad picture.
    """
    import tensorflow as tf

    from wsss_tf import ops
    from wsss_tf.files.run_folder import RunFolder
    from wsss_tf.inference import sec_cues
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.trained_network import load_network
    from wsss_tf.runs.training_run import checked_source

    if foreground_share is None:
        foreground_share = FOREGROUND_SHARE
    recipe = recipe_lib.load_run(foreground_run, gin_bindings)
    runs = foreground_run, background_run
    networks = [load_network(run, for_inference=True, gin_bindings=gin_bindings) for run in runs]
    names = [RunFolder(run).read_class_names() for run in runs]
    source = recipe.source(split=split).without_masks()
    if len({*names, tuple(source.class_names)}) != 1:
        raise UserError(
            f"the classes differ: the runs were trained on {list(names[0])} and {list(names[1])}, "
            f"the data set has {list(source.class_names)}."
        )
    compute = sec_cues.LocalizationMaps(*networks, layer)
    sizes = [network.get_layer("warp").size for network in networks]
    if sizes[0] != sizes[1]:
        raise UserError(f"the two networks take images of {sizes[0]} and {sizes[1]} pixels.")
    writer.output.mkdir(parents=True, exist_ok=True)
    source = checked_source(recipe, source, writer.output)
    ids = source.ids
    todo = [i for i, image_id in enumerate(ids) if not writer.is_done(image_id)]

    @tf.autograph.experimental.do_not_convert
    def load(i):  # warped as the networks would do it, so that sizes are equal
        image = tf.cast(source.read(i)["image"], tf.float32)[None]
        return i, ops.normalize_image(ops.resize_bilinear(image, sizes[0], True)[0])

    def results():
        for i in set(range(len(ids))) - set(todo):
            yield ids[i], None
        dataset = tf.data.Dataset.from_tensor_slices(tf.constant(todo, tf.int64))
        dataset = dataset.map(load, num_parallel_calls=2).batch(batch_size).prefetch(1)
        for positions, batch in dataset:
            maps = compute(batch)
            for i, heat, gradient in zip(
                positions.numpy(), maps["heat"].numpy(), maps["gradient"].numpy()
            ):
                labels = source.labels[i]
                shares = foreground_share, background_share
                yield ids[i], sec_cues.cues_of_maps(heat, gradient, labels, *shares, grid)

    writer.write(len(ids), results())
