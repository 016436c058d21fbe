"""A folder for each class, with its pictures in it."""

import pathlib

from wsss_tf.errors import UserError, warn
from wsss_tf.files.folder_layout import MASK_FOLDER
from wsss_tf.files.picture_files import find_pictures
from wsss_tf.interop.annotations import record as r

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def read_folders(source):
    """Return the `Annotations` of a folder of folders; their names are the classes.

    Raises:
      UserError: a picture is in no class' folder, or the folders are splits.
    """
    source = pathlib.Path(source)
    if not source.is_dir():
        raise UserError(f"--source={source}: no such folder.")
    names = sorted(p.name for p in source.iterdir() if p.is_dir() and p.name[0] != ".")
    names = [name for name in names if name != MASK_FOLDER]
    if names and {name.casefold() for name in names} <= _SPLITS:
        raise UserError(
            f"--source={source}: its folders are splits ({', '.join(names)}), not classes; give "
            f"{source / names[0]}."
        )
    classes = {name: r.class_name(name, f"{source / name}") for name in names}
    result = r.Annotations([], r.declared(classes.values()))
    files, note = find_pictures(source, leave_out=MASK_FOLDER)
    if note:
        warn(note)
    for name, path in files.items():
        folder, slash, _ = name.partition("/")
        if not slash:
            raise UserError(f"{path}: lies in no class' folder, but beside them.")
        result.records.append(r.Record((name,), path, class_names={classes[folder]}))
    return result
