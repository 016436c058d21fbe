"""The dense CRF on the CAMs of a whole split, over worker processes."""

from tqdm import tqdm

from wsss_tf.inference import cam_crf, cam_files
from wsss_tf.inference.dense_crf import CAM_CRF
from wsss_tf.inference.label import batches_of_equal_size
from wsss_tf.inference.process_pool import map_in_processes


def crf_source(
    source,
    run_dir,
    processes=None,
    parameters=CAM_CRF,
    powers=cam_crf.BACKGROUND_POWERS,
    overwrite=False,
):
    """Write CRF marginals and labels for every image of a source that has a CAM file.

    Args:
      source: `data.source.Source`.
      run_dir: folder with `cams/`, a `pathlib.Path`; see `wsss_tf.run_folder` for what is written.
      processes: worker processes; None for one a processor core.
      parameters: `dense_crf.CrfParameters`.
      powers: the low and the high background power.
      overwrite: write again what is there; otherwise images with files newer than their CAMs are
        left alone, so an interrupted stage goes on where it stopped.

    Returns:
      (written, kept): numbers of images.

    Raises:
      UserError: CAM files are missing, broken or of another size; pydensecrf is not installed.
    """
    cam_files.require(source, run_dir)
    todo = [
        position
        for position, image_id in enumerate(source.ids)
        if overwrite or not cam_crf.is_refined(run_dir, image_id)
    ]

    def arguments():
        for [(position, image)] in batches_of_equal_size(source, todo, batch_size=1):
            yield run_dir, source.ids[position], image, parameters, powers

    results = map_in_processes(cam_crf.refine, arguments(), processes) if todo else ()
    for _ in tqdm(results, f"CRF of {source.split}", len(todo), unit="image", disable=None):
        pass
    return len(todo), len(source) - len(todo)
