"""Two logical CPUs, golden files, and no state from one test to the next."""

import os
import pathlib

# Both are read when TensorFlow is loaded. oneDNN's AVX-512 kernels have corrupted memory here.
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
_GOLDEN_FOLDERS = (_HERE.parent / "data" / "seam", _HERE.parents[2] / "shared" / "golden" / "seam")


@pytest.fixture(scope="session")
def golden():
    """Return a function from a golden file's name to its arrays, results of the official code."""

    def load(name):
        for folder in _GOLDEN_FOLDERS:
            if (folder / f"{name}.npz").exists():
                with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
                    return dict(arrays)
        pytest.skip("skipped: no shared data")

    return load


@pytest.fixture(autouse=True)
def _fresh_state():
    """Reset what Keras and gin keep for the whole process."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session(free_memory=False)  # a collection takes 0.3 s
    gin.clear_config()
