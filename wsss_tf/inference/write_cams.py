"""CAM files and pseudo labels for every image of a source."""

import numpy as np

from wsss_tf.evaluation.threshold_sweep import label_pixels
from wsss_tf.files import images, run_folder
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.map_sizes import resize_maps
from wsss_tf.inference.picture_batches import (
    batches_of_equal_size,
    in_order_of_size,
    progress,
    sizes_of,
)


def label_source(
    compute,
    source,
    output,
    background_threshold=0.26,
    label_threshold=0.5,
    batch_size=8,
    overwrite=False,
    max_side=None,
):
    """Write `cams/<id>.npz` and `pseudo_labels/<id>.png` for every image of a source.

    Args:
      compute: `multi_scale_cam.MultiScaleCam`, `strided_cam.StridedCam` or `grad_cam.GradCam`.
      source: `data.source.Source`. Only classes in an image's labels are kept; where the whole
        source has no labels, the classes whose probability exceeds `label_threshold`.
      output: folder.
      background_threshold: a pixel belongs to its strongest class if that scores above this.
      label_threshold: in [0, 1].
      batch_size: so many images of equal size are run together, and at most about a million pixels.
      overwrite: write again what is there; otherwise an image with both files is left alone.
      max_side: larger images are run at this longer side, pixels, and their maps brought back to
        their own size bilinearly; None for no limit.

    Returns:
      (written, kept): numbers of images.
    """
    labelled = bool(source.labels.any())
    run = RunFolder(output)

    def is_done(image_id):
        return run.cam(image_id).is_file() and run.pseudo_label(image_id).is_file()

    todo = [i for i, image_id in enumerate(source.ids) if overwrite or not is_done(image_id)]
    kept = len(source) - len(todo)
    sizes = sizes_of(source, todo, max_side)
    with progress(source, todo, "CAMs", sizes, max_side) as done:
        positions = in_order_of_size(todo, sizes)
        for batch in batches_of_equal_size(source, positions, batch_size, max_side):
            labels = source.labels[[picture.position for picture in batch]] if labelled else None
            found = present_maps(compute, batch, labels, label_threshold)
            for picture, classes, maps, strided in zip(batch, *found):
                image_id = source.ids[picture.position]
                write_labels(run, image_id, classes, maps, background_threshold, strided)
                done(picture.position)
    return len(todo), kept


def present_maps(compute, pictures, labels, label_threshold):
    """Return which classes pictures show, and where.

    Args:
      compute: as in `label_source`.
      pictures: list of B `picture_batches.Picture`, of one image size.
      labels: float32 [B, C], multi-hot; None takes the classes whose probability exceeds
        `label_threshold`.
      label_threshold: in [0, 1].

    Returns:
      (list of int [P], mask values, list of float16 [P, H, W] in [0, 1], of the pictures' own
      sizes, list of float16 [P, h, w] on the walk's grid, or None where there are no such maps),
      one each a picture.
    """
    outputs = compute(np.stack([picture.image for picture in pictures]), labels)
    cams, probabilities = outputs["cams"].numpy(), outputs["probabilities"].numpy()
    present = probabilities > label_threshold if labels is None else labels > 0
    class_ids = [np.flatnonzero(row) + 1 for row in present]
    maps = [
        resize_maps(one.transpose(2, 0, 1)[ids - 1], picture.size).astype(np.float16)
        for one, ids, picture in zip(cams, class_ids, pictures)
    ]
    strided = [None] * len(pictures)
    if "strided_cams" in outputs:
        on_grid = outputs["strided_cams"].numpy()
        strided = [
            one.transpose(2, 0, 1)[ids - 1].astype(np.float16)
            for one, ids in zip(on_grid, class_ids)
        ]
    return class_ids, maps, strided


def write_labels(output, image_id, class_ids, maps, background_threshold, strided=None):
    """Write the CAM file and the pseudo label of one image, of maps as `present_maps` gives."""
    run = RunFolder(output)
    run_folder.save_cams(run.cams, image_id, class_ids, maps, strided)
    pseudo_label = label_pixels(class_ids, maps, background_threshold)
    images.save_mask(run.pseudo_label(image_id), pseudo_label)
