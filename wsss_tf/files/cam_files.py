"""CAM files as the input of a later stage. No TensorFlow: worker processes read them too."""

import zipfile

from wsss_tf.errors import UserError
from wsss_tf.files import run_folder


def require(source, run_dir):
    """Check that every image of a source has a CAM file.

    Raises:
      UserError: some have none; how many, and the first.
    """
    missing = [i for i in source.ids if not run_folder.cam_path(run_dir / "cams", i).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(source)} images of split {source.split!r} have no CAM file "
            f"(the first: {run_folder.cam_path(run_dir / 'cams', missing[0])}); first run: "
            f"python -m wsss_tf.infer --run_dir={run_dir} --split={source.split}"
        )


def load(run_dir, image_id, size):
    """Return (class_ids int32 [P], cams float16 [P, h, w]) of an image.

    Args:
      run_dir: folder with `cams/`, a `pathlib.Path`.
      image_id: string.
      size: (h, w) of the image.

    Raises:
      UserError: the file is missing, broken, or of an image of another size.
    """
    path = run_folder.cam_path(run_dir / "cams", image_id)
    try:
        class_ids, cams = run_folder.load_cams(run_dir / "cams", image_id)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read as a CAM file: {error}; delete it and infer again."
        ) from error
    if cams.shape[1:] != tuple(size):
        raise UserError(
            f"{path}: its CAMs are {'x'.join(map(str, cams.shape[1:]))}, the image is "
            f"{'x'.join(map(str, size))} (height x width); infer with --overwrite."
        )
    return class_ids, cams
