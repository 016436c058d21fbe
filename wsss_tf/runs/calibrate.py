"""The background threshold of a split's class activation maps, chosen by masks or by colours."""

import dataclasses
import pathlib

from tqdm import tqdm

from wsss_tf.data.picture_names import PictureNames
from wsss_tf.errors import UserError, warn
from wsss_tf.evaluation.calibration import choose_by_colours, choose_by_masks
from wsss_tf.evaluation.scored_run import spread
from wsss_tf.evaluation.threshold_sweep import label_pixels
from wsss_tf.files.calibration import Calibration, save_calibration
from wsss_tf.files.cam_record import load_record, save_record
from wsss_tf.files.images import load_mask
from wsss_tf.files.picture_files import search
from wsss_tf.files.png import save_mask
from wsss_tf.inference.picture_batches import batches_of_equal_size

# With fewer masks than this, colours mostly choose better (gin/results/photos.md).
_FEW = 10
# Pictures whose colours count; with more the choice stays the same.
_MOST = 300


def calibrate(cams, masks=None):
    """Choose the threshold, make the split's pseudo labels with it, and keep it for what follows.

    It goes into calibration.json beside the CAMs, and into the record of what they are of.

    Args:
      cams: `cam_run.CamRun`.
      masks: folder of index masks, PNG, of some of the pictures, named as these; None to choose by
        the pictures' colours.

    Returns:
      `files.calibration.Calibration`.

    Raises:
      UserError: no mask, none that is of a picture, or of another size or other classes; no CAM
        file.
    """
    source, folder = cams.source, cams.folder
    chosen = _by_colours(cams) if masks is None else _by_masks(cams, masks)
    threshold = chosen.background_threshold
    for image_id in tqdm(source.ids, desc="labelling", unit="image", disable=None):
        if folder.cam(image_id).is_file():  # a bad picture has none
            labels = label_pixels(*folder.read_cams(image_id), threshold)
            save_mask(folder.pseudo_label(image_id), labels)
    record = load_record(folder, source.split)
    if record is not None:
        save_record(folder, dataclasses.replace(record, background_threshold=threshold))
    save_calibration(folder, chosen)
    print(
        f"background threshold {threshold:g}, by {chosen.chosen_by}; it was "
        f"{cams.background_threshold:g}.{_how_sure(chosen)}\n"
        f"{folder.pseudo_labels} are made with it, and {folder.calibration} keeps it for infer, "
        "refine, walk and export. What refine and walk have written before needs --overwrite."
    )
    return chosen


def _by_masks(cams, masks):
    source, folder = cams.source, cams.folder
    class_names = cams.run.read_class_names()
    files = _masks_of(source, masks)
    folder.require_cams(list(files), source.split)

    def examples():
        for image_id, path in tqdm(files.items(), desc="comparing", unit="image", disable=None):
            mask = load_mask(path)
            yield path, *folder.read_cams(image_id, mask.shape), mask

    chosen = choose_by_masks(examples(), class_names)
    if chosen is None:
        raise UserError(f"--masks={masks}: every mask is all 255 (ignored); nothing to compare.")
    if chosen.missing_classes:
        warn(f"no mask shows {', '.join(chosen.missing_classes)}: the choice knows nothing of it.")
    if chosen.num_images < _FEW:
        warn(f"{chosen.num_images} masks are few: without --masks, colours mostly choose better.")
    return Calibration(
        chosen.threshold,
        f"{chosen.num_images} masks of split {source.split!r}",
        chosen.miou,
        chosen.miou_interval,
        chosen.threshold_interval,
    )


def _masks_of(source, masks):
    """Return {id: path} of the masks of pictures of a source, in its order."""
    masks = pathlib.Path(masks)
    if not masks.is_dir():
        raise UserError(f"--masks={masks}: no such folder.")
    found, _ = search(masks, (".png",))
    if not found:
        raise UserError(f"--masks={masks}: no PNG file in it.")
    names = PictureNames(source.ids, masks)
    files = {names.find(name): path for name, path in found.items()}
    if set(files) == {None}:
        raise UserError(
            f"--masks={masks}: none of its {len(found)} PNG files is named as a picture of split "
            f"{source.split!r}, such as {source.ids[0] + '.png'!r}; the first is "
            f"{next(iter(found)) + '.png'!r}."
        )
    return {image_id: files[image_id] for image_id in source.ids if image_id in files}


def _by_colours(cams):
    source, folder = cams.source, cams.folder
    positions = [i for i, image_id in enumerate(source.ids) if folder.cam(image_id).is_file()]
    if not positions:
        folder.require_cams(source.ids, source.split)
    compared = spread(positions, _MOST)

    def examples():
        pictures = batches_of_equal_size(source, compared, batch_size=1)
        for [picture] in tqdm(pictures, "comparing", len(compared), unit="image", disable=None):
            image_id = source.ids[picture.position]
            yield picture.image, *folder.read_cams(image_id, picture.size)

    chosen = choose_by_colours(examples())
    if chosen is None:
        raise UserError(f"{folder.cams}: no picture of split {source.split!r} has a class.")
    threshold, count = chosen
    return Calibration(threshold, f"the colours of {count} pictures of split {source.split!r}")


def _how_sure(calibration):
    if calibration.miou is None:
        return " Twenty masks (--masks=FOLDER) would tell the score too."
    low, high = calibration.threshold_interval
    worst, best = calibration.miou_interval
    return (
        f" Mean IoU {100 * calibration.miou:.1f}; of drawings of as many pictures 95 % have "
        f"{100 * worst:.1f} to {100 * best:.1f}, and best thresholds from {low:g} to {high:g}."
    )
