"""Which files of a folder are pictures, and what they are called."""

import collections
import os

from wsss_tf.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")
# What other programs take for a picture, but none of the commands reads.
OTHER_PICTURES = {
    ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif", ".jp2", ".jpe", ".jfif",
    ".jxl", ".ppm", ".pgm", ".tga", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    ".raw",
}  # fmt: skip


def is_picture_name(name):
    """Return whether a file name has the suffix of a picture, of a format that is read or not."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in SUFFIXES or suffix in OTHER_PICTURES


def find_files(folder, suffixes, leave_out=None):
    """Return {path below the folder without suffix: path}, sorted, of files with given suffixes.

    Hidden files are left out (macOS leaves `._name.jpg`), and the subfolder `leave_out`.
    Without such files, or without the folder, there is nothing in it. Links are followed; a folder
    that links lead to again is searched once, under its own name if it lies inside.

    Raises:
      UserError: two files differ by suffix only.
    """
    return search(folder, suffixes, leave_out)[0]


def find_pictures(folder, leave_out=None):
    """Return the same of pictures, and a note (a line) of files that only look like pictures.

    Returns:
      {path below the folder without suffix: path}, and a string, "" where all were taken.

    Raises:
      UserError: there is none, or two differ by suffix only.
    """
    files, others = search(folder, SUFFIXES, leave_out)
    note = passed_over(others)
    if not files:
        raise UserError(
            f"{folder}: no image ({', '.join(SUFFIXES)}) in it{'; ' if note else '.'}{note}"
        )
    return files, f"{folder}: {note}" if note else ""


def passed_over(counts):
    """Return a line on {suffix: count} of pictures in other formats, "" if there is none."""
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    return (
        f"{total} file{'s' if total > 1 else ''} passed over that look{'' if total > 1 else 's'} "
        f"like {'pictures' if total > 1 else 'a picture'} "
        f"({', '.join(f'{suffix} {count}' for suffix, count in ranked)}); only "
        f"{', '.join(SUFFIXES)} are read: convert them, if they belong to the set."
    )


def search(folder, suffixes, leave_out=None):
    """Return what `find_files` does, and {suffix: count} of the other pictures in the folder."""
    found = {}
    others = collections.Counter()
    for parent, names in _folders(folder, leave_out):
        inside = os.path.relpath(parent, folder)
        for name in names:
            stem, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if name[0] == ".":
                continue
            if suffix not in suffixes:
                others[suffix] += suffix in OTHER_PICTURES or suffix in SUFFIXES
                continue
            key = stem if inside == "." else f"{inside}/{stem}".replace(os.sep, "/")
            path = os.path.join(parent, name)
            if key in found:
                raise UserError(f"{found[key]} and {path} have the same name; rename one.")
            found[key] = path
    return dict(sorted(found.items())), {key: count for key, count in others.items() if count}


def _folders(folder, leave_out):
    """Yield (path, names of the files) of a folder and those below it, each of them once."""
    seen = set()
    # Linked folders come last: what lies inside keeps its own name, not that of a link to it.
    waiting, linked = collections.deque([os.fspath(folder)]), collections.deque()
    while waiting or linked:
        parent = waiting.popleft() if waiting else linked.popleft()
        try:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # no such folder, or one that may not be read
            continue
        for entry in entries:
            if entry.name[0] == "." or not _is_folder(entry):
                continue
            if parent == os.fspath(folder) and entry.name == leave_out:
                # Not by another name either.
                status = entry.stat()
                seen.add((status.st_dev, status.st_ino))
                continue
            (linked if entry.is_symlink() else waiting).append(entry.path)
        yield parent, [entry.name for entry in entries if not _is_folder(entry)]


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, where one that leads nowhere is no folder
        return False
