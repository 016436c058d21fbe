"""Which picture of a folder an annotation means."""

import collections
import os
import pathlib
import unicodedata

from PIL import Image

from wsss_tf.errors import UserError, warn
from wsss_tf.files.folder_layout import MASK_FOLDER, image_folder
from wsss_tf.files.picture_files import find_pictures, is_picture_name
from wsss_tf.files.pictures import DAMAGED, EXIF_BYTES, exif_orientation
from wsss_tf.files.pixel_limit import check_size
from wsss_tf.files.text import is_utf8, printable


class Pictures:
    """The pictures of a folder, as `data.folder.folder_source` finds them.

    Attributes:
      folder: where they are: JPEGImages of the folder, if it has one.
      files: {id: path}, an id being the path below `folder` without suffix.

    Raises:
      UserError: no such folder, or no picture in it.
    """

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of pictures.")
        self.folder = image_folder(folder)
        self.files, note = find_pictures(self.folder, leave_out=MASK_FOLDER)
        if note:
            warn(note)
        for picture_id in [name for name in self.files if not is_utf8(name)]:
            path = printable(self.files.pop(picture_id))
            warn(f"{path}: is left out, for its name is not UTF-8; rename it.")
        self._ids_by_end = collections.defaultdict(list)
        for picture_id in self.files:
            parts = _parts(picture_id)
            for i in range(len(parts)):
                self._ids_by_end[parts[i:]].append((picture_id, parts))

    def find(self, names):
        """Return (id, name) of the picture that one of the names fits; (None, ids) if none does.

        A name fits a picture if one is the end of the other's path: b.jpg fits a/b.jpg, and so does
        data/a/b.jpg, but c/b.jpg does not. `ids` are several that a name fits equally well.
        """
        several = []
        for name in names:
            for stem in dict.fromkeys((_without_suffix(name), name)):
                fits = self._fits(stem)
                if len(fits) == 1:
                    return fits[0], stem
                several = several or fits
        return None, several

    def _fits(self, stem):
        parts = _parts(stem)
        fits = []
        for i in range(len(parts)):
            for picture_id, own in self._ids_by_end.get(parts[i:], ()):
                if i == 0 or len(own) == len(parts) - i:
                    # The whole path is best, then a long end, then upper and lower case alike.
                    rank = (own == parts, len(parts) - i, _same_case(picture_id, stem))
                    fits.append((rank, picture_id))
        best = max((rank for rank, _ in fits), default=None)
        return [picture_id for rank, picture_id in fits if rank == best]

    def row_name(self, picture_id):
        """Return what image_labels.csv calls a picture: its path with suffix."""
        return picture_id + os.path.splitext(self.files[picture_id])[1]

    def size(self, picture_id):
        """Return (h, w) of a picture as it is shown, None if its file cannot be read."""
        path = self.files[picture_id]
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as picture:
                width, height = picture.size
                check_size(height, width)
            with open(path, "rb") as file:
                is_turned = exif_orientation(file.read(EXIF_BYTES)) >= 5
        except DAMAGED:
            return None
        return (width, height) if is_turned else (height, width)


def _without_suffix(name):
    # Of any format: the picture may have been converted since.
    return os.path.splitext(name)[0] if is_picture_name(name) else name


def _parts(name):
    """Return the folders and the last part of a name, a tuple, all in one writing."""
    name = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    parts = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part.strip() not in ("", ".", ".."):
            parts.append(part.strip())
    return tuple(parts)


def _same_case(picture_id, name):
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    return unicodedata.normalize("NFC", picture_id.rpartition("/")[2]) == last.strip()
