"""The pictures of a source as they are labelled, and how far that has come.

TensorFlow is imported where it reads them, in a graph.
"""

import contextlib
import time
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from wsss_tf.errors import warn
from wsss_tf.files.cam_record import PictureFiles
from wsss_tf.files.pictures import limit_side

# Above so many pixels, at full size, a picture takes minutes.
_LARGE = 2**22
# Seconds after which a rate is known.
_WATCHED = 15
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
def progress(source, positions, what, sizes, max_side=None):
    """Show how far it has come; yield a function to call with each finished position.

    On a terminal that is a bar. It counts pixels, after `max_side`, since a large picture takes
    longer than a small one; of pictures that are in no files it counts pictures. Elsewhere it is
    one line, once the rate is known, if there are minutes to go. Of pictures that are so large that
    each takes minutes there is a warning before the first.

    Args:
      source: `data.source.Source`.
      positions: those to be done.
      what: what they are done for, such as "CAMs".
      sizes: of these positions, as `sizes_of` gives with this `max_side`.
      max_side: as in `batches_of_equal_size`.
    """
    work, unit = dict.fromkeys(positions, 1), {"unit": "image"}
    if sizes is not None:
        pixels = {i: round(width * height) for i, (width, height) in sizes.items()}
        work, unit = pixels, {"unit": "px", "unit_scale": True}
        if max_side is None and (large := sum(n > _LARGE for n in pixels.values())):
            warn(
                f"{large} pictures of up to {max(pixels.values()) / 1e6:.0f} megapixels, which can "
                "take minutes and gigabytes each; --max_side=1024 has the network see them smaller."
            )
    title, total = f"{what} of {source.split}", sum(work.values())
    bar = tqdm(total=total, desc=title, disable=None, **unit)
    forecast = _Forecast(title, total) if bar.disable else None
    with bar:

        def done(position):
            bar.update(work[position])
            if forecast is not None:
                forecast.update(work[position])

        yield done


class _Forecast:
    """Says once how long the rest will take, by the rate behind the first picture.

    (The first is slow: graphs are made for it.)
    """

    def __init__(self, title, total):
        self.title = title
        self.rest = total
        self.done = 0
        self.started = None
        self.said = False

    def update(self, amount):
        """Count a finished part of the work."""
        self.rest -= amount
        if self.started is None:
            self.started = time.monotonic()
            return
        self.done += amount
        seconds = time.monotonic() - self.started
        if seconds < _WATCHED or self.said:
            return
        self.said = True
        minutes = seconds / self.done * self.rest / 60
        if minutes >= 1:
            print(f"{self.title}: about {minutes:.0f} minutes to go.", flush=True)


def sizes_of(source, positions, max_side=None):
    """Return {position: (width, height)} of pictures as they are labelled, from the files' headers.

    They are not rounded. None where there are no files, or one whose header does not tell.
    """
    if source.paths is None:
        return None
    limits = [side for side in (source.max_side, max_side) if side is not None]
    sizes = {}
    for position in positions:
        try:
            with Image.open(source.paths[position]) as picture:
                width, height = picture.size
        except (OSError, Image.DecompressionBombError):
            return None
        longer = max(width, height)
        factor = min([longer, *limits]) / longer
        sizes[position] = width * factor, height * factor
    return sizes


def in_order_of_size(positions, sizes):
    """Return positions in an order in which pictures of one size follow each other.

    They can share batches then, and oneDNN, which builds its convolutions anew for each size, does
    so once: 0.09 s for four scales of EfficientNet-Lite0, which take 0.24 s at 160 x 120 pixels.

    Args:
      positions: ints.
      sizes: as `sizes_of` gives; None leaves the order as it is.
    """
    if sizes is None:
        return positions
    return sorted(positions, key=lambda position: [round(side) for side in sizes[position]])
