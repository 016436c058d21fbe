"""What IRN learns from: CAMs where two dense CRFs are sure of them. No TensorFlow by itself."""

import dataclasses

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.files import png
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.cam_crf import odds, times_odds
from wsss_tf.inference.dense_crf import CrfParameters, dense_crfs
from wsss_tf.inference.map_sizes import resize_maps
from wsss_tf.inference.write_crf import run_on_pictures
from wsss_tf.masks import IGNORE

# IRN's own kernels, narrower than SEAM's.
IR_CRF = CrfParameters(bilateral_sxy=50.0, bilateral_srgb=5.0)
# Of confident background and of confident classes, and the best one of the maps that they are for:
# divided by their maximum, nothing subtracted.
IR_THRESHOLDS = (0.05, 0.30)
BACKGROUND_THRESHOLD = 0.15


@dataclasses.dataclass(frozen=True)
class IrSettings:
    """How CAMs become labels for IRN.

    Attributes:
      thresholds: below the first score is background, above the second the strongest class, but for
        what the CRF changes.
      confidence: probability of that label before the CRF; the others share the rest.
    """

    thresholds: tuple = IR_THRESHOLDS
    confidence: float = 0.7


def threshold_for_maps(background_threshold, official_threshold):
    """Return the threshold that does for other maps what an official one does for IRN's CAMs.

    Its odds are to those of the maps' best threshold as the official one's are to those of 0.15.

    Args:
      background_threshold: of the maps, in (0, 1); 0.15 gives the official threshold back.
      official_threshold: in (0, 1).

    Raises:
      ValueError: a threshold that is not.
    """
    return times_odds(background_threshold, odds(official_threshold) / odds(BACKGROUND_THRESHOLD))


def seed(maps, threshold):
    """Return which label each pixel starts with, int64 [h, w]: 0, or the position 1..P of a class.

    Args:
      maps: [P, h, w]; of equal scores the lower label has the pixel.
      threshold: score that a class must exceed.
    """
    maps = np.asarray(maps, np.float32)
    background = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.concatenate([background, maps]).argmax(axis=0)


def confident_marginals(maps, image, parameters=IR_CRF, settings=IrSettings()):
    """Return the marginals of the two CRFs.

    Args:
      maps: [P, h, w] in [0, 1], P > 0.
      image: uint8 [h, w, 3] RGB.
      parameters: `dense_crf.CrfParameters`.
      settings: `IrSettings`.

    Returns:
      List of two float32 [h, w, P + 1]: of the threshold of background, and of that of classes.
    """
    rest = (1 - settings.confidence) / len(maps)
    several = []
    for threshold in settings.thresholds:
        is_seed = seed(maps, threshold)[..., None] == np.arange(len(maps) + 1)
        several.append(np.where(is_seed, np.float32(settings.confidence), np.float32(rest)))
    return dense_crfs(several, image, parameters)


def combined_label(class_ids, background_marginals, class_marginals):
    """Return the label of one picture.

    Args:
      class_ids: int [P], mask values.
      background_marginals, class_marginals: [h, w, P + 1], as `confident_marginals` gives.

    Returns:
      uint8 [h, w]: a class where the second say one, 0 where both say background, 255 elsewhere.
    """
    ids = np.concatenate([[0], class_ids])
    is_class, is_sure = (
        ids[marginals.argmax(axis=-1)] for marginals in (class_marginals, background_marginals)
    )
    label = np.where(is_sure == 0, 0, IGNORE)
    return np.where(is_class != 0, is_class, label).astype(np.uint8)


def write_ir_label(run_dir, image_id, image, parameters=IR_CRF, settings=IrSettings(), size=None):
    """Run both CRFs on one image's CAMs and write the label into the run folder.

    Args:
      run_dir: folder with `cams/`.
      image_id: string.
      image, parameters, settings: as in `confident_marginals`.
      size: (H, W) of the maps, which are brought to `image` and the marginals back to them, where
        `image` is reduced; None for its own size.

    Raises:
      UserError: a broken CAM file, or one of another image size.
    """
    size = image.shape[:2] if size is None else size
    run = RunFolder(run_dir)
    class_ids, maps = run.read_cams(image_id, size)
    label = np.zeros(size, np.uint8)  # a picture without classes is background
    if len(class_ids):
        maps = resize_maps(maps, image.shape[:2])
        try:
            both = confident_marginals(maps, image, parameters, settings)
        except ValueError as error:
            raise UserError(f"{run.cam(image_id)}: {error} Delete it and infer again.") from error
        both = [resize_maps(x.transpose(2, 0, 1), size).transpose(1, 2, 0) for x in both]
        label = combined_label(class_ids, *both)
    png.save_mask(run.ir_label(image_id), label)


def ir_label_source(
    source,
    run_dir,
    processes=None,
    parameters=IR_CRF,
    settings=IrSettings(),
    overwrite=False,
    max_side=None,
):
    """Write a label for IRN for every image of a source that has a CAM file.

    Args:
      source, run_dir, processes, parameters, overwrite, max_side: as in `write_crf.crf_source`.
      settings: `IrSettings`.

    Returns and raises: as `write_crf.crf_source`.
    """
    run = RunFolder(run_dir)
    run.require_cams(source.ids, source.split)

    def is_done(image_id):
        label, cam = run.ir_label(image_id), run.cam(image_id)
        return label.is_file() and label.stat().st_mtime_ns >= cam.stat().st_mtime_ns

    todo = [i for i, image_id in enumerate(source.ids) if overwrite or not is_done(image_id)]
    run_on_pictures(
        write_ir_label, source, todo, run, parameters, settings, "labels", processes, max_side
    )
    return len(todo), len(source) - len(todo)
