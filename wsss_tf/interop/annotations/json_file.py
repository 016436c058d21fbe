"""JSON files that others wrote."""

import json
import pathlib

from wsss_tf.errors import UserError


def read_json(path):
    """Return what is in a JSON file.

    Raises:
      UserError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON: {error}.") from error


def member(value, key, kind, where, default=None):
    """Return `value[key]`; the default, if there is one, where the key is missing or null.

    Raises:
      UserError: `value` is no object, the key is missing, or what it holds is of another kind.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: is no object with {key!r}, but {type(value).__name__}.")
    found = value.get(key)
    if found is None and default is not None:
        return default
    if not isinstance(found, kind) or isinstance(found, bool):
        got = "is missing" if found is None else f"is a {type(found).__name__}"
        raise UserError(f"{where}: {key!r} {got}.")
    return found
