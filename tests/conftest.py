"""Two logical CPUs, golden files, shared runs, and no state from one test to the next."""

import fcntl
import gc
import math
import os
import pathlib
import signal
from unittest import mock

# Both are read when TensorFlow is loaded. oneDNN's AVX-512 convolutions corrupt memory where there
# are 8 channels, as in some golden files.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import as_user
import numpy as np
import pytest

# What a shell starts in the background has Ctrl-C ignored, and so would have all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = pathlib.Path(__file__).resolve()
_GOLDEN = _HERE.parent / "data"
# Files over 1 MiB or with photographs in them, beside the checkout.
_LARGE_GOLDEN = _HERE.parents[2] / "shared" / "golden"


# Whole files go to the workers of scripts/test.sh, so the longest do so first, by processor time.
_LONGEST = (
    "test_commands.py",
    "test_pipeline.py",
    "test_pipelines_irn.py",
    "test_affinity_commands.py",
    "test_commands_masks.py",
    "test_train_hosts.py",
    "test_infer_beam.py",
    "test_commands_sec.py",
    "test_convert_command.py",
    "test_backbones.py",
    "test_training_cpnet_sanet.py",
    "test_ablate_seam.py",
    "test_jax_backend.py",
    "test_serving_saved_model.py",
)


def pytest_collection():
    """Have two replicas for the tests of distributed training, and exact products on a GPU.

    Before any device is used.
    It is not called in the process that hands the tests out, which so loads no TensorFlow.
    """
    gc.disable()  # until all is imported
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # TensorFloat-32 is too coarse for the golden values.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish():
    """Have Python's garbage collections not look through all that has been imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


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


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return a function that makes a folder once for the session, in whichever process is first.

    It takes the folder's name and a function of its path, and returns the path. What is in it is
    shared: a test that changes something does so in a copy.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name, make):
        path = root / name
        with open(root / f"{name}.lock", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if not lock.read():
                make(path)
                lock.write("made")
        return path

    return folder


@pytest.fixture(scope="session")
def seam_run(once):
    """Return a finished run of SEAM on a few scenes, as `as_user.TINY_SEAM`; not to be changed."""

    def train(path):
        # From another folder than the repository.
        as_user.ok("train", *as_user.TINY_SEAM, f"--run_dir={path.name}", cwd=path.parent)

    return once("seam_run", train)


@pytest.fixture
def large_kernels_zero(monkeypatch):
    """Have kernels of over two million values start as zeros: to draw them takes seconds."""
    import keras

    draw = keras.initializers.VarianceScaling.__call__

    def start(self, shape, dtype=None):
        is_large = math.prod(shape) > 2_000_000
        return keras.ops.zeros(shape, dtype) if is_large else draw(self, shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", start)


@pytest.fixture(autouse=True)
def _fresh_state():
    """Reset what Keras and gin keep for the whole process."""
    import gin
    import keras
    import tensorflow as tf
    from tensorflow.python.eager import context

    policy = keras.config.dtype_policy()
    # Two strategies of one process would number their collective operations alike, and TensorFlow
    # remembers the shapes under each number.
    tf.distribute.MirroredStrategy._collective_key_base += 1_000_000
    yield
    keras.config.set_dtype_policy(policy)
    # Nothing is kept in what TensorFlow has made ready to run, and much of it will run again.
    with mock.patch.object(context.Context, "clear_kernel_cache"):
        keras.backend.clear_session(free_memory=False)  # a collection takes 0.3 s
    gin.clear_config()
