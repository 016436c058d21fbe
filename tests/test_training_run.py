"""Devices, initial weights, and checkpoints, each by itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_network import tiny_network

from wsss_tf.errors import UserError
from wsss_tf.training.callbacks import StopOnNonFinite
from wsss_tf.training.checkpoints import Checkpoints
from wsss_tf.training.devices import make_strategy
from wsss_tf.training.initial_weights import load_initial_weights, save_weights
from wsss_tf.training.optimizer import poly_sgd
from wsss_tf.training.precision import set_tensor_float_32
from wsss_tf.training.seam import seam_step

NEW = ("fc8", "f8_3", "f8_4", "f9")


def test_devices():
    assert make_strategy("one").num_replicas_in_sync == 1
    assert make_strategy(["CPU:0", "CPU:1"], batch_size=4).num_replicas_in_sync == 2
    with pytest.raises(UserError, match="batch_size = 3 cannot be split over 2 replicas"):
        make_strategy(["CPU:0", "CPU:1"], batch_size=3)
    with pytest.raises(UserError, match="no 'GPU:7' here"):
        make_strategy(["GPU:7"])
    with pytest.raises(UserError, match="'all'"):
        make_strategy("all")


def test_tensor_float_32_is_as_the_recipe_says():
    is_allowed = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_allowed()
    try:
        for allowed in (True, False):
            set_tensor_float_32(allowed)
            assert is_allowed() == allowed
            set_tensor_float_32(None)
            assert is_allowed() == allowed
    finally:
        set_tensor_float_32(before)


@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5"])
def test_initial_weights_round_trip(tmp_path, suffix):
    keras.utils.set_random_seed(1)
    source, target = tiny_network(3), tiny_network(3)
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        save_weights(source, path)
    elif suffix == ".keras":
        source.save(path)
    else:
        source.save_weights(path)
    loaded, missing, unused = load_initial_weights(target, path)
    assert len(loaded) == len(source.weights)
    assert missing == unused == []
    for a, b in zip(source.weights, target.weights):
        np.testing.assert_array_equal(a, b)


def test_initial_weights_of_a_backbone(tmp_path):
    source = tiny_network(3)
    save_weights(source, tmp_path / "w.npz", keep=lambda p: p.startswith("stage"), dtype="float16")
    target = tiny_network(7)  # another number of classes
    loaded, missing, unused = load_initial_weights(target, tmp_path / "w.npz")
    assert loaded == [f"stage{i}/{x}" for i in (2, 3, 4) for x in ("bias", "kernel")]
    assert {path.split("/")[-2] for path in missing} == set(NEW)
    assert unused == []


def test_initial_weights_that_do_not_fit(tmp_path):
    save_weights(tiny_network(3), tmp_path / "w.npz")
    with pytest.raises(UserError, match=r"fc8/kernel has shape \(1, 1, 16, 4\).*\(1, 1, 16, 8\)"):
        load_initial_weights(tiny_network(7), tmp_path / "w.npz")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(UserError, match="no variable of this network"):
        load_initial_weights(tiny_network(3), tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read"):
        load_initial_weights(tiny_network(3), tmp_path / "broken.npz")
    with pytest.raises(UserError, match="no such file"):
        load_initial_weights(tiny_network(3), tmp_path / "none.npz")


def _step(num_classes=3, dropout=0.0):
    step = seam_step(tiny_network(num_classes, dropout), rescale=0.5)
    step.compile(optimizer=poly_sgd(10, NEW, momentum=0.9))
    return step


def _batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "image": tf.constant(rng.normal(size=(2, 32, 32, 3)), tf.float32),
        "labels": tf.constant([[1.0, 0, 1], [0, 1, 0]]),
        "uniform": tf.zeros([2, 4]),
    }


def test_checkpoint_restores_weights_slots_step_and_dropout(tmp_path):
    first = _step(dropout=0.5)
    checkpoints = Checkpoints(first, tmp_path)
    assert checkpoints.restore() == 0
    for i in range(3):
        first.train_step(_batch(i))
    checkpoints.save(miou=0.5)
    checkpoints.save(miou=0.4)  # not better
    second = _step(dropout=0.5)
    restored = Checkpoints(second, tmp_path)
    assert restored.restore() == 3
    assert float(restored.best.numpy()) == 0.5
    first.train_step(_batch(3))
    second.train_step(_batch(3))
    for a, b in zip(first.net.weights, second.net.weights):
        np.testing.assert_array_equal(a, b)
    assert {p.name for p in tmp_path.glob("*.keras")} == {"best.keras", "last.keras"}


def test_what_a_killed_training_left_beside_its_checkpoints_is_removed(tmp_path):
    step = _step()
    checkpoints = Checkpoints(step, tmp_path)
    for i in range(3):
        step.train_step(_batch(i))
        checkpoints.save()
    whole = {path.name for path in tmp_path.iterdir()}
    # A network, TensorFlow's folder and state file as they are while they are written, and the
    # checkpoint that the newest one stands for, not yet removed.
    (tmp_path / ".best.01ab23cd.keras").write_text("half")
    (tmp_path / ".wsss_tf-01ab23cd.keras").write_text("half")
    (tmp_path / "checkpoint.tmp0123").write_text("half")
    (tmp_path / "step-4_temp").mkdir()
    (tmp_path / "step-4_temp/part-00000-of-00001.data-00000-of-00001").write_text("half")
    (tmp_path / "step-1.index").write_text("old")
    again = Checkpoints(_step(), tmp_path)
    again.remove_left_overs()
    assert {path.name for path in tmp_path.iterdir()} == whole
    assert again.restore() == 3


def test_checkpoints_without_their_list_are_left_alone(tmp_path):
    Checkpoints(_step(), tmp_path).save()
    (tmp_path / "checkpoint").unlink()
    whole = {path.name for path in tmp_path.iterdir()}
    Checkpoints(_step(), tmp_path).remove_left_overs()
    assert {path.name for path in tmp_path.iterdir()} == whole


def test_checkpoint_of_another_network_is_refused(tmp_path):
    Checkpoints(_step(), tmp_path).save()
    with pytest.raises(UserError, match="not a checkpoint of this network"):
        Checkpoints(_step(num_classes=5), tmp_path).restore()


def test_non_finite_loss_names_the_terms():
    step = _step()
    callback = StopOnNonFinite()
    callback.set_model(step)
    callback.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(UserError, match=r"step 0: .*loss_er nan"):
        callback.on_train_batch_end(0, {"loss_er": float("nan"), "loss": float("nan")})
