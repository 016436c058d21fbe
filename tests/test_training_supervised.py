"""The supervised step: what it minimises, that it learns, and that replicas do the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from two_replicas import train_on_one_and_two

from wsss_tf.losses.segmentation import softmax_cross_entropy
from wsss_tf.ops import resize_bilinear
from wsss_tf.training.supervised import SupervisedStep, supervised_step

K = 3


def network(stride=1, aux=False):
    """A few convolutions with BatchNorm to logits at 1/stride of the size."""
    image = keras.Input((None, None, 3))
    x = image
    for i in range(2):
        x = layers.Conv2D(16, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(momentum=0.5, synchronized=True, name=f"bn{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    if stride > 1:
        x = layers.AveragePooling2D(stride, name="pool")(x)
    outputs = {"logits": layers.Conv2D(K, 1, name="classifier")(x)}
    if aux:
        outputs["aux_logits"] = layers.Conv2D(K, 1, name="aux_classifier")(x)
    return keras.Model(image, outputs)


def scenes(size=32):
    """Four images with a red and a green box; a strip of unequal width is ignored in each."""
    rng = np.random.default_rng(0)
    image = 0.3 * rng.normal(size=(4, size, size, 3))
    mask = np.zeros((4, size, size), np.uint8)
    for i in range(4):
        for k in (1, 2):
            top, left = rng.integers(0, size // 2, 2)
            image[i, top : top + 12, left : left + 9] = [2 * (k == 1), 2 * (k == 2), 0]
            mask[i, top : top + 12, left : left + 9] = k
        mask[i, :, size - 7 * i :] = 255
    return {"image": image.astype("float32"), "mask": mask}


@pytest.fixture
def batch():
    keras.utils.set_random_seed(0)
    return scenes()


def test_loss_is_the_mean_over_the_valid_pixels_of_the_batch(batch):
    net = network(aux=True)
    terms = supervised_step(net, aux_weight=0.4).loss_terms(batch)
    assert {name: term.shape for name, term in terms.items()} == {
        "loss_seg": (4,), "loss_aux": (4,)
    }  # fmt: skip
    outputs = net(batch["image"], training=True)
    for name, output, factor in (("loss_seg", "logits", 1), ("loss_aux", "aux_logits", 0.4)):
        probability = tf.nn.softmax(outputs[output]).numpy()
        valid = batch["mask"] != 255
        picked = probability[valid][np.arange(valid.sum()), batch["mask"][valid]]
        np.testing.assert_allclose(np.mean(terms[name]), -factor * np.log(picked).mean(), rtol=2e-5)
    everywhere = supervised_step(net, over_all_pixels=True).loss_terms(batch)["loss_seg"]
    share = (batch["mask"] != 255).mean()
    np.testing.assert_allclose(np.mean(everywhere), np.mean(terms["loss_seg"]) * share, rtol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_small_logits_are_resized_to_the_mask(batch, align_corners):
    net = network(stride=4)
    [term] = supervised_step(net, align_corners=align_corners).loss_terms(batch).values()
    logits = resize_bilinear(net(batch["image"], training=True)["logits"], (32, 32), align_corners)
    total, count = softmax_cross_entropy(logits, batch["mask"])
    np.testing.assert_allclose(np.mean(term), np.sum(total) / np.sum(count), rtol=1e-5)


def test_batch_without_any_valid_pixel_costs_nothing(batch):
    batch["mask"] = np.full_like(batch["mask"], 255)
    [term] = supervised_step(network()).loss_terms(batch).values()
    np.testing.assert_array_equal(term, np.zeros(4))


class _StepWithSize(SupervisedStep):
    """A method's own term, as CPNet's or SANet's would be."""

    extra_term_names = ("loss_size",)

    def extra_terms(self, outputs, batch):
        return {"loss_size": tf.reduce_mean(tf.square(outputs["logits"]), axis=(1, 2, 3))}


def test_a_method_adds_its_terms(batch):
    step = _StepWithSize(network(aux=True), aux_weight=0.4)
    assert step.term_names == ("loss_seg", "loss_aux", "loss_size")
    assert list(step.loss_terms(batch)) == list(step.term_names)
    step.compile(keras.optimizers.SGD(0.1))
    history = step.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history
    assert history["loss"][0] == pytest.approx(
        sum(history[name][0] for name in step.term_names), rel=1e-5
    )


def test_missing_output_is_named():
    with pytest.raises(ValueError, match=r"aux_logits.*only \['logits'\]"):
        supervised_step(network(), aux_weight=0.4)


def test_overfits_four_images(batch):
    step = supervised_step(network())
    step.compile(keras.optimizers.Adam(0.03))
    data = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(data, epochs=4, steps_per_epoch=12, verbose=0).history
    assert history["loss_seg"][0] > 0.15
    assert history["loss_seg"][-1] < 0.05
    prediction = np.argmax(step.net(batch["image"], training=False)["logits"], -1)
    valid = batch["mask"] != 255
    iou = [
        ((prediction == k) & (batch["mask"] == k))[valid].sum()
        / ((prediction == k) | (batch["mask"] == k))[valid].sum()
        for k in range(K)
    ]
    assert np.mean(iou) > 0.9


def test_two_replicas_equal_one():
    batch = {name: array[[3, 0, 1, 2]] for name, array in scenes(24).items()}

    def make_step(is_single):
        step = supervised_step(network(aux=True), aux_weight=0.4)
        step.compile(keras.optimizers.SGD(0.2, momentum=0.9), run_eagerly=is_single)
        return step

    runs = train_on_one_and_two(make_step, batch)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name, values in losses.items():
        np.testing.assert_allclose(mirrored_losses[name], values, rtol=4e-6)
    for path, weight in weights.items():
        # Means over each replica's own pixels would be off by 1e-3.
        np.testing.assert_allclose(mirrored_weights[path], weight, rtol=4e-6, atol=2e-6)
