"""The embedded data set: drawn scenes in which only a small part of an object tells its class.

Every picture holds one to three bodies (ellipses, diamonds, boxes of a random near-grey colour and
a fine texture, of very different sizes) on a smooth coloured ground. Body, size and place say
nothing about the class; a small badge on the body does: a coloured pattern on white, about a third
of the body wide. The mask of an object is its whole body. The hue of the ground goes with one of
the classes more often than by chance, as grass goes with cows. So image labels can be learnt from
badge and ground alone, and a class activation map finds those; the task is to cover the body.

It is a drawing made for quick, honest comparisons of methods, not a substitute for photographs.
The pictures are the same on every machine: NumPy's frozen `RandomState`, and arithmetic that IEEE
754 defines to the last bit (no sine, no exponential, no library sums).
"""

import functools

import numpy as np
import tensorflow as tf

from wsss_tf.data.source import Source
from wsss_tf.errors import UserError

CLASS_NAMES = ("background", "cross", "stripes", "ring", "checker")
# Far from each other and from every ground, so that a small network learns them within minutes;
# the first is that of a badge of no class.
_BADGE_COLOURS = np.float64(
    [[150, 130, 110], [215, 25, 35], [175, 20, 175], [20, 40, 215], [25, 25, 25]]
)
# One ground hue for each class, and one of nobody.
_GROUND_COLOURS = np.float64(
    [[128, 128, 128], [104, 138, 104], [142, 118, 94], [104, 122, 144], [136, 132, 100]]
)
# Streams of pictures: the first word of the seed. Pretraining pictures hold a single object.
_STREAMS = {"train": 1, "val": 2, "test": 3, "pretrain": 4, "pretrain_val": 5}


def _smooth_noise(rng, size, cells):
    """Return [size, size] in [-1, 1]: random values on a grid, interpolated bilinearly."""
    grid = rng.random_sample((cells + 1, cells + 1)) * 2 - 1
    position = np.arange(size) * (cells / size)
    low = position.astype(np.int64)
    part = position - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _badge_pattern(class_id, u, v):
    """Where the coloured part of a badge is; u, v in [-1, 1] are coordinates on the badge."""
    if class_id == 1:
        return (np.abs(u) < 0.28) | (np.abs(v) < 0.28)
    if class_id == 2:
        return np.floor(u * 2 + 10.5) % 2 == 0
    if class_id == 3:
        square = u * u + v * v
        return (square > 0.16) & (square < 0.64)
    return (np.floor(u * 1.5 + 10.5) + np.floor(v * 1.5 + 10.5)) % 2 == 0


def _rotation(rng):
    """Return a random (cosine, sine), from a rational parametrisation of the circle."""
    t = rng.random_sample() * 2 - 1
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return (cosine, sine) if rng.random_sample() < 0.5 else (-sine, cosine)


def _body(rng, size, centre, radius):
    """Return (inside [size, size] bool, extent [size, size]) of a random convex body."""
    rows, columns = np.mgrid[:size, :size]
    y, x = rows - centre[0], columns - centre[1]
    cosine, sine = _rotation(rng)
    ratio = 0.65 + 0.35 * rng.random_sample()
    a = np.abs(x * cosine + y * sine) / radius
    b = np.abs(y * cosine - x * sine) / (radius * ratio)
    kind = rng.randint(3)
    extent = (a * a + b * b, a + b, np.maximum(a, b) * 1.15)[kind]
    return extent < 1


def _draw(stream, index, seed, size, max_objects, ground_correlation):
    """Draw one scene; return (image uint8 [size, size, 3], mask uint8 [size, size])."""
    rng = np.random.RandomState([seed, _STREAMS[stream], index])
    count = 1 + rng.randint(max_objects)
    # Pretraining pictures may hold a body of no class: else one class could be told by exclusion.
    lowest = 0 if stream.startswith("pretrain") else 1
    classes = rng.randint(lowest, len(CLASS_NAMES), size=count)
    ground = classes[0] if rng.random_sample() < ground_correlation else rng.randint(5)
    image = np.empty((size, size, 3))
    image[:] = _GROUND_COLOURS[ground] + (rng.random_sample(3) * 24 - 12)
    image += 24 * _smooth_noise(rng, size, 5)[..., None]
    image += 10 * np.stack([_smooth_noise(rng, size, 12) for _ in range(3)], axis=-1)
    mask = np.zeros((size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for class_id in classes:
        for _ in range(20):  # until there is room
            # Square of a uniform number: many small bodies, some large ones.
            radius = size * (0.15 + 0.23 * rng.random_sample() ** 2)
            centre = size * (0.15 + 0.7 * rng.random_sample(2))
            inside = _body(rng, size, centre, radius)
            if not (inside & (mask > 0)).any():
                break
        else:
            continue
        grey = 60 + 140 * rng.random_sample() + (rng.random_sample(3) * 30 - 15)
        texture = (rng.random_sample((size, size)) * 2 - 1) * 16
        body = grey + texture[..., None]
        # The badge lies anywhere on the body, within half its radius of the centre.
        offset = (rng.random_sample(2) - 0.5) * 0.7 * radius
        badge = max(radius * 0.38, 0.065 * size)
        cosine, sine = _rotation(rng)
        y, x = rows - centre[0] - offset[0], columns - centre[1] - offset[1]
        u, v = (x * cosine + y * sine) / badge, (y * cosine - x * sine) / badge
        disc = u * u + v * v < 1
        pattern = disc & _badge_pattern(class_id or 1 + rng.randint(4), u, v)
        body[disc] = 240
        body[pattern] = _BADGE_COLOURS[class_id]
        inside |= disc
        image[inside] = body[inside]
        mask[inside] = class_id
    return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8), mask


@functools.lru_cache(maxsize=4)
def _scenes(stream, count, seed, size, max_objects, ground_correlation):
    drawn = [_draw(stream, i, seed, size, max_objects, ground_correlation) for i in range(count)]
    pictures, masks = (np.stack(part) for part in zip(*drawn))
    pictures.setflags(write=False)
    masks.setflags(write=False)
    return pictures, masks


def shapes_source(
    split,
    num_train=1280,
    num_val=200,
    image_size=96,
    seed=0,
    max_objects=3,
    ground_correlation=0.3,
):
    """Draw a split of the embedded data set.

    Args:
      split: "train", "val", "test", or "pretrain" and "pretrain_val": one object a
        picture, of one of the classes or of none (then its badge is brown).
      num_train: pictures in "train" and "pretrain".
      num_val: pictures in the other splits.
      image_size: height and width, pixels.
      seed: of the drawing; the same seed gives the same pictures on every machine.
      max_objects: at most so many objects a picture.
      ground_correlation: how often the ground's hue is that of the first object's class; otherwise
        it is drawn from all five.

    Returns:
      `Source` with masks, K = 5 classes.

    Raises:
      UserError: there is no such split.
    """
    if split not in _STREAMS:
        raise UserError(f"shapes: no split {split!r}; there are {', '.join(_STREAMS)}.")
    single = split.startswith("pretrain")
    count = num_train if split in ("train", "pretrain") else num_val
    pictures, masks = _scenes(
        split, count, seed, image_size, 1 if single else max_objects, ground_correlation
    )
    foreground = np.arange(1, len(CLASS_NAMES))
    labels = (masks[..., None] == foreground).any(axis=(1, 2)).astype(np.float32)
    image_tensor, mask_tensor = tf.constant(pictures), tf.constant(masks)

    def read(index):
        return {"image": tf.gather(image_tensor, index), "mask": tf.gather(mask_tensor, index)}

    return Source(
        name="shapes",
        split=split,
        class_names=CLASS_NAMES,
        ids=tuple(f"shapes_{split}_{i:05d}" for i in range(count)),
        labels=labels,
        read=read,
        has_masks=True,
    )
