"""The dense CRF on the CAMs of a whole split, over worker processes."""

import tensorflow as tf
from tqdm import tqdm

from wsss_tf import run_folder
from wsss_tf.errors import UserError
from wsss_tf.inference import cam_crf
from wsss_tf.inference.dense_crf import CAM_CRF
from wsss_tf.inference.process_pool import map_in_processes


def crf_source(source, run_dir, processes=None, parameters=CAM_CRF, overwrite=False):
    """Write CRF marginals and labels for every image of a source that has a CAM file.

    Args:
      source: `data.source.Source`.
      run_dir: folder with `cams/`, a `pathlib.Path`; see `wsss_tf.run_folder` for what is written.
      processes: worker processes; None for one a processor core.
      parameters: `dense_crf.CrfParameters`.
      overwrite: write again what is there; otherwise images with files newer than their CAMs are
        left alone, so an interrupted stage goes on where it stopped.

    Returns:
      (written, kept): numbers of images.

    Raises:
      UserError: CAM files are missing, broken or of another size; pydensecrf is not installed.
    """
    missing = [
        image_id
        for image_id in source.ids
        if not run_folder.cam_path(run_dir / "cams", image_id).is_file()
    ]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(source)} images of split {source.split!r} have no CAM file "
            f"(the first: {run_folder.cam_path(run_dir / 'cams', missing[0])})."
        )
    todo = [
        position
        for position, image_id in enumerate(source.ids)
        if overwrite or not cam_crf.is_refined(run_dir, image_id)
    ]

    def arguments():
        for position, image in _images(source, todo):
            yield run_dir, source.ids[position], image, parameters

    results = map_in_processes(cam_crf.refine, arguments(), processes) if todo else ()
    for _ in tqdm(results, f"CRF of {source.split}", len(todo), unit="image", disable=None):
        pass
    return len(todo), len(source) - len(todo)


def _images(source, positions):
    """Yield (position, image uint8 [h, w, 3]) in order, read ahead a little."""
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(positions, tf.int64))
    dataset = dataset.map(
        lambda i: (i, source.read(i)["image"]), num_parallel_calls=2, deterministic=True
    )
    for position, image in dataset.prefetch(4).as_numpy_iterator():
        yield int(position), image
