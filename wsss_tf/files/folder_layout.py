"""Names in a folder of the user's own pictures, which `data.folder` reads and `labels` writes."""

import pathlib

LABEL_FILE = "image_labels.csv"
NAMES_FILE = "class_names.txt"
MASK_FOLDER = "SegmentationClass"


def image_folder(root):
    """Return the `pathlib.Path` of the pictures: JPEGImages if it is there, or else the folder."""
    folder = pathlib.Path(root) / "JPEGImages"
    return folder if folder.is_dir() else pathlib.Path(root)
