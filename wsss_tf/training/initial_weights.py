"""Start from the weights of another network, matched by the paths of its variables."""

import pathlib

import numpy as np

from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.npz import read_npz
from wsss_tf.training.networks import load_network


def load_initial_weights(net, weights, origin=None):
    """Copy weights into a network, wherever a variable of the same path is in both.

    Args:
      net: functional model.
      weights: {variable path: array}, or a file: `.npz` (such arrays, as `save_weights` writes),
        `.keras` (another model), or `.weights.h5` (of the very same graph: Keras matches those by
        position).
      origin: what errors call the weights; None for the file's path.

    Returns:
      (loaded, missing, unused): sorted variable paths that were set, that kept their random
      values, and that only `weights` has.

    Raises:
      UserError: the file is missing or unreadable, a shape differs, or nothing matches. Nothing has
        been copied then.
    """
    own = {variable.path: variable for variable in _weights(net)}
    if not isinstance(weights, dict):
        path = pathlib.Path(weights)
        origin = origin or path
        if not path.is_file():
            raise UserError(f"initial weights {origin}: no such file.")
        if path.name.endswith(".weights.h5"):
            try:
                net.load_weights(path)
            except (ValueError, OSError, KeyError) as error:
                raise UserError(f"initial weights {origin}: {error}") from error
            return sorted(own), [], []
        weights = _read(path)
    loaded = sorted(own.keys() & weights.keys())
    if not loaded:
        raise UserError(f"initial weights {origin}: no variable of this network is in it.")
    for name in loaded:
        if tuple(own[name].shape) != weights[name].shape:
            raise UserError(
                f"initial weights {origin}: {name} has shape {weights[name].shape}, "
                f"the network needs {tuple(own[name].shape)}; its width, classes or backbone are "
                "not those of the weights."
            )
    for name in loaded:
        own[name].assign(weights[name].astype("float32"))
    return loaded, sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())


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
            return read_npz(path)
        model = load_network(path)
        return {variable.path: np.asarray(variable.value) for variable in _weights(model)}
    except (ValueError, OSError) as error:
        raise UserError(f"initial weights {path}: cannot be read: {error}") from error
