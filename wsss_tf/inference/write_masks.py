"""Predicted masks for every image of a source."""

import numpy as np

from wsss_tf.files import images
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.map_sizes import strongest_at
from wsss_tf.inference.picture_batches import (
    batches_of_equal_size,
    in_order_of_size,
    progress,
    sizes_of,
)


def predict_source(
    predict, source, output, postprocess=None, batch_size=8, overwrite=False, max_side=None
):
    """Write `predictions/<id>.png`, a palette mask with values 0..K-1, for every image of a source.

    Args:
      predict: function of pictures uint8 [B, H, W, 3] to probabilities [B, H, W, K], such as
        `segment.MultiScalePredictor`.
      source: `data.source.Source`; its masks and labels are not used.
      output: folder.
      postprocess: function of (probabilities float32 [h, w, K], image uint8 [h, w, 3]) to
        probabilities [h, w, K], such as a CRF; None to take them as they are.
      batch_size: so many images of equal size are run together, and at most about a million pixels.
      overwrite: write again what is there; otherwise an image with a file is left alone.
      max_side: larger images are run at this longer side, pixels, `postprocess` too, and their
        probabilities brought to their own size bilinearly before the argmax; None for no limit.

    Returns:
      (written, kept): numbers of images.
    """
    run = RunFolder(output)
    todo = [
        i
        for i, image_id in enumerate(source.ids)
        if overwrite or not run.prediction(image_id).is_file()
    ]
    sizes = sizes_of(source, todo, max_side)
    with progress(source, todo, "masks", sizes, max_side) as done:
        positions = in_order_of_size(todo, sizes)
        for batch in batches_of_equal_size(source, positions, batch_size, max_side):
            probabilities = predict(np.stack([picture.image for picture in batch])).numpy()
            for picture, scores in zip(batch, probabilities):
                if postprocess is not None:
                    scores = postprocess(scores, picture.image)
                mask = strongest_at(scores, picture.size).astype(np.uint8)
                images.save_mask(run.prediction(source.ids[picture.position]), mask)
                done(picture.position)
    return len(todo), len(source) - len(todo)
