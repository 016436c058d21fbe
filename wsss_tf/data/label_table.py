"""The table of image labels, read strictly: what is not plain is an error that names its row."""

import collections
import csv
import typing
import unicodedata

from wsss_tf.errors import UserError
from wsss_tf.files.text import check_one_line, read_text

_COLUMNS = ("image", "labels")
_SHOWN = 60


class Row(typing.NamedTuple):
    """A row of the table.

    Attributes:
      number: of the row, from 1, the first line being one.
      image: what stands in the column of that name.
      cell: its labels, not yet separated.
    """

    number: int
    image: str
    cell: str


def read_label_table(path, class_names=()):
    """Return the rows of a table with the columns `image` and `labels`; blank ones are left out.

    It is UTF-8 or UTF-16; the columns are separated by commas, semicolons or tabs, as the first
    line is. A row is a line. Other columns are passed over.

    Args:
      path: of the file.
      class_names: those that are known; a name among them may hold a comma.

    Returns:
      list of `Row`.

    Raises:
      UserError: a row that can be understood in two ways, or in none.
    """
    lines = read_text(path).split("\n")
    head = next((i for i, line in enumerate(lines) if line.strip()), 0)
    separator, image_column, labels_column, width = _columns(path, lines[head])
    rows = []
    for number, line in enumerate(lines[head + 1 :], start=head + 2):
        if not line.strip():
            continue

        def refuse(why, number=number, line=line):
            raise UserError(f"{path}: row {number} ({_short(line)}): {why}.")

        cells = _cells(line, separator, refuse)
        if not any(cells):
            continue
        if any(cells[width:]):
            # A table of two columns only has the labels last.
            more = cells[labels_column:] if labels_column == width - 1 else cells[width:]
            name = cells[image_column]
            labels = (";" if separator != ";" else " ").join(cell for cell in more if cell)
            refuse(
                f"{len(cells)} cells, but the first line has {width}; a picture's labels stand in "
                f"one cell, such as {name}{separator}{labels}"
            )
        if len(cells) <= max(image_column, labels_column):
            refuse(f"no cell for the labels; for none write {line.strip()}{separator}")
        image, cell = cells[image_column], cells[labels_column]
        if not image:
            refuse("labels, but no picture's name before them")
        if "," in cell and not any("," in name for name in class_names):
            labels = [label.strip() for label in cell.split(",") if label.strip()]
            refuse(
                f"a comma in the labels {cell!r}; separate labels by ';' or spaces, such as "
                f"{';'.join(labels)}, and list a name with a comma in class_names.txt"
            )
        if cell:
            check_one_line(cell, f"{path}: row {number}")
        rows.append(Row(number, image, unicodedata.normalize("NFC", cell)))
    return rows


def labels_by_image(rows, class_names=()):
    """Return {image: set of labels}, rows of the same image taken together.

    Labels are separated by ";" if any row has one, else by spaces; a cell that is a class name is
    not separated.
    """
    separator = ";" if any(";" in row.cell for row in rows) else None
    labels_of = collections.defaultdict(set)
    for row in rows:
        labels = [row.cell] if row.cell in class_names else row.cell.split(separator)
        labels_of[row.image].update(label.strip() for label in labels if label.strip())
    return dict(labels_of)


def _columns(path, line):
    """Return (separator, place of `image`, place of `labels`, number of columns) of the head."""

    def refuse(why):
        raise UserError(f"{path}: the first line must be image,labels, not {_short(line)}{why}.")

    for separator in (",", ";", "\t"):
        try:
            cells = _cells(line, separator, refuse)
        except UserError:
            continue
        names = [cell.casefold() for cell in cells]
        while names and not names[-1]:
            names.pop()
        if not set(_COLUMNS) <= set(names):
            continue
        for column in _COLUMNS:
            if (times := names.count(column)) > 1:
                refuse(f": it has the column {column} {times} times")
        return separator, *map(names.index, _COLUMNS), len(names)
    return refuse("; then come lines such as 0001.jpg,cat;dog")


def _cells(line, separator, refuse):
    """Return the cells of a line, stripped."""
    # Else a reader goes on to the next quote, wherever that is.
    if line.count('"') % 2:
        refuse('a quote (") is opened and not closed; close it, or leave quotes out')
    try:
        reader = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
        return [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        refuse(f"{error}; write NAME{separator}LABELS, without quotes where none are needed")
        raise


def _short(line):
    return repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
