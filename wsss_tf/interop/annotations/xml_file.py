"""XML files that others wrote, read without document types, entities or anything from elsewhere."""

import math
from xml.etree import ElementTree
from xml.parsers import expat

from wsss_tf.errors import UserError


def read_xml(path):
    """Return the root element of an XML file.

    Raises:
      UserError: it cannot be read, is no XML, or declares a document type. That is where entities
        are defined; no tool that writes annotations needs one.
    """

    def refuse(*unused):
        raise UserError(f"{path}: declares a document type (<!DOCTYPE), which is not read.")

    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    # Of encodings that Python does not know, expat raises LookupError.
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: no XML: {error}.") from error


def text_of(element, path):
    """Return the text of a descendant without blanks around it, "" if there is none."""
    return (element.findtext(path) or "").strip()


def number(element, name, where, default=None):
    """Return an attribute as a finite number.

    Raises:
      UserError: it is none, or missing without a default.
    """
    text = element.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name}={text!r} is not a number.")
    return value
