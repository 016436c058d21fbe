"""Networks as Keras files."""

import json
import warnings
import zipfile

import keras

# Registers the layers, which a saved network names but does not hold.
import wsss_tf.models  # noqa: F401


def load_network(path):
    """Return the network of a `.keras` file, a functional `keras.Model`.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no such file, damaged, or of another version of Keras.
    """
    with open(path, "rb"):  # Keras says of a file that may not be read that it is none of its own
        pass
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # damaged bytes make Keras, HDF5 and zipfile raise anything
        raise ValueError(_in_short(error)) from error


def load_weights_into(net, path):
    """Set the weights of a network to those of a `.keras` file of the same graph.

    Raises:
      ValueError: the file has other weights, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            # Of groups that the file does not have Keras only warns, and leaves their weights.
            warnings.simplefilter("error")
            net.load_weights(path)
    except Exception as error:
        raise ValueError(_in_short(error)) from error


def _in_short(error):
    """Return what Keras says, which may hold the whole configuration of a layer."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"


def version_of(path):
    """Return the version of Keras that wrote a `.keras` file, None where it does not say so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except Exception:  # see above
        return None
