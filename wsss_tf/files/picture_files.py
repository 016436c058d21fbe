"""Which files of a folder are pictures, and what they are called."""

import os

from wsss_tf.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")


def find_files(folder, suffixes, leave_out=None):
    """Return {path below the folder without suffix: path}, sorted, of files with given suffixes.

    Hidden files are left out (macOS leaves `._name.jpg`), and the subfolder `leave_out`.
    Without such files, or without the folder, there is nothing in it.

    Raises:
      UserError: two files differ by suffix only.
    """
    found = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        inside = os.path.relpath(parent, folder)
        skipped = leave_out if inside == "." else None
        folders[:] = [name for name in folders if name[0] != "." and name != skipped]
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in suffixes or name[0] == ".":
                continue
            key = stem if inside == "." else f"{inside}/{stem}".replace(os.sep, "/")
            path = os.path.join(parent, name)
            if key in found:
                raise UserError(f"{found[key]} and {path} have the same name; rename one.")
            found[key] = path
    return dict(sorted(found.items()))


def find_pictures(folder, leave_out=None):
    """Return the same of pictures.

    Raises:
      UserError: there is none, or two differ by suffix only.
    """
    files = find_files(folder, SUFFIXES, leave_out)
    if not files:
        raise UserError(f"{folder}: no image ({', '.join(SUFFIXES)}) in it.")
    return files
