"""From the records of annotations to image_labels.csv, class_names.txt and SegmentationClass/."""

import collections
import dataclasses
import pathlib

from tqdm import tqdm

from wsss_tf.errors import UserError
from wsss_tf.files.folder_layout import LABEL_FILE, MASK_FOLDER, NAMES_FILE, label_table
from wsss_tf.files.picture_files import find_files
from wsss_tf.files.png import save_mask
from wsss_tf.files.run_folder import write_text
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.draw import draw_mask
from wsss_tf.interop.annotations.pictures import Pictures
from wsss_tf.masks import IGNORE

_NOT_MENTIONED = "pictures that the annotations do not mention, left out"
_NO_PICTURE = "annotated pictures that are not in the folder"
_SEVERAL_PICTURES = "annotated names that fit several pictures, passed over"
_NO_CLASS = "pictures without any class, written as background"
_EMPTY_CLASS = "classes that no picture shows"
_PARTLY_BOXES = "pictures without a mask, for a part of what they show has no outline"
_OTHER_SIZE = "pictures without a mask, for they were annotated at another size"
_UNREADABLE = "pictures without a mask, for they cannot be read"
_OLD_MASKS = "masks that were there before; their values must follow class_names.txt"
_NO_PIXEL = "pictures with shapes too small for a single pixel"


@dataclasses.dataclass
class Written:
    """What was written.

    Attributes:
      output: the table.
      pictures: number of rows.
      counts: {class name: number of pictures}, in the order of class_names.txt.
      masks: number of masks; None if none were asked for.
      notes: `record.Notes`, to which the writer has added its own.
    """

    output: pathlib.Path
    pictures: int
    counts: dict
    masks: int | None
    notes: r.Notes

    def lines(self, most=20):
        """Yield what a user wants to know of it, with at most so many classes."""
        counts = [f"{name} {count}" for name, count in self.counts.items() if count]
        more = f" and {len(counts) - most} more" if len(counts) > most else ""
        yield f"{self.output}: {self.pictures} pictures"
        yield f"{self.output.parent / NAMES_FILE}: background and {len(self.counts)} classes"
        yield f"pictures that show each class: {', '.join(counts[:most])}{more}"
        if self.masks is not None:
            yield f"{self.output.parent / MASK_FOLDER}: {self.masks} masks"
        yield from self.notes.lines()


def write_labels(annotations, output, pictures=None, masks=False, overwrite=False):
    """Write the table of labels, and the names of the classes beside it.

    Args:
      annotations: `record.Annotations`.
      output: the table.
      pictures: the folder of the pictures; None for that of the table.
      masks: write SegmentationClass/<id>.png beside the table too, for pictures of which every
        object has an outline.
      overwrite: existing files may be overwritten.

    Returns:
      `Written`.

    Raises:
      UserError: no picture fits, two annotations fit one picture, too many classes, or a file is
        there.
    """
    output = pathlib.Path(output)
    check_output(output, overwrite)
    notes = annotations.notes
    place = Pictures(pictures or output.parent)
    records = _by_picture(annotations.records, place, notes)
    names = _class_names(annotations, records)
    rows = {
        picture_id: set().union(*(x.classes() for x in records[picture_id]))
        for picture_id in records
    }
    counts = collections.Counter(name for classes in rows.values() for name in classes)
    _check_rows(place, rows)
    for name in names:
        if not counts[name]:
            notes.add(_EMPTY_CLASS, name)
    for picture_id in place.files:
        if picture_id not in rows:
            notes.add(_NOT_MENTIONED, place.row_name(picture_id))
        elif not rows[picture_id]:
            notes.add(_NO_CLASS, place.row_name(picture_id))
    folder = output.parent / MASK_FOLDER
    old_masks = find_files(folder, (".png",))
    written = None
    if masks:
        made = _write_masks(annotations, records, place, names, folder, overwrite)
        written = len(made)
        old_masks = {key: path for key, path in old_masks.items() if key not in made}
    for key in old_masks:
        notes.add(_OLD_MASKS, f"{key}.png")
    write_text(output.parent / NAMES_FILE, "\n".join([r.BACKGROUND, *names]) + "\n")
    order = {name: i for i, name in enumerate(names)}
    in_order = {
        place.row_name(picture_id): sorted(classes, key=order.get)
        for picture_id, classes in rows.items()
    }
    write_text(output, label_table(in_order))
    return Written(output, len(rows), {name: counts[name] for name in names}, written, notes)


def check_output(output, overwrite=False):
    """Check that a table and class_names.txt can be written.

    Raises:
      UserError: the table is a folder, or one of them is there.
    """
    output = pathlib.Path(output)
    if output.is_dir():
        raise UserError(f"--output={output}: is a folder; name the file in it, {LABEL_FILE}.")
    for path in (output, output.parent / NAMES_FILE):
        if path.exists() and not overwrite:
            raise UserError(f"{path} is there already; say --overwrite, or move it away.")


def _by_picture(records, place, notes):
    """Return {id: records} of the pictures that are there, sorted."""
    found, names = collections.defaultdict(list), {}
    for record in records:
        picture_id, name = place.find(record.names)
        if picture_id is None:
            kind = _SEVERAL_PICTURES if name else _NO_PICTURE
            notes.add(kind, record.names[0])
            continue
        other = names.setdefault(picture_id, name)
        if other != name:
            raise UserError(
                f"{record.where}: {name!r} and {other!r} of the annotations both fit the picture "
                f"{place.files[picture_id]}; give the folder above by --pictures."
            )
        found[picture_id].append(record)
    if not found and records:
        raise UserError(
            f"none of the {len(records)} pictures of the annotations is in {place.folder}: not "
            f"{records[0].names[0]!r}. Say by --pictures=FOLDER where they are."
        )
    if not found:
        raise UserError("the annotations name no picture.")
    return dict(sorted(found.items()))


def _class_names(annotations, records):
    """Return the names of the classes without the background: as declared, or sorted."""
    used = set().union(*(x.classes() for group in records.values() for x in group))
    names = annotations.class_names or sorted(used)
    if not used:
        raise UserError("no annotation of a picture that is there names a class.")
    if len(names) >= IGNORE:
        raise UserError(f"{len(names)} classes; masks have room for {IGNORE - 1}.")
    return names


def _check_rows(place, rows):
    for picture_id in rows:
        name = place.row_name(picture_id)
        if name != name.strip() or not r.writable(name):
            raise UserError(
                f"picture {name!r}: a table cannot hold a name with a space at its ends, control "
                "characters, or bytes that are no text; rename the picture."
            )


# === Masks ===


def _write_masks(annotations, records, place, names, folder, overwrite):
    """Write the masks of pictures that are outlined throughout; return their ids."""
    notes = annotations.notes
    if not any(shape.has_pixels for group in records.values() for x in group for shape in x.shapes):
        raise UserError("--masks: nothing has an outline in these annotations; boxes are no masks.")
    outlined = {}
    for picture_id, group in records.items():
        if _is_outlined(group):
            outlined[picture_id] = group
        else:
            notes.add(_PARTLY_BOXES, place.row_name(picture_id))
    there = [path for path in (folder / f"{key}.png" for key in outlined) if path.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} is there already; say --overwrite, or move it away.")
    values = {r.BACKGROUND: 0, **{name: i for i, name in enumerate(names, 1)}}
    written = set()
    for picture_id, group in tqdm(outlined.items(), "masks", leave=False, delay=1):
        size = place.size(picture_id)
        if size is None:
            notes.add(_UNREADABLE, place.row_name(picture_id))
            continue
        if any(x.size not in (None, size) for x in group):
            notes.add(_OTHER_SIZE, place.row_name(picture_id))
            continue
        shapes = [shape for x in group for shape in x.shapes]
        mask, without = draw_mask(
            shapes, size, values, group[0].is_relative, annotations.largest_first
        )
        if without:
            notes.add(_NO_PIXEL, place.row_name(picture_id))
        save_mask(folder / f"{picture_id}.png", mask)
        written.add(picture_id)
    return written


def _is_outlined(group):
    """Return whether the outlines of a picture show all that it holds."""
    shapes = [shape for x in group for shape in x.shapes]
    drawn = {shape.class_name for shape in shapes}
    tags = set().union(*(x.class_names for x in group)) - {r.BACKGROUND}
    return all(shape.has_pixels for shape in shapes) and tags <= drawn
