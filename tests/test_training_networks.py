import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.trained_network import load_network
from wsss_tf.training import networks
from wsss_tf.training.precision import set_tensor_float_32


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a run folder with a small network, of which only the file counts."""
    x = keras.Input((None, None, 3))
    y = keras.layers.Conv2D(4, 3, name="first")(x)
    net = keras.Model(x, {"cam": keras.layers.Conv2D(2, 1, name="second")(y)})
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.checkpoints.mkdir()
    net.save(run.network())
    return run, [np.asarray(value) for value in net.get_weights()]


def replaced(contents, folder, changes):
    """Return a `.keras` file with members changed; None leaves one out."""
    path = folder / "changed.zip"
    with zipfile.ZipFile(contents) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            value = changes.get(name, old.read(name))
            if value is not None:
                new.writestr(name, value)
    return path.read_bytes()


def damaged_files(path, folder):
    """Yield damaged copies of a network's file, 27 of them."""
    contents = path.read_bytes()
    size = len(contents)
    yield b""
    yield b"hello"
    yield b"PK\x03\x04" + b"\0" * 100
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.999):
        yield contents[: int(share * size)]
    for place in np.linspace(40, size - 30, 8).astype(int):
        changed = bytearray(contents)
        changed[place : place + 8] = bytes(255 - value for value in changed[place : place + 8])
        yield bytes(changed)
    yield contents[size // 2 :]
    yield b"\0" * size
    for name in ("metadata.json", "config.json", "model.weights.h5"):
        yield replaced(path, folder, {name: None})
    for value in (b"{", b"[]", b"{}", b"null", b"\xff"):
        yield replaced(path, folder, {"config.json": value})
    yield replaced(path, folder, {"model.weights.h5": b"hello"})


def test_a_damaged_network_is_a_line(saved, tmp_path):
    run, weights = saved
    said = []
    for contents in damaged_files(run.network(), tmp_path):
        other = RunFolder(tmp_path / "other")
        other.checkpoints.mkdir(parents=True, exist_ok=True)
        other.network().write_bytes(contents)
        try:
            net = load_network(other)
        except UserError as error:
            said.append(str(error))
        else:  # a byte that says nothing
            for one, value in zip(weights, net.get_weights(), strict=True):
                np.testing.assert_array_equal(one, value)
    assert len(said) >= 20
    for line in said:
        assert line.startswith(f"{other.network()}: is damaged, or no file of Keras (")
        assert "\n" not in line


def of_another_version(path):
    """Have a layer of a `.keras` file take an argument that this version of Keras does not know."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    for layer in config["config"]["layers"]:
        layer["config"]["of_a_later_version"] = True
    metadata["keras_version"] = "9.9.9"
    changes = {
        "config.json": json.dumps(config).encode(),
        "metadata.json": json.dumps(metadata).encode(),
    }
    path.write_bytes(replaced(path, path.parent, changes))


def test_a_network_of_another_version_is_built_from_the_recipe(seam_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(seam_run, run)
    expected = load_network(run)
    of_another_version(run.network())
    with pytest.raises(ValueError, match="deserialized"):
        networks.load_network(run.network())
    recipe = recipe_lib.load_run(run)
    net = load_network(run)
    for one, value in zip(expected.variables, net.variables, strict=True):
        assert one.path == value.path
        np.testing.assert_array_equal(one, value)
    picture = np.random.default_rng(0).normal(size=(1, 40, 56, 3)).astype(np.float32)
    for name, value in expected(picture).items():
        np.testing.assert_allclose(net(picture)[name], value, rtol=1e-5, atol=1e-6)
    # The settings of the recipe that was loaded before still hold.
    assert len(recipe.source(split="train")) == 12


def test_a_loaded_network_is_as_exact_as_its_recipe_says(seam_run):
    is_allowed = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_allowed()
    recipe = recipe_lib.load_run(seam_run)
    try:
        for allowed in (True, False):
            load_network(seam_run, gin_bindings=[f"Recipe.tensor_float_32={allowed}"])
            assert is_allowed() == allowed
    finally:
        set_tensor_float_32(before)
    # The settings of the recipe that was loaded before still hold.
    assert len(recipe.source(split="train")) == 12


def test_weights_of_another_network_are_named_with_both_versions(seam_run, saved, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(seam_run, run)
    shutil.copy(saved[0].network(), run.network())
    of_another_version(run.network())
    with pytest.raises(UserError, match=rf"Keras 9\.9\.9 .* with {keras.__version__} .*weights"):
        load_network(run)
