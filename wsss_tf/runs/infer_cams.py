"""Class activation maps and pseudo labels, of a network that gives them."""

import collections

from wsss_tf.errors import UserError
from wsss_tf.files.cam_record import make_record, save_record
from wsss_tf.files.folder_layout import label_table
from wsss_tf.files.run_folder import RunFolder, write_text
from wsss_tf.runs.cam_run import CamRun


def map_options(recipe, method="cam", cam_output=None, scales=None, flip=None):
    """Return what `make_maps` takes beside the network.

    Args:
      recipe: of the run.
      method: "cam", "gradcam" or "gradcam++".
      cam_output: network output for the first; None for the recipe's.
      scales, flip: None for those of the paper.

    Raises:
      UserError: `cam_output` with another method.
    """
    from wsss_tf.inference.multi_scale_cam import SCALES

    if method != "cam" and cam_output:
        raise UserError(f"--cam_output means nothing for --method={method}.")
    return {
        "method": method,
        "cam_output": cam_output or recipe.cam_output,
        "scales": scales or SCALES,
        "flip": flip is not False,
        "merging": recipe.cam_merging,
    }


def make_maps(net, method="cam", cam_output="cam", scales=(1.0,), flip=False, merging="seam"):
    """Return the function of pictures to maps: `MultiScaleCam`, `StridedCam` or `GradCam`.

    Args:
      net: the network.
      method, cam_output, scales, flip: as in `map_options`.
      merging: as `Recipe.cam_merging`; means nothing for other methods than "cam".

    Raises:
      UserError: the network has no such output, or no head that the method can be used with; or
        there is no such merging.
    """
    from wsss_tf.inference.grad_cam import GradCam
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam
    from wsss_tf.inference.strided_cam import StridedCam

    kinds = {"seam": MultiScaleCam, "irn": StridedCam}
    if merging not in kinds:
        raise UserError(f"Recipe.cam_merging = {merging!r}; there are {', '.join(kinds)}.")
    if method == "cam":
        return kinds[merging](net, cam_output, scales, flip)
    try:
        return GradCam(net, method, scales, flip)
    except ValueError as error:
        raise UserError(f"--method={method}: {error}") from error


def infer_cams(
    run,
    compute,
    source,
    output,
    background_threshold=None,
    label_threshold=0.5,
    batch_size=8,
    overwrite=False,
    max_side=None,
):
    """Write CAMs and pseudo labels for every image of a source, and a record of what they are of.

    Args:
      run: `trained_run.TrainedRun`.
      compute: as `make_maps` gives.
      source: `data.source.Source`.
      output: folder.
      background_threshold: None for the run's.
      label_threshold, batch_size, overwrite, max_side: as in `inference.write_cams.label_source`.

    Returns:
      `cam_run.CamRun`, for the dense CRF and the random walk.
    """
    from wsss_tf.inference.write_cams import label_source

    threshold = run.threshold(background_threshold)
    folder = RunFolder(output)
    # First, so that CAMs that are there have one, whenever this may be interrupted.
    save_record(folder, make_record(source, run.folder, run.gin_bindings, threshold, max_side))
    written, kept = label_source(
        compute, source, folder, threshold, label_threshold, batch_size, overwrite, max_side
    )
    print(f"{written} written, {kept} kept: {folder.cams}, {folder.pseudo_labels}")
    if not source.labels.any():
        _write_found_labels(run, source, folder)
    return CamRun(folder, source, threshold, max_side, run.folder)


def _write_found_labels(run, source, folder):
    """Write which classes were found in pictures without labels, and say how often each was."""
    found = {
        image_id: [run.class_names[i] for i in folder.read_class_ids(image_id)]
        for image_id in source.ids
    }
    write_text(folder.found_labels, label_table(found))
    counts = collections.Counter(name for names in found.values() for name in names)
    in_words = ", ".join(f"{name} {counts[name]}" for name in run.class_names if counts[name])
    without = sum(not names for names in found.values())
    print(f"found: {in_words or 'nothing'}; no class in {without} of {len(found)} pictures")
    print(f"{folder.found_labels} lists them; --label_threshold sets how sure one must be.")
