"""What VOC 2012 and PASCAL-Context share: a VOCdevkit, and masks in MATLAB files."""

import pathlib

import scipy.io
import tqdm

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.picture_files import find_files

# SciPy has an error of its own beside those of an array or struct that is not as it should be.
_BROKEN_MAT = (
    scipy.io.matlab.MatReadError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
)


def devkit_folder(devkit, year, argument):
    """Return the folder that holds JPEGImages: the given one, or that of a year below it.

    Args:
      devkit: path of a VOCdevkit folder, or of the year's folder in it.
      year: such as "VOC2012".
      argument: what sets `devkit`, for messages.

    Raises:
      UserError: it is not set, or has no such folder.
    """
    if not devkit:
        raise UserError(f"{argument} is not set; bind it to the VOCdevkit of {year}.")
    devkit = pathlib.Path(devkit).expanduser()
    for folder in (devkit, devkit / year, devkit / "VOCdevkit" / year):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"{argument} = {str(devkit)!r}: no {year}/JPEGImages in it.")


def convert_masks(ids, mat_folder, folder, read, what, argument):
    """Write masks of .mat files as palette PNGs, those that are not there yet.

    Args:
      ids: the masks are MAT_FOLDER/ID.mat.
      mat_folder: a `pathlib.Path`.
      folder: of the PNGs; may be interrupted and started again.
      read: function of what `scipy.io.loadmat` gives to a mask, integer [h, w].
      what: a mask is called in messages, such as "an SBD mask".
      argument: what sets `folder`, for messages.

    Returns:
      {id: path of the PNG}.

    Raises:
      UserError: a file is missing or broken, or the folder cannot be written.
    """
    folder = pathlib.Path(folder).expanduser()
    paths = {image_id: str(folder / f"{image_id}.png") for image_id in ids}
    done = find_files(folder, (".png",))
    to_convert = [image_id for image_id in ids if image_id not in done]
    for image_id in tqdm.tqdm(to_convert, "converting masks", leave=False, delay=1):
        source = mat_folder / f"{image_id}.mat"
        try:
            mask = read(scipy.io.loadmat(source))
        except _BROKEN_MAT as error:
            raise UserError(f"{source}: cannot be read as {what}: {error}") from error
        try:
            images.save_mask(paths[image_id], mask)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); bind {argument} to a folder for "
                "these masks as PNG."
            ) from error
    return paths
