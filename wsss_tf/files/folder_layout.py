"""Names in a folder of the user's own pictures, which `data.folder` reads and `labels` writes."""

import csv
import io
import pathlib

# The setting that names the folder, in gin.
ROOT_BINDING = "folder_source.root"
LABEL_FILE = "image_labels.csv"
NAMES_FILE = "class_names.txt"
MASK_FOLDER = "SegmentationClass"


def image_folder(root):
    """Return the `pathlib.Path` of the pictures: JPEGImages if it is there, or else the folder."""
    folder = pathlib.Path(root) / "JPEGImages"
    return folder if folder.is_dir() else pathlib.Path(root)


def label_table(labels):
    """Return the text of a table such as image_labels.csv.

    Its labels are separated by ";" if any cell has one, else by spaces. So where no picture has two
    labels, ";" stands behind one, if a name has a space.

    Args:
      labels: {picture's name: names of its classes, in order}; where there are none, the label is
        background.
    """
    cells = {image: ";".join(names) or "background" for image, names in labels.items()}
    if not any(";" in cell for cell in cells.values()):
        cells = {image: f"{cell};" if " " in cell else cell for image, cell in cells.items()}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "labels"), *cells.items()])
    return text.getvalue()
