"""A profile of some steps, as TensorBoard's profile page reads it."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_network import tiny_network

from wsss_tf.training.loop import fit
from wsss_tf.training.optimizer import poly_sgd
from wsss_tf.training.seam import seam_step


def marked_steps(folder):
    """Return the numbers of the steps that a profile holds."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    path = max(folder.glob("plugins/profile/*/*.xplane.pb"))
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found = []
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        stats = {key: value.name for key, value in plane.stat_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            if names[event.metadata_id] == "train":
                found += [
                    stat.int64_value or stat.uint64_value
                    for stat in event.stats
                    if stats[stat.metadata_id] == "step_num"
                ]
    return sorted(found)


def batches(first_step, input_context=None):
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.normal(size=(2, 32, 32, 3)), tf.float32),
        "labels": tf.constant([[1.0, 0, 1], [0, 1, 0]]),
        "uniform": tf.zeros([2, 4]),
    }
    return tf.data.Dataset.from_tensors(batch).repeat()


@pytest.mark.large
def test_the_steps_asked_for_are_recorded_over_the_end_of_an_epoch(tmp_path):
    step = seam_step(tiny_network(3), rescale=0.5)
    step.compile(optimizer=poly_sgd(8, ("fc8", "f8_3", "f8_4", "f9")))
    fit(step, batches, 3, 5, tmp_path, profile_steps=(3, 4))
    assert marked_steps(tmp_path / "tensorboard") == [3, 4]
    # A longer run, which goes on from within the range and ends before its last step.
    fit(step, batches, 3, 7, tmp_path, profile_steps=(4, 100))
    assert marked_steps(tmp_path / "tensorboard") == [6, 7]
