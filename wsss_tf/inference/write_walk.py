"""Pseudo labels by the random walk for every image of a source."""

import numpy as np

from wsss_tf.files import images
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.cam_crf import WALK_POWER
from wsss_tf.inference.picture_batches import batches_of_equal_size, progress, sizes_of
from wsss_tf.inference.random_walk import label_by_walk


def walk_source(
    compute,
    source,
    cam_run,
    output,
    background_power=WALK_POWER,
    affinity_power=8.0,
    steps=64,
    crf=None,
    threshold=None,
    weigh_start=True,
    batch_size=8,
    overwrite=False,
    max_side=None,
):
    """Write `pseudo_labels/<id>.png` for every image of a source.

    Args:
      compute: `random_walk.PictureAffinity` or `boundary_walk.PictureBoundary`.
      source: `data.source.Source`, or `files.cam_record.PictureFiles`.
      cam_run: folder with `cams/`.
      output: folder for `pseudo_labels/`, another than `cam_run`, whose own labels are the CAMs'.
      background_power, affinity_power, steps, crf, threshold, weigh_start: as in
        `label_by_walk`.
      batch_size: images of equal size that follow each other go through the network together.
      overwrite: write again what is there; otherwise labels newer than the CAMs are left alone.
      max_side: on larger images all of it runs at this longer side, pixels; None for no limit.

    Returns:
      (written, kept, lost): numbers of images, and the ids of those written whose label has lost a
      class that the CAMs have.

    Raises:
      UserError: CAM files are missing, broken or of another size.
    """
    cam_run, output = RunFolder(cam_run), RunFolder(output)
    cam_run.require_cams(source.ids, source.split)

    def is_done(image_id):
        label, cam = output.pseudo_label(image_id), cam_run.cam(image_id)
        return label.is_file() and label.stat().st_mtime_ns >= cam.stat().st_mtime_ns

    lost = []
    todo = [i for i, image_id in enumerate(source.ids) if overwrite or not is_done(image_id)]
    sizes = sizes_of(source, todo, max_side)
    with progress(source, todo, "walk", sizes, max_side) as done:
        for batch in batches_of_equal_size(source, todo, batch_size, max_side):
            graphs = compute(np.stack([picture.image for picture in batch]))
            for picture, graph in zip(batch, graphs):
                image_id = source.ids[picture.position]
                class_ids, cams = cam_run.read_cams(image_id, picture.size)
                label = label_by_walk(
                    picture.image,
                    class_ids,
                    cams,
                    graph,
                    background_power=background_power,
                    affinity_power=affinity_power,
                    steps=steps,
                    crf=crf,
                    threshold=threshold,
                    weigh_start=weigh_start,
                    strided_cams=cam_run.read_strided_cams(image_id),
                )
                images.save_mask(output.pseudo_label(image_id), label)
                if not np.isin(class_ids, label).all():
                    lost.append(image_id)
                done(picture.position)
    return len(todo), len(source) - len(todo), lost
