"""Whether a data set is still the one that something was made from."""

import hashlib
import json
import os

from wsss_tf.errors import UserError


def fingerprint(source):
    """Return a text that changes if a split's images, labels or masks do.

    Contents are not read: a file is known by its size and time of modification. A data set that is
    drawn has no files; what is drawn follows from its settings.

    Args:
      source: `data.source.Source`; with `without_masks()` masks do not count.

    Returns:
      Number of images and a hash, such as "1464 images, 3f2a..".

    Raises:
      UserError: a file is missing.
    """
    digest = hashlib.sha256()
    known = [source.split, source.class_names, source.ids, source.labels.shape, source.has_masks]
    digest.update(json.dumps(known).encode())
    digest.update(source.labels.tobytes())
    for paths in (source.paths, source.mask_paths):
        stamps = [_stamp(path) for path in paths or ()]
        digest.update(json.dumps(stamps).encode())
    return f"{len(source)} images, {digest.hexdigest()[:16]}"


def file_fingerprint(path):
    """Return size and time of modification of a file, as text.

    Raises:
      UserError: there is no such file.
    """
    size, time_ns = _stamp(path)
    return f"{size} bytes, {time_ns}"


def _stamp(path):
    """Return (size in bytes, time of modification in ns) of a file, None for the path ""."""
    if not path:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    return status.st_size, status.st_mtime_ns
