"""What killed processes leave behind, and its removal.

A file that is being written has a hidden name beside its own, see `temporary_name`, and is locked
by who writes it, see `being_written`: so `remove_abandoned` can tell. Folders, and what earlier
versions left, have no such lock: who removes them has seen to it that nobody else writes there, see
`files.lock`.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import uuid

# The second is what earlier versions called them: ".0001.1a2b3c4d.png".
_PATTERNS = (
    re.compile(r"\.wsss_tf-[0-9a-f]{8}(\.\w+)?"),
    re.compile(r"\..+\.[0-9a-f]{8}\.\w+"),
)
_VERSION = re.compile(r"\.\d+\.[0-9a-f]{8}")
# Longer ones are no format's, and file systems take 255 bytes.
_LONGEST_SUFFIX = 16


def temporary_name(name):
    """Return a hidden name of its own for a file while it is written.

    It ends as `name` does, since savers choose the format by that, and is short, whatever the
    length of `name`.
    """
    suffix = pathlib.PurePath(name).suffix
    suffix = suffix if len(suffix) <= _LONGEST_SUFFIX else ""
    return f".wsss_tf-{uuid.uuid4().hex[:8]}{suffix}"


@contextlib.contextmanager
def being_written(path):
    """Make an empty file and hold its lock while the block writes it."""
    with open(path, "xb") as file:
        with contextlib.suppress(OSError):  # no locks here, where nothing is taken for abandoned
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_abandoned(folder):
    """Remove the files in a folder that nobody writes any more, since who did was killed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _PATTERNS[0].fullmatch(entry.name):
                continue
            # Held by another process, or no locks here, or not ours to change.
            with contextlib.suppress(OSError), open(entry.path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


def remove_files(folder, earlier=True, below=False):
    """Remove files that were being written in a folder.

    Args:
      folder: path; it need not be there.
      earlier: also those that earlier versions left, whose names others might give too.
      below: also in the folders below it.
    """
    patterns = _PATTERNS if earlier else _PATTERNS[:1]
    for parent, folders, files in os.walk(folder):
        if not below:
            folders.clear()
        for name in files:
            if any(pattern.fullmatch(name) for pattern in patterns):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(parent, name))


def remove_versions(folder):
    """Remove the versions of a model that were being written, as `serving.versions` names them."""
    with contextlib.suppress(OSError):
        for path in pathlib.Path(folder).iterdir():
            if _VERSION.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
