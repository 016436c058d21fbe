"""Pictures with the colours of their masks over them, to be looked at."""

import numpy as np
from PIL import Image
from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.files.images import load_mask
from wsss_tf.files.png import palette
from wsss_tf.files.run_folder import RunFolder, atomic_path, mask_path
from wsss_tf.inference.picture_batches import batches_of_equal_size
from wsss_tf.masks import IGNORE


def write_overlays(source, masks, output, has_background=True, overwrite=False):
    """Write `overlays/<id>.jpg` for every picture that has a mask, and say so.

    Args:
      source: `data.source.Source` of the pictures.
      masks: folder of the masks, `<id>.png`.
      output: folder.
      has_background: leave pixels of class 0 as they are.
      overwrite: write again what is there and newer than its mask.

    Raises:
      UserError: a picture or a mask cannot be read, or they differ in size.
    """
    run, todo = RunFolder(output), []
    for position, image_id in enumerate(source.ids):
        file = mask_path(masks, image_id)
        if file.is_file() and (overwrite or _is_older(run.overlay(image_id), file)):
            todo.append(position)
    pictures = batches_of_equal_size(source, todo, batch_size=1)
    for [picture] in tqdm(pictures, "overlays", len(todo), unit="image", disable=None):
        image, image_id = picture.image, source.ids[picture.position]
        file = mask_path(masks, image_id)
        mask = load_mask(file)
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{file}: is {mask.shape[1]}x{mask.shape[0]} (width x height), its picture "
                f"{image.shape[1]}x{image.shape[0]}; infer with --overwrite."
            )
        with atomic_path(run.overlay(image_id)) as temporary:
            Image.fromarray(overlay(image, mask, has_background)).save(temporary, quality=90)
    print(f"{len(todo)} overlays written: {run.overlays}")


def overlay(image, mask, has_background=True):
    """Return a picture half covered by its mask's colours, with their outlines in full.

    Args:
      image: uint8 [h, w, 3].
      mask: uint8 [h, w]; pixels of 255 keep the picture's colours.
      has_background: so do those of 0.

    Returns:
      uint8 [h, w, 3].
    """
    colours = palette()[mask]
    shown = (mask != IGNORE) & ((mask > 0) | (not has_background))
    edge = np.zeros(mask.shape, bool)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    half = (image.astype(np.uint16) + colours) // 2
    result = np.where(shown[..., None], half, image)
    return np.where((shown & edge)[..., None], colours, result).astype(np.uint8)


def _is_older(path, than):
    return not path.is_file() or path.stat().st_mtime_ns < than.stat().st_mtime_ns
