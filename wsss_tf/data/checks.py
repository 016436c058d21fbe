"""Find broken files before training does: each is decoded once, by the pipeline's own decoders."""

import concurrent.futures
import functools
import json
import os
import pathlib
import threading

import numpy as np
import tensorflow as tf
import tqdm

from wsss_tf.bounded_map import bounded_map
from wsss_tf.data.source import error_in_short
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.pictures import other_format
from wsss_tf.files.pixel_limit import HINT
from wsss_tf.files.text import is_utf8, printable
from wsss_tf.masks import IGNORE

# Files that are decoded ahead, and looked at behind the first bad one.
_LOOK_ON = 64
# Bad ones that a message names besides the first.
_NAMED = 4
_NO_LABEL = "it has no label"
_HINT = "replace or remove it, or leave such images out with Recipe.skip_bad_images=True."
_LABEL_HINT = (
    "give it the label 'background' if it shows none of the classes (Recipe.require_labels=False "
    "takes all such pictures for that), or leave such images out with Recipe.skip_bad_images=True."
)


def check(source, skip_bad_images=False, cache=None, require_labels=False):
    """Check that every example of a source can be used.

    An example is bad if its name is not UTF-8, its image or mask cannot be decoded, the mask has
    another size than the image or a value that is neither a class (0..K-1) nor 255, or if it has no
    label where one is required. Sources without files are checked for labels only.

    Args:
      source: `data.source.Source`.
      skip_bad_images: leave bad examples out; else the first, and those that are found close
        behind it, are an error.
      cache: path of a JSON file that remembers size and times of the files found good, so that a
        resumed run need not decode them again; None to remember nothing. It is not used where there
        are masks: a source does not say which files those are.
      require_labels: an example of which nothing is known (`Source.unlabelled`) is bad, as weak
        training has no use for it.

    Returns:
      The source of the good examples, and the list of bad ones as (id, reason).

    Raises:
      UserError: examples are bad (the message gives id, path and reason of the first, and ids and
        reasons of some more), and `skip_bad_images` is false or nothing is left.
    """
    misnamed = _misnamed(source)
    if misnamed:  # no graph could hold their names, so they go before anything is read
        if not skip_bad_images:
            raise UserError(_refusal(source, misnamed))
        bad = [(source.ids[position], reason) for position, reason in misnamed.items()]
        named = _without(source, misnamed)
        good, more = check(named, skip_bad_images, cache, require_labels)
        return good, sorted(bad + more)
    unlabelled = set(np.flatnonzero(source.unlabelled()).tolist()) if require_labels else set()
    reasons, in_doubt = {}, unlabelled
    if _files(source) is not None:
        cache = None if source.has_masks else cache
        reasons, in_doubt = _check_files(source, unlabelled, cache, skip_bad_images)
    reasons |= dict.fromkeys(sorted(in_doubt), _NO_LABEL)
    if reasons and not skip_bad_images:
        raise UserError(_refusal(source, reasons))

    bad = [(source.ids[position], reasons[position]) for position in sorted(reasons)]
    if not bad:
        return source, bad
    return _without(source, reasons), bad


def _without(source, reasons):
    """Return the source without its bad examples, {position: reason}.

    Raises:
      UserError: all are bad.
    """
    good = [position for position in range(len(source)) if position not in reasons]
    if not good:
        first = min(reasons)
        raise UserError(
            f"{source.name}: all {len(source)} images of split {source.split!r} are bad, the first "
            f"is {source.ids[first]!r}: {reasons[first]}."
        )
    return source.select(good)


def _refusal(source, reasons):
    """Return the message about bad examples, {position: reason}; the first is told in full."""
    (first, reason), *others = reasons.items()
    path = f" ({printable(_files(source)[first])})" if _files(source) else ""
    more = "".join(f"; {source.ids[i]!r}: {why}" for i, why in others[:_NAMED])
    if len(others) > _NAMED:
        more += f"; and {len(others) - _NAMED} more"
    hint = _LABEL_HINT if set(reasons.values()) == {_NO_LABEL} else _HINT
    return (
        f"{source.name}: image {source.ids[first]!r}{path} of split {source.split!r}: "
        f"{reason}{more}; {hint}"
    )


def _misnamed(source):
    """Return {position: reason} of the examples whose names are not UTF-8."""
    names = zip(source.ids, source.paths or source.ids, source.mask_paths or source.ids)
    return {
        position: f"its name is not UTF-8 ({printable(several[0])}); rename it"
        for position, several in enumerate(names)
        if not all(map(is_utf8, several))
    }


def _check_files(source, unlabelled, cache, to_the_end):
    """Find the bad ones among the examples that are not in the cache.

    Unless it goes to the end, it looks at few files behind the first bad one.

    Returns:
      {position: reason}, and those in `unlabelled` that were in the cache, so are not among them.
    """
    reasons = {}
    known = _read_cache(cache)
    files = _files(source)
    fingerprints = [_fingerprint(path) for path in files]
    to_decode = [
        position
        for position, (path, fingerprint) in enumerate(zip(files, fingerprints))
        if fingerprint is None or known.get(path) != fingerprint
    ]
    if not to_decode:
        return reasons, unlabelled
    # Those without a label come first, so that they are found at once. They are decoded all the
    # same: the labels may be missing because the mask they should come from is broken.
    to_decode.sort(key=lambda position: position not in unlabelled)
    find_fault = _fault_finder(source)
    pool = concurrent.futures.ThreadPoolExecutor()
    # In order, so that the first fault is the same one each time; little is decoded beyond it.
    found = bounded_map(pool, find_fault, zip(to_decode), ahead=_LOOK_ON)
    bar = tqdm.tqdm(found, "checking images", len(to_decode), leave=False, delay=1)
    behind_bad = 0
    try:
        for position, reason in zip(to_decode, bar):
            if reason is None:
                known[files[position]] = fingerprints[position]
                reason = _NO_LABEL if position in unlabelled else None
            if reason is not None:
                reasons[position] = reason
            behind_bad += bool(reasons)
            if behind_bad >= _LOOK_ON and not to_the_end:
                break
    finally:
        # What was found good counts even if the check stops here.
        pool.shutdown(cancel_futures=True)
        if cache is not None:
            run_folder.write_json(cache, known)
    return reasons, unlabelled.difference(to_decode)


def _files(source):
    """Return a file per id: the image, else (images may be drawn) the mask; None if neither."""
    return source.paths or source.mask_paths


def _fault_finder(source):
    """Return a thread-safe function of a position to what is wrong there, None if nothing."""
    num_values = len(source.class_names)

    def measure(position):
        example = source.read(position)
        image_size = tf.shape(example["image"])[:2]
        if "mask" not in example:
            return image_size, image_size, tf.constant(0)
        mask = tf.cast(example["mask"], tf.int32)
        return image_size, tf.shape(mask), tf.reduce_max(tf.where(mask == IGNORE, 0, mask))

    def measure_image(position):
        return tf.shape(source.without_masks().read(position)["image"])

    measure = _traced(measure)
    image_measure, lock = functools.cache(lambda: _traced(measure_image)), threading.Lock()

    def mask_file(position):
        # Pseudo labels lie in another place than the images.
        position = int(position)
        return f"; the mask is {source.mask_paths[position]}" if source.mask_paths else ""

    def find_fault(position):
        path = _files(source)[position]
        if not os.path.isfile(path):
            return "there is no such file"
        if not os.path.getsize(path):
            return "the file is empty"
        position = tf.constant(position, tf.int64)
        try:
            image_size, mask_size, largest = [value.numpy() for value in measure(position)]
        except tf.errors.OpError as error:
            with lock:  # traced for the first image that is in doubt
                measure_it = image_measure()
            try:
                measure_it(position)
            except tf.errors.OpError as image_error:
                reason = error_in_short(image_error)
                if HINT in reason:
                    return reason
                return other_format(_head(path)) or f"not a JPEG or PNG, or damaged ({reason})"
            return f"its mask cannot be decoded ({error_in_short(error)}){mask_file(position)}"
        if (image_size != mask_size).any():
            return (
                f"its mask is {_size(mask_size)}, the image {_size(image_size)} (height x width)"
                f"{mask_file(position)}"
            )
        if largest >= num_values:
            return (
                f"its mask has the value {largest}, but there are {num_values} classes "
                f"(0..{num_values - 1}, and {IGNORE} for ignored pixels){mask_file(position)}"
            )
        return None

    return find_fault


def _head(path):
    with open(path, "rb") as file:
        return file.read(16)


def _traced(function):
    """Trace a function of a position now, so that many threads may call it."""
    return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))


def _size(size):
    return " x ".join(map(str, size))


def _fingerprint(path):
    """Return [size in bytes, times of modification and of change in ns]; None for no file.

    The second time is the system's: a file that was replaced by another one of its size and time of
    modification has another.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_cache(path):
    """Return {path: fingerprint}; a damaged cache is an empty one."""
    if path is None or not pathlib.Path(path).is_file():
        return {}
    try:
        known = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
