"""CAM files and pseudo labels for every image of a source."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from wsss_tf import images, run_folder
from wsss_tf.evaluation.threshold_sweep import label_pixels


def label_source(
    compute,
    source,
    output,
    background_threshold=0.26,
    label_threshold=0.5,
    batch_size=8,
    overwrite=False,
):
    """Write `cams/<id>.npz` and `pseudo_labels/<id>.png` for every image of a source.

    Args:
      compute: `multi_scale_cam.MultiScaleCam` or `grad_cam.GradCam`.
      source: `data.source.Source`. Only classes in an image's labels are kept; where the whole
        source has no labels, the classes whose probability exceeds `label_threshold`.
      output: folder, a `pathlib.Path`.
      background_threshold: a pixel belongs to its strongest class if that scores above this.
      label_threshold: in [0, 1].
      batch_size: images of equal size that follow each other are run together.
      overwrite: write again what is there; otherwise an image with both files is left alone.

    Returns:
      (written, kept): numbers of images.
    """
    labelled = bool(source.labels.any())
    cam_folder, label_folder = output / "cams", output / "pseudo_labels"

    def is_done(image_id):
        return (
            run_folder.cam_path(cam_folder, image_id).is_file()
            and (label_folder / f"{image_id}.png").is_file()
        )

    todo = [i for i, image_id in enumerate(source.ids) if overwrite or not is_done(image_id)]
    kept = len(source) - len(todo)
    with tqdm(total=len(todo), desc=f"CAMs of {source.split}", unit="image", disable=None) as bar:
        for batch in batches_of_equal_size(source, todo, batch_size):
            pictures = np.stack([image for _, image in batch])
            labels = source.labels[[position for position, _ in batch]] if labelled else None
            for (position, _), classes, maps in zip(
                batch, *present_maps(compute, pictures, labels, label_threshold)
            ):
                write_labels(output, source.ids[position], classes, maps, background_threshold)
            bar.update(len(batch))
    return len(todo), kept


def present_maps(compute, pictures, labels, label_threshold):
    """Return which classes pictures of equal size show, and where.

    Args:
      compute: as in `label_source`.
      pictures: uint8 [B, h, w, 3].
      labels: float32 [B, C], multi-hot; None takes the classes whose probability exceeds
        `label_threshold`.
      label_threshold: in [0, 1].

    Returns:
      (list of int [P], mask values, list of float16 [P, h, w] in [0, 1]), one each a picture.
    """
    outputs = compute(pictures, labels)
    cams, probabilities = outputs["cams"].numpy(), outputs["probabilities"].numpy()
    present = probabilities > label_threshold if labels is None else labels > 0
    class_ids = [np.flatnonzero(row) + 1 for row in present]
    maps = [one.transpose(2, 0, 1)[ids - 1] for one, ids in zip(cams, class_ids)]
    return class_ids, [one.astype(np.float16) for one in maps]


def write_labels(output, image_id, class_ids, maps, background_threshold):
    """Write the CAM file and the pseudo label of one image, of maps as `present_maps` gives."""
    run_folder.save_cams(output / "cams", image_id, class_ids, maps)
    pseudo_label = label_pixels(class_ids, maps, background_threshold)
    images.save_mask(output / "pseudo_labels" / f"{image_id}.png", pseudo_label)


def batches_of_equal_size(source, positions, batch_size, max_pixels=None):
    """Yield lists of (position, image uint8 [h, w, 3]): neighbours of equal size.

    Args:
      source: `data.source.Source`.
      positions: ints, in the order wanted.
      batch_size: at most so many in a list.
      max_pixels: at most so many pixels in a list of more than one; None for no bound.
    """
    if not positions:
        return
    chosen = tf.constant(positions, tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices(chosen)
    dataset = dataset.map(
        lambda i: (i, source.read(i)["image"]), num_parallel_calls=2, deterministic=True
    )
    batch = []
    for position, image in dataset.prefetch(2 * batch_size).as_numpy_iterator():
        pixels = (len(batch) + 1) * image.shape[0] * image.shape[1]
        is_full = len(batch) == batch_size or (max_pixels is not None and pixels > max_pixels)
        if batch and (is_full or batch[0][1].shape != image.shape):
            yield batch
            batch = []
        batch.append((int(position), image))
    yield batch
