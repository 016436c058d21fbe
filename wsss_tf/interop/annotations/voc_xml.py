"""Pascal VOC's XML, one file a picture, as VOC itself, labelImg and many others write it: boxes."""

from wsss_tf.errors import UserError
from wsss_tf.interop.annotations import record as r
from wsss_tf.interop.annotations.xml_file import read_xml, text_of


def read_voc_xml(source):
    """Return the `Annotations` of a folder of XML files, or of one.

    A picture is first looked for by the name of the XML file, then by its <filename>, which is
    often left as it was when files are renamed. Objects marked difficult count.

    Raises:
      UserError: a file is no such XML.
    """
    result = r.Annotations([])
    for path, name in r.files_below(source, ".xml"):
        root = read_xml(path)
        if root.tag != "annotation":
            raise UserError(f"{path}: the root is <{root.tag}>, not <annotation> of Pascal VOC.")
        filename = text_of(root, "filename")
        parent = name.rpartition("/")[0]
        in_folder = f"{parent}/{filename}" if parent else filename
        names = (name, in_folder, filename) if filename else (name,)
        size = r.size_of(text_of(root, "size/height"), text_of(root, "size/width"))
        record = r.Record(names, str(path), size)
        for i, element in enumerate(root.findall("object"), 1):
            where = f"{path}, object {i}"
            record.shapes.append(r.Shape(r.class_name(text_of(element, "name"), where)))
        result.records.append(record)
    return result
