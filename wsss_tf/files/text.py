"""Text files that people and spreadsheets write."""

import codecs
import pathlib

from wsss_tf.errors import UserError


def read_text(path):
    """Return the text of a UTF-8 file, with or without byte order mark, with line feeds only.

    UTF-16 is read where it has its mark.

    Raises:
      UserError: it is neither.
    """
    contents = pathlib.Path(path).read_bytes()
    is_wide = contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = contents.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file; save it as UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{path}: not a UTF-8 text file (it has zero bytes); save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_one_line(name, where):
    """Check that a class name is one again when it is read from a list with one name a line.

    Args:
      name: string.
      where: it is from, for the message.

    Raises:
      UserError: something in it ends a line, such as U+2028, which looks like a space or nothing.
    """
    if name.splitlines() != [name]:
        raise UserError(
            f"{where}: the class name {name!a} is empty or has a character in it that ends a "
            "line, so it would be two names when it is read again; write a space there."
        )


def is_utf8(name):
    """Return whether a file's name, as Python gives it, is UTF-8 on disk."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(name):
    """Return a file's name with the bytes that are not UTF-8 as escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")
