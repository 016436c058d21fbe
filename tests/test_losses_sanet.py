import numpy as np
import pytest
import tensorflow as tf
from golden_weights import near

from wsss_tf.losses.sanet import categorical_loss, class_presence

CASES = ("plain", "ragged", "onevoid", "allvoid")


@pytest.mark.parametrize("case", CASES)
def test_categorical_loss_agrees_with_the_reference(golden, case):
    data = golden("sanet/sanet_losses")
    target = data[f"{case}.cat_target"]
    presence = class_presence(data[f"{case}.label"], target.shape[1])
    np.testing.assert_array_equal(presence, target)
    logits = tf.constant(data[f"{case}.y_cat"])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_mean(categorical_loss(presence, logits))
    near(loss, data[f"{case}.l_cat_mean"], 1e-4)
    summed = categorical_loss(presence, logits, "sum")
    assert summed.shape == (len(target),)
    near(tf.reduce_mean(summed), data[f"{case}.l_cat_sum"], 1e-4)
    # Its weight in the total is 0.2, and nothing else reaches these logits.
    near(0.2 * tape.gradient(loss, logits), data[f"{case}.d_y_cat"], 2e-4)


def test_class_presence_by_hand():
    mask = np.array([[[0, 2, 255]], [[255, 255, 255]], [[1, 1, 3]]], np.uint8)
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
    np.testing.assert_array_equal(class_presence(mask, 4), expected)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None], tf.uint8)])
    def in_graph(mask):
        return class_presence(mask, 4)

    np.testing.assert_array_equal(in_graph(mask), expected)


def test_unknown_reduction():
    with pytest.raises(ValueError, match="'max'"):
        categorical_loss(np.zeros((1, 2)), np.zeros((1, 2)), "max")
