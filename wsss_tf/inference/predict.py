"""Predicted masks for every image of a source."""

import numpy as np
from tqdm import tqdm

from wsss_tf import images
from wsss_tf.inference.label import batches_of_equal_size

# Of pictures run together: small ones share a batch, a large one is alone.
_MAX_PIXELS = 2**20


def predict_source(predict, source, output, postprocess=None, batch_size=8, overwrite=False):
    """Write `predictions/<id>.png`, a palette mask with values 0..K-1, for every image of a source.

    Args:
      predict: function of pictures uint8 [B, H, W, 3] to probabilities [B, H, W, K], such as
        `segment.MultiScalePredictor`.
      source: `data.source.Source`; its masks and labels are not used.
      output: folder, a `pathlib.Path`.
      postprocess: function of (probabilities float32 [h, w, K], image uint8 [h, w, 3]) to
        probabilities [h, w, K], such as a CRF; None to take them as they are.
      batch_size: at most so many images of equal size that follow each other are run together, and
        about a million pixels.
      overwrite: write again what is there; otherwise an image with a file is left alone.

    Returns:
      (written, kept): numbers of images.
    """
    folder = output / "predictions"
    todo = [
        i
        for i, image_id in enumerate(source.ids)
        if overwrite or not (folder / f"{image_id}.png").is_file()
    ]
    with tqdm(total=len(todo), desc=f"masks of {source.split}", unit="image", disable=None) as bar:
        for batch in batches_of_equal_size(source, todo, batch_size, _MAX_PIXELS):
            probabilities = predict(np.stack([image for _, image in batch])).numpy()
            for (position, image), scores in zip(batch, probabilities):
                if postprocess is not None:
                    scores = postprocess(scores, image)
                mask = np.argmax(scores, axis=-1).astype(np.uint8)
                images.save_mask(folder / f"{source.ids[position]}.png", mask)
            bar.update(len(batch))
    return len(todo), len(source) - len(todo)
