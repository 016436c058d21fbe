"""The dense CRF on the CAMs of a whole split, over worker processes. No TensorFlow by itself."""

from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference import cam_crf
from wsss_tf.inference.dense_crf import CAM_CRF, prepare
from wsss_tf.inference.picture_batches import batches_of_equal_size, progress, sizes_of
from wsss_tf.inference.process_pool import map_in_processes


def crf_source(
    source,
    run_dir,
    processes=None,
    parameters=CAM_CRF,
    powers=cam_crf.BACKGROUND_POWERS,
    overwrite=False,
    max_side=None,
):
    """Write CRF marginals and labels for every image of a source that has a CAM file.

    Args:
      source: `data.source.Source`, or `files.cam_record.PictureFiles`.
      run_dir: folder with `cams/`; see `files.run_folder` for what is written.
      processes: worker processes; None for one a processor core, and for none beside this one
        where TensorFlow computes it, with threads or a GPU of its own.
      parameters: `dense_crf.CrfParameters`.
      powers: the low and the high background power.
      overwrite: write again what is there; otherwise images with files newer than their CAMs are
        left alone, so an interrupted stage goes on where it stopped.
      max_side: on larger images the CRF runs at this longer side, pixels, for which its widths are,
        and its marginals are brought back to their own size bilinearly; None for no limit.

    Returns:
      (written, kept): numbers of images.

    Raises:
      UserError: CAM files are missing, broken or of another size; `parameters` want pydensecrf, and
        it is not installed.
    """
    run = RunFolder(run_dir)
    run.require_cams(source.ids, source.split)
    todo = [
        position
        for position, image_id in enumerate(source.ids)
        if overwrite or not cam_crf.is_refined(run, image_id)
    ]

    run_on_pictures(
        cam_crf.refine, source, todo, run, parameters, powers, "CRF", processes, max_side
    )
    return len(todo), len(source) - len(todo)


def run_on_pictures(
    function, source, positions, run, parameters, settings, what, processes=None, max_side=None
):
    """Run a dense CRF on pictures of a source and their CAMs, over worker processes.

    Args:
      function: of a module without TensorFlow, called with (run, image_id, image uint8 [h, w, 3],
        parameters, settings, (H, W)) for each picture, the last being its own size.
      source, run, parameters, processes, max_side: as in `crf_source`.
      positions: of the pictures, ints.
      settings: what else the function needs.
      what: it does, for the progress bar.

    Raises:
      Whatever `function` raises.
    """
    if not positions:
        return

    prepare(parameters)
    if processes is None and parameters.library == "tensorflow":
        processes = 1

    def arguments():
        for [picture] in batches_of_equal_size(source, positions, batch_size=1, max_side=max_side):
            image_id = source.ids[picture.position]
            yield run, image_id, picture.image, parameters, settings, picture.size

    sizes = sizes_of(source, positions, max_side)
    with progress(source, positions, what, sizes, max_side) as done:
        results = map_in_processes(function, arguments(), processes)
        for _, position in zip(results, positions):
            done(position)
