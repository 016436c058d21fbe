"""The background threshold of a split's class activation maps, chosen by masks of some pictures."""

import dataclasses
import pathlib

from tqdm import tqdm

from wsss_tf.data.picture_names import PictureNames
from wsss_tf.errors import UserError, warn
from wsss_tf.evaluation.calibration import choose_by_masks
from wsss_tf.evaluation.threshold_sweep import label_pixels
from wsss_tf.files.calibration import Calibration, save_calibration
from wsss_tf.files.cam_record import load_record, save_record
from wsss_tf.files.images import load_mask
from wsss_tf.files.picture_files import search
from wsss_tf.files.png import save_mask

# With fewer the interval of the threshold is mostly a tenth wide or more.
FEW = 5


def calibrate(cams, masks):
    """Choose the threshold, make the split's pseudo labels with it, and keep it for what follows.

    It goes into calibration.json beside the CAMs, and into the record of what they are of.

    Args:
      cams: `cam_run.CamRun`.
      masks: folder of index masks, PNG, of some of the pictures, named as these.

    Returns:
      `files.calibration.Calibration`.

    Raises:
      UserError: no mask, none that is of a picture, or of another size or other classes; no CAM
        file.
    """
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
    if chosen.num_images < FEW:
        warn(f"{chosen.num_images} masks are few; the interval says how sure the choice is.")
    calibration = Calibration(
        chosen.threshold,
        f"{chosen.num_images} masks of split {source.split!r}",
        chosen.miou,
        chosen.miou_interval,
        chosen.threshold_interval,
    )
    for image_id in tqdm(source.ids, desc="labelling", unit="image", disable=None):
        if folder.cam(image_id).is_file():  # a bad picture has none
            labels = label_pixels(*folder.read_cams(image_id), chosen.threshold)
            save_mask(folder.pseudo_label(image_id), labels)
    record = load_record(folder, source.split)
    if record is not None:
        save_record(folder, dataclasses.replace(record, background_threshold=chosen.threshold))
    save_calibration(folder, calibration)
    print(_in_words(calibration, cams, folder))
    return calibration


def _masks_of(source, masks):
    """Return {id: path} of the masks of pictures of a source, in its order."""
    masks = pathlib.Path(masks)
    if not masks.is_dir():
        raise UserError(f"--masks={masks}: no such folder.")
    found, _ = search(masks, (".png",))
    names = PictureNames(source.ids, masks)
    files = {names.find(name): path for name, path in found.items()}
    strangers = [name for name in found if names.find(name) is None]
    if strangers and len(strangers) == len(found):
        raise UserError(
            f"--masks={masks}: none of its {len(found)} PNG files is named as a picture of split "
            f"{source.split!r}, such as {source.ids[0] + '.png'!r}; the first is "
            f"{strangers[0] + '.png'!r}."
        )
    if not found:
        raise UserError(f"--masks={masks}: no PNG file in it.")
    return {image_id: files[image_id] for image_id in source.ids if image_id in files}


def _in_words(calibration, cams, folder):
    low, high = calibration.threshold_interval
    miou, (worst, best) = calibration.miou, calibration.miou_interval
    before = cams.background_threshold
    return (
        f"background threshold {calibration.background_threshold:g}, by {calibration.chosen_by}: "
        f"mean IoU {100 * miou:.1f} ({100 * worst:.1f} to {100 * best:.1f} in 95 % of drawings; "
        f"their thresholds {low:g} to {high:g}). It was {before:g}.\n"
        f"{folder.pseudo_labels} are made with it, and {folder.calibration} keeps it for infer, "
        "refine, walk and export. What refine and walk have written before needs --overwrite."
    )
