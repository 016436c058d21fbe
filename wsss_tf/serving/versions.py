"""Numbered versions of a model in one folder, as TensorFlow Serving watches it."""

import contextlib
import os
import pathlib
import shutil
import uuid

from wsss_tf.errors import UserError
from wsss_tf.files.left_overs import remove_versions
from wsss_tf.files.lock import at_work


def latest_version(folder):
    """Return the highest version in a folder, an int; 0 where there is none."""
    folder = pathlib.Path(folder)
    numbers = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    return max(numbers, default=0)


class NewVersion:
    """A version that is being written.

    Attributes:
      path: the folder to write into; it is renamed in the end.
      published: where that went, a `pathlib.Path`; None before.
    """

    def __init__(self, path):
        self.path = path
        self.published = None


@contextlib.contextmanager
def new_version(folder, version=None):
    """Yield a `NewVersion`, which appears as `folder`/<version> when the block ends without error.

    A server that watches the folder must never load half a model, so what is written lies in a
    hidden folder beside the versions and is renamed. What a killed process has left of one is
    removed by the next, if nobody else is at work there.

    Args:
      folder: made if missing.
      version: a positive int; None for the one after the highest there.

    Raises:
      UserError: `folder` is a file or itself a SavedModel, or the version exists.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a folder for the versions.")
    if (folder / "saved_model.pb").exists():
        raise UserError(f"{folder}: is itself a SavedModel; give the folder that holds versions.")
    if version is not None and (folder / str(version)).exists():
        raise UserError(f"{folder / str(version)}: exists already; versions are never changed.")
    folder.mkdir(parents=True, exist_ok=True)
    number = version or latest_version(folder) + 1
    new = NewVersion(folder / f".{number}.{uuid.uuid4().hex[:8]}")

    def clean():
        remove_versions(folder)

    with at_work(folder, "versions", str(folder), is_shared=True, clean=clean):
        try:
            yield new
            new.published = _publish(new.path, folder, number, is_free=version is None)
        finally:
            shutil.rmtree(new.path, ignore_errors=True)


def _publish(path, folder, number, is_free):
    """Rename to the number, or to the next that nobody else has taken meanwhile."""
    while True:
        target = folder / str(number)
        try:
            os.rename(path, target)
        except OSError:
            if not target.exists():
                raise
            if not is_free:
                raise UserError(f"{target}: exists already; versions are never changed.") from None
            number = max(number, latest_version(folder)) + 1
        else:
            return target
