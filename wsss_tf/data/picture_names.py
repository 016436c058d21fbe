"""Pictures found by the names that people, spreadsheets and other programs give them."""

import bisect
import difflib
import posixpath
import unicodedata

from wsss_tf.data.lists import without_suffix

_COMPARED = 2000


class PictureNames:
    """The pictures of a folder, by name.

    Args:
      ids: strings, their paths below the folder without suffix.
      folder: `pathlib.Path` of the folder; a name may begin with it, or with its own name.
    """

    def __init__(self, ids, folder):
        self._ids = sorted(ids)
        self._known = {**{_composed(image_id): image_id for image_id in ids}, **{i: i for i in ids}}
        folder = folder.absolute()
        self._before = [f"{folder.as_posix()}/", f"{folder.parent.name}/{folder.name}/"]
        self._before.append(f"{folder.name}/")

    def __iter__(self):
        return iter(self._ids)

    def find(self, name):
        """Return the id of the picture that a name stands for, None if there is none.

        The name may have a suffix, backslashes, the folder before it, and letters with marks
        composed in another way (macOS takes them apart).
        """
        path = posixpath.normpath(name.replace("\\", "/"))
        below = [path[len(head) :] for head in self._before if path.startswith(head)]
        for candidate in (name, path, *below):
            for key in (candidate, without_suffix(candidate)):
                if (found := self.composed(key)) is not None:
                    return found
        return None

    def composed(self, name):
        """Return the id that is a name, up to how letters with marks are written; or None."""
        return self._known.get(name) or self._known.get(_composed(name))

    def nearest(self, name):
        """Return the id that is most like a name, None if none is much like it."""
        name = without_suffix(name.replace("\\", "/"))
        for end in range(len(name) - 1, 0, -1):
            if not name[end].isalnum() and name[:end] in self._known:
                return self._known[name[:end]]
        # Of very many pictures those that begin alike are enough.
        place = bisect.bisect(self._ids, name)
        some = self._ids[max(place - _COMPARED, 0) : place + _COMPARED]
        folded = {image_id.casefold(): image_id for image_id in some}
        like = difflib.get_close_matches(name.casefold(), folded, 1)
        return folded[like[0]] if like else None


def _composed(name):
    return unicodedata.normalize("NFC", name)
