import collections

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.data import batches
from wsss_tf.data.source import Source
from wsss_tf.errors import UserError


def numbered(n):
    """A source whose image at position i holds i in every pixel, with i % 3 as its only class."""

    def read(index):
        return {"image": tf.fill([4, 5, 3], tf.cast(index, tf.uint8))}

    return Source(
        name="numbered",
        split="train",
        class_names=("background", "a", "b", "c"),
        ids=tuple(f"image{i}" for i in range(n)),
        labels=np.eye(3, dtype=np.float32)[np.arange(n) % 3],
        read=read,
        has_masks=False,
    )


def augment(example, rng_seed):
    noise = tf.random.stateless_uniform([4, 5, 3], rng_seed)
    return {**example, "image": tf.cast(example["image"], tf.float32) + noise, "rng_seed": rng_seed}


def take(count, n=11, batch_size=3, **options):
    options = {"seed": 5, **options}
    dataset = batches.training_batches(numbered(n), augment, batch_size, **options)
    return [{k: v.numpy() for k, v in batch.items()} for batch in dataset.take(count)]


def assert_equal(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected):
        assert batch.keys() == other.keys()
        for key, value in batch.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_batch_holds_what_the_training_step_needs():
    dataset = batches.training_batches(numbered(11), augment, 3, seed=0)
    spec = dataset.element_spec
    assert spec["image"] == tf.TensorSpec([3, 4, 5, 3], tf.float32)
    assert spec["labels"] == tf.TensorSpec([3, 3], tf.float32)
    assert spec["index"] == tf.TensorSpec([3], tf.int64)
    assert "id" not in spec
    assert spec["uniform"] == tf.TensorSpec([3, batches.UNIFORM_DRAWS], tf.float32)
    assert spec["rng_seed"] == tf.TensorSpec([3, 2], tf.int32)
    [batch] = take(1)
    for image, labels, index in zip(batch["image"], batch["labels"], batch["index"]):
        number = int(image.min())
        assert index == number
        assert labels.argmax() == number % 3


@pytest.mark.parametrize("first_step", [1, 3, 4, 7])
def test_resumed_equals_uninterrupted(first_step):
    assert_equal(take(9 - first_step, first_step=first_step), take(9)[first_step:])


def test_every_example_once_an_epoch():
    epochs = np.stack([batch["index"] for batch in take(8 * 4, n=12)]).reshape(8, 12)
    for epoch in epochs:
        assert len(set(epoch)) == 12
    assert len({tuple(epoch) for epoch in epochs}) == 8  # another order each time


def test_remainder_is_left_out_of_an_epoch_but_not_for_ever():
    assert batches.steps_per_epoch(numbered(11), 3) == 3
    epochs = np.stack([batch["index"] for batch in take(40 * 3)]).reshape(40, 9)
    for epoch in epochs:
        assert len(set(epoch)) == 9
    seen = collections.Counter(epochs.ravel())
    assert len(seen) == 11
    assert min(seen.values()) > 20  # of 40, where 32.7 are expected


def test_random_numbers_differ_by_example_step_and_seed():
    batches = take(40)
    seeds = {tuple(seed) for batch in batches for seed in batch["rng_seed"]}
    assert len(seeds) == 120
    uniform = np.concatenate([batch["uniform"] for batch in batches])
    assert len(np.unique(uniform)) == uniform.size
    assert 0 <= uniform.min() < 0.02
    assert 0.98 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.05
    [other] = take(1, seed=6)
    assert not np.array_equal(other["index"], batches[0]["index"])
    assert not np.array_equal(other["uniform"], batches[0]["uniform"])
    assert_equal(take(40), batches)


def test_two_replicas_split_each_batch_by_position():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")][:2]
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")
    strategy = tf.distribute.MirroredStrategy(devices)
    dataset = batches.training_batches(numbered(11), augment, 4, seed=5)
    distributed = iter(strategy.experimental_distribute_dataset(dataset))
    for expected in take(5, batch_size=4):
        batch = next(distributed)
        for key, value in expected.items():
            parts = strategy.experimental_local_results(batch[key])
            assert [len(part) for part in parts] == [2, 2]
            np.testing.assert_array_equal(np.concatenate(parts), value)


@pytest.mark.parametrize(("hosts", "replicas"), [(2, 2), (2, 4), (1, 2), (4, 4)])
def test_hosts_share_each_batch_by_position(hosts, replicas):
    whole = take(5, batch_size=8)
    per_host = replicas // hosts
    parts = []
    for host in range(hosts):
        context = tf.distribute.InputContext(hosts, host, replicas)
        batches = take(3 * per_host, batch_size=8, first_step=2, input_context=context)
        assert all(len(batch["index"]) == 8 // replicas for batch in batches)
        ids = np.concatenate([batch["index"] for batch in batches])
        parts.append(ids.reshape(3, 8 // hosts))
    expected = np.stack([batch["index"] for batch in whole[2:]])
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)


def test_batch_that_hosts_cannot_share():
    context = tf.distribute.InputContext(4, 0, 4)
    with pytest.raises(ValueError, match="6"):
        take(1, batch_size=6, input_context=context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**31}, "seed = 2147483648"),
    ],
)
def test_user_errors(options, message):
    with pytest.raises(UserError, match=message):
        take(1, **options)


def test_as_many_examples_as_a_batch():
    assert sorted(take(1, n=3)[0]["index"]) == [0, 1, 2]
    assert {batch["index"][0] for batch in take(3, n=1, batch_size=1)} == {0}


def test_fewer_examples_than_a_batch_are_drawn_again():
    assert batches.steps_per_epoch(numbered(3), 8) == 1
    taken = take(6, n=3, batch_size=8)
    drawn = np.concatenate([batch["index"] for batch in taken])
    passes = drawn.reshape(16, 3)
    assert (np.sort(passes) == [0, 1, 2]).all()
    assert len({tuple(one) for one in passes}) > 3
    seeds = {tuple(seed) for batch in taken for seed in batch["rng_seed"]}
    assert len(seeds) == 48  # each time augmented in another way
    assert_equal(take(2, n=3, batch_size=8, first_step=4), taken[4:])
