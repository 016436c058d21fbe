"""Start from the weights of another network, matched by the paths of its variables."""

import pathlib
import zipfile

import keras
import numpy as np

from wsss_tf import run_folder
from wsss_tf.errors import UserError


def load_initial_weights(net, path):
    """Copy weights from a file into a network, wherever a variable of the same path is in both.

    Args:
      net: functional model.
      path: `.npz` (arrays by variable path, as `save_weights` writes), `.keras` (another model), or
        `.weights.h5` (of the very same graph: Keras matches those by position).

    Returns:
      (loaded, missing, unused): sorted variable paths that were set, that kept their random
      values, and that only the file has.

    Raises:
      UserError: the file is missing or unreadable, a shape differs, or nothing matches.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"initial weights {path}: no such file.")
    own = {variable.path: variable for variable in _weights(net)}
    if path.name.endswith(".weights.h5"):
        try:
            net.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise UserError(f"initial weights {path}: {error}") from error
        return sorted(own), [], []
    given = _read(path)
    loaded = sorted(own.keys() & given.keys())
    if not loaded:
        raise UserError(f"initial weights {path}: no variable of this network is in it.")
    for name in loaded:
        if tuple(own[name].shape) != given[name].shape:
            raise UserError(
                f"initial weights {path}: {name} has shape {given[name].shape}, "
                f"the network needs {tuple(own[name].shape)}."
            )
        own[name].assign(given[name].astype("float32"))
    return loaded, sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())


def save_weights(net, path, keep=None, dtype="float32"):
    """Write a network's weights to an `.npz` file of arrays by variable path.

    Args:
      net: functional model.
      path: file to write.
      keep: function of a variable path, whether to write it; None writes all.
      dtype: "float16" halves the file.
    """
    arrays = {
        variable.path: np.asarray(variable.value, dtype)
        for variable in _weights(net)
        if keep is None or keep(variable.path)
    }
    with run_folder.atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _weights(net):
    """A network's weights, without the states of random generators."""
    return [v for v in net.variables if "seed_generator" not in v.path]


def _read(path):
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        model = keras.saving.load_model(path, compile=False)
        return {variable.path: np.asarray(variable.value) for variable in _weights(model)}
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"initial weights {path}: cannot be read: {error}") from error
