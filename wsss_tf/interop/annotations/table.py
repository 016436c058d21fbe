"""Tables of other shapes: several label cells, a column per class, what spreadsheets save."""

import csv
import io
import re

from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import is_picture_name
from wsss_tf.interop.annotations import record as r

_IMAGE_COLUMNS = {
    "image", "images", "image_name", "image_id", "imageid", "image_path", "imagepath", "img",
    "filename", "file_name", "file name", "file", "filepath", "path", "picture", "photo", "id",
}  # fmt: skip
_LABEL_COLUMN = re.compile(
    r"(labels?|label_?name|class(es)?|class_?names?|tags?|categor(y|ies)|category_?name)"
    r"([ _]?\d+)?"
)
_TRUTH = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}
_CODE_PAGE = "tables that are not UTF-8 and were read as Windows-1252"
_SEPARATORS = {"space": " ", "comma": ",", "semicolon": ";", "bar": "|"}


def read_table(source, label_separator=None):
    """Return the `Annotations` of a table of text.

    Args:
      source: a CSV file, its cells separated by commas, semicolons or tabs.
      label_separator: what stands between labels in one cell, a word such as "space", or "none";
        None to find out.

    Raises:
      UserError: what its columns mean is not plain; which row, and what to do.
    """
    path = r.one_file(source, "the table")
    result = r.Annotations([])
    text, is_code_page = _decoded(path)
    if is_code_page:
        result.notes.add(_CODE_PAGE, path.name)
    rows = _rows(path, text)
    header = [cell.casefold() for cell in rows[0][1]]
    label_columns = [i for i, name in enumerate(header) if _LABEL_COLUMN.fullmatch(name)]
    image_columns = [i for i, name in enumerate(header) if name in _IMAGE_COLUMNS]
    if any(is_picture_name(cell) for cell in rows[0][1]):
        cells = _cells_without_header(path, rows)
    elif len(rows) == 1:
        raise UserError(f"{path}: only one line, {rows[0][1]}.")
    elif label_columns and image_columns:
        named = [i for i in image_columns if is_picture_name("".join(rows[1][1][i : i + 1]))]
        cells = _label_cells(path, rows, (named or image_columns)[0], label_columns)
    else:
        cells, result.class_names = _class_columns(path, rows, (image_columns or [0])[0])
        label_separator = label_separator or "none"
    split = _splitter(path, [row for _, _, row in cells], label_separator)
    for line, name, row in cells:
        where = f"{path}, line {line}"
        if not name:
            raise UserError(f"{where}: names no picture.")
        names = {r.class_name(label, where) for cell in row for label in split(cell)}
        result.records.append(r.Record((name,), where, class_names=names))
    return result


# === From bytes to rows ===


def _decoded(path):
    """Return (text, whether it was read as Windows-1252)."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    encodings = ["utf-8-sig", "cp1252"]
    if contents[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in contents[:100]:
        encodings = ["utf-16-le" if contents[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings:
        try:
            return contents.decode(encoding), encoding == "cp1252"
        except UnicodeDecodeError:
            pass
    raise UserError(f"{path}: neither UTF-8, UTF-16 nor Windows-1252; save it as UTF-8.")


def _rows(path, text):
    """Return the (line number, cells) that are not blank."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.lstrip("\n").partition("\n")[0]
    skipped = 0
    if re.fullmatch(r"sep=.", first):  # what Excel reads and some programs write
        delimiter, skipped = first[-1], 1
        text = text.lstrip("\n").partition("\n")[2]
    else:
        # The first one: labels in a cell may be separated by another.
        found = re.search(r"[,;\t]", re.sub(r'"[^"]*"', "", first))
        delimiter = found[0] if found else ","
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                rows.append((reader.line_num + skipped, cells))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + skipped}: {error}.") from error
    if not rows:
        raise UserError(f"{path}: the table is empty.")
    return rows


# === What the columns are ===


def _cells_without_header(path, rows):
    """Return (line, picture, label cells) of a table whose first line is already a picture."""
    line, first = rows[0]
    if not is_picture_name(first[0]):
        raise UserError(
            f"{path}, line {line}: the picture must be in the first column, or the first line must "
            f"name the columns, such as image,labels; it is {first}."
        )
    if len(first) > 1 and all(cell.casefold() in _TRUTH for cell in first[1:]):
        raise UserError(
            f"{path}, line {line}: columns of 0 and 1 need a first line that names the classes."
        )
    return [(line, row[0], row[1:]) for line, row in rows]


def _label_cells(path, rows, image_column, label_columns):
    """Return (line, picture, label cells) of a table with columns that are called labels."""
    header = [cell.casefold() for cell in rows[0][1]]
    confidence = header.index("confidence") if "confidence" in header else None
    cells = []
    for line, row in rows[1:]:
        if len(row) > len(header) and label_columns[-1] != len(header) - 1:
            raise UserError(
                f"{path}, line {line}: {len(row)} cells, but the first line names {len(header)} "
                "columns."
            )
        row = row + [""] * (len(header) - len(row))
        # Cells beyond the last column, if that has labels, are further labels.
        labels = [row[i] for i in label_columns] + row[len(header) :]
        if confidence is not None and _TRUTH.get(row[confidence]) is False and row[confidence]:
            labels = []  # Open Images: a person has said that it is not there
        cells.append((line, row[image_column], labels))
    return cells


def _class_columns(path, rows, image_column):
    """Return (line, picture, classes) of a table with a column per class, and the classes."""
    header = rows[0][1]
    columns = [i for i in range(len(header)) if i != image_column]
    if len(columns) == 1 and any(
        row[columns[0]].casefold() not in _TRUTH for _, row in rows[1:] if len(row) == len(header)
    ):
        return _label_cells(path, rows, image_column, columns), None
    if not columns:
        raise UserError(f"{path}, line {rows[0][0]}: only one column, {header}.")
    names = {i: r.class_name(header[i], f"{path}, line {rows[0][0]}") for i in columns}
    cells = []
    for line, row in rows[1:]:
        if len(row) > len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} cells, but the first line names {len(header)} "
                "columns."
            )
        row = row + [""] * (len(header) - len(row))
        wrong = [i for i in columns if row[i].casefold() not in _TRUTH]
        if wrong:
            raise UserError(
                f"{path}, line {line}: {row[wrong[0]]!r} in the column {header[wrong[0]]!r} is "
                "neither 0 nor 1. Take out columns that are no class, or call the column of the "
                "picture image and that of its labels labels."
            )
        present = [names[i] for i in columns if _TRUTH[row[i].casefold()]]
        cells.append((line, row[image_column], present))
    return cells, r.declared(names.values())


def _splitter(path, rows, separator):
    """Return the function that splits a cell into labels, found in the cells of all rows."""
    if separator is None:
        cells = [cell for row in rows for cell in row]
        found = [key for key in (";", "|", ",") if any(key in cell for cell in cells)]
        if found:
            symbol = found[0]
        elif any(sum(map(bool, row)) > 1 for row in rows):
            symbol = None  # each label has its cell
        else:
            symbol = _space_if_plain(path, cells)
    else:
        symbol = _SEPARATORS.get(separator)
    return lambda cell: [
        label for label in (cell.split(symbol) if symbol else [cell]) if label.strip()
    ]


def _space_if_plain(path, cells):
    """Return a space if cells with spaces hold several labels, None if none has a space.

    Raises:
      UserError: a word in such a cell never stands alone, so that it may be a part of a name.
    """
    alone = {cell for cell in cells if " " not in cell}
    spaced = [cell for cell in cells if " " in cell]
    for cell in spaced:
        if not set(cell.split()) <= alone:
            raise UserError(
                f"{path}: is {cell!r} one class, or one for each word? Say "
                "--label_separator=none or --label_separator=space."
            )
    return " " if spaced else None
