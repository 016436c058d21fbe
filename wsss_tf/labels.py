"""Make image labels from annotations of other tools.

  python -m wsss_tf.labels --from=coco --source=instances.json --output=FOLDER/image_labels.csv

FOLDER holds the pictures, itself or in JPEGImages, or else --pictures names another. Beside the
table, class_names.txt is written, and with --masks SegmentationClass/<id>.png, for scores: masks of
the pictures in which every object has an outline, for boxes are no masks.

--from      --source
coco        instances JSON: polygons, run lengths (packed ones need wsss_tf[labels]), boxes
voc_xml     folder of Pascal VOC's XML files: boxes
labelme     folder of LabelMe's JSON files: polygons, circles, masks; rectangles are boxes
cvat        annotations.xml of "CVAT for images 1.1": tags, polygons, ellipses, masks, boxes
label_studio  JSON export: choices, polygons, ellipses, boxes; brush strokes give the class only
yolo        folder of text files, and data.yaml (needs wsss_tf[labels]), obj.names or classes.txt
folders     folder with a folder of pictures for each class
csv         table: label cells in each row, or a column of 0 and 1 for each class
"""

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_FORMATS = ("coco", "voc_xml", "labelme", "cvat", "label_studio", "yolo", "folders", "csv")
_SEPARATORS = ("none", "space", "comma", "semicolon", "bar")

_FROM = flags.DEFINE_enum("from", None, list(_FORMATS), "What the annotations are.")
_SOURCE = flags.DEFINE_string("source", None, "File or folder of the annotations.")
_OUTPUT = flags.DEFINE_string("output", None, "image_labels.csv to write, in its folder.")
_PICTURES = flags.DEFINE_string(
    "pictures", None, "Folder of the pictures, if it is not that of --output."
)
_MASKS = flags.DEFINE_bool("masks", False, "Write masks from outlines too.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Overwrite what is there.")
_NAMES = flags.DEFINE_string(
    "names", None, "yolo: file of the names of the classes, if it is not beside or above."
)
_LABEL_SEPARATOR = flags.DEFINE_enum(
    "label_separator", None, list(_SEPARATORS), "csv: what stands between labels in one cell."
)


def main():
    """Run the command."""
    for name in ("from", "source", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    options = {}
    for name, flag, kind in (
        ("names", _NAMES, "yolo"),
        ("label_separator", _LABEL_SEPARATOR, "csv"),
    ):
        if flag.value is not None and _FROM.value != kind:
            raise UserError(f"--{name} is for --from={kind}.")
        if flag.value is not None:
            options[name] = flag.value
    if _MASKS.value and _FROM.value in ("voc_xml", "folders", "csv"):
        raise UserError(f"--masks: nothing has an outline in {_FROM.value}; boxes are no masks.")
    # Here, because --help should not wait for NumPy and Pillow.
    from wsss_tf.interop.annotations import read, write

    write.check_output(_OUTPUT.value, _OVERWRITE.value)
    annotations = read.READERS[_FROM.value](_SOURCE.value, **options)
    written = write.write_labels(
        annotations, _OUTPUT.value, _PICTURES.value, _MASKS.value, _OVERWRITE.value
    )
    for line in written.lines():
        print(line)


if __name__ == "__main__":
    command.run(main)
