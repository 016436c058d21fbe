"""Two logical CPUs, golden files, and no state from one test to the next."""

import os
import pathlib

# Both are read when TensorFlow is loaded. oneDNN's AVX-512 convolutions corrupt memory where there
# are 8 channels, as in some golden files.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

# Two replicas for the tests of distributed training; fixed once, before any device is used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

_HERE = pathlib.Path(__file__).resolve()
_GOLDEN = _HERE.parent / "data"
# Files over 1 MiB or with photographs in them, beside the checkout.
_LARGE_GOLDEN = _HERE.parents[2] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden():
    """Return a function from a golden file's name to its arrays, results of the official code.

    A name is "method/file"; without a method it is SEAM's.
    """

    def load(name):
        name = f"{name if '/' in name else f'seam/{name}'}.npz"
        path = _GOLDEN / name
        if not path.exists():
            if not _LARGE_GOLDEN.is_dir():
                pytest.skip("skipped: no shared data")
            path = _LARGE_GOLDEN / name
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(autouse=True)
def _fresh_state():
    """Reset what Keras and gin keep for the whole process."""
    policy = keras.config.dtype_policy()
    # Two strategies of one process would number their collective operations alike, and TensorFlow
    # remembers the shapes under each number.
    tf.distribute.MirroredStrategy._collective_key_base += 1_000_000
    yield
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session(free_memory=False)  # a collection takes 0.3 s
    gin.clear_config()
