"""The pictures of a source as they are labelled, and how far that has come.

TensorFlow is imported where it reads them, in a graph.
"""

import contextlib
import sys
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from wsss_tf.files.cam_record import PictureFiles
from wsss_tf.files.pictures import limit_side

# Of pictures run together: small ones share a batch, a large one is alone.
_MAX_PIXELS = 2**20


class Picture(NamedTuple):
    """A picture to be labelled.

    Attributes:
      position: in its source.
      image: uint8 [h, w, 3], reduced where it is larger than the limit.
      size: (H, W), its own, which what is written about it has.
    """

    position: int
    image: np.ndarray
    size: tuple


def batches_of_equal_size(source, positions, batch_size, max_side=None):
    """Yield lists of `Picture`: neighbours whose images have one size.

    Args:
      source: `data.source.Source`, or `files.cam_record.PictureFiles`.
      positions: ints, in the order wanted.
      batch_size: at most so many in a list, and about a million pixels.
      max_side: larger pictures are reduced to this longer side, pixels, by `images.limit_side`;
        None for no limit.

    Raises:
      UserError, or of a `Source` `tf.errors.OpError`: a picture cannot be read.
    """
    if not positions:
        return

    read = _from_files if isinstance(source, PictureFiles) else _from_graph
    batch = []
    for picture in read(source, positions, max_side, ahead=2 * batch_size):
        height, width, _ = picture.image.shape
        is_full = len(batch) == batch_size or (len(batch) + 1) * height * width > _MAX_PIXELS
        if batch and (is_full or batch[0].image.shape != picture.image.shape):
            yield batch
            batch = []
        batch.append(picture)
    yield batch


def _from_files(source, positions, max_side, ahead):
    for position in positions:
        image = source.load(position)
        yield Picture(position, limit_side(image, max_side), image.shape[:2])


def _from_graph(source, positions, max_side, ahead):
    import tensorflow as tf

    from wsss_tf.files import images

    @tf.autograph.experimental.do_not_convert
    def read(position):
        image = source.read(position)["image"]
        limited = images.limit_side(image, max_side)
        return position, tf.ensure_shape(limited, [None, None, 3]), tf.shape(image)[:2]

    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(positions, tf.int64))
    dataset = dataset.map(read, num_parallel_calls=2, deterministic=True).prefetch(ahead)
    for position, image, size in dataset.as_numpy_iterator():
        yield Picture(int(position), image, tuple(size.tolist()))


@contextlib.contextmanager
def progress(source, positions, what, max_side=None):
    """Show a progress bar on a terminal; yield a function to call with each finished position.

    The bar counts pixels, after `max_side`, since a large picture takes longer than a small one; of
    pictures that are in no files it counts pictures.

    Args:
      source: `data.source.Source`.
      positions: those to be done.
      what: what they are done for, such as "CAMs".
      max_side: as in `batches_of_equal_size`.
    """
    work, unit = dict.fromkeys(positions, 1), {"unit": "image"}
    if sys.stderr.isatty():
        pixels = pixels_of(source, positions, max_side)
        if pixels is not None:
            work, unit = pixels, {"unit": "px", "unit_scale": True}
    with tqdm(
        total=sum(work.values()), desc=f"{what} of {source.split}", disable=None, **unit
    ) as bar:
        yield lambda position: bar.update(work[position])


def pixels_of(source, positions, max_side=None):
    """Return {position: pixels of the picture as it is labelled}, read from the files' headers.

    None where there are no files, or one whose header does not tell.
    """
    if source.paths is None:
        return None
    limits = [side for side in (source.max_side, max_side) if side is not None]
    pixels = {}
    for position in positions:
        try:
            with Image.open(source.paths[position]) as picture:
                width, height = picture.size
        except (OSError, Image.DecompressionBombError):
            return None
        longer = max(width, height)
        factor = min([longer, *limits]) / longer
        pixels[position] = round(width * height * factor**2)
    return pixels
