"""The readers by the names that the command gives them."""

from wsss_tf.interop.annotations.coco import read_coco
from wsss_tf.interop.annotations.cvat import read_cvat
from wsss_tf.interop.annotations.folders import read_folders
from wsss_tf.interop.annotations.label_studio import read_label_studio
from wsss_tf.interop.annotations.labelme import read_labelme
from wsss_tf.interop.annotations.table import read_table
from wsss_tf.interop.annotations.voc_xml import read_voc_xml
from wsss_tf.interop.annotations.yolo import read_yolo

READERS = {
    "coco": read_coco,
    "voc_xml": read_voc_xml,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "label_studio": read_label_studio,
    "yolo": read_yolo,
    "folders": read_folders,
    "csv": read_table,
}
