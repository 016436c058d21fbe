"""The steps of CPNet and SANet: their terms, that they learn, and that replicas do the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_backbone import tiny_backbone
from two_replicas import train_on_one_and_two

from wsss_tf.losses.cpnet import affinity_loss, downsample_mask
from wsss_tf.losses.sanet import categorical_loss, class_presence
from wsss_tf.losses.segmentation import softmax_cross_entropy
from wsss_tf.models.cpnet import cpnet_network
from wsss_tf.models.sanet import sanet_network
from wsss_tf.training.cpnet import cpnet_step
from wsss_tf.training.sanet import sanet_step

K = 3
SIZE = (32, 48)


def cpnet(**options):
    return cpnet_network(K, crop_size=SIZE, backbone=tiny_backbone, dropout=0.0, **options)


def sanet(**options):
    return sanet_network(K, backbone=tiny_backbone, dropout=0.0, **options)


METHODS = {
    "cpnet": (cpnet, cpnet_step, ["loss_seg", "loss_aux", "loss_prior"]),
    "sanet": (sanet, sanet_step, ["loss_seg", "loss_cat", "loss_den"]),
}


def each_method(test):
    return pytest.mark.parametrize(("network", "step", "names"), METHODS.values(), ids=METHODS)(
        test
    )


@pytest.fixture
def batch():
    """Four images of coloured squares of 16 pixels; a strip of unequal width is ignored in each."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    cells = rng.integers(0, K, (4, 2, 3))
    mask = np.repeat(np.repeat(cells, 16, axis=1), 16, axis=2)
    image = 2 * (mask[..., None] == np.arange(K)) + 0.3 * rng.normal(size=(4, *SIZE, 3))
    mask[3][mask[3] == 2] = 0  # not every image shows every class
    for i in range(4):
        mask[i, :, SIZE[1] - 5 * i :] = 255
    return {"image": image.astype("float32"), "mask": mask.astype("uint8")}


def global_mean(logits, mask):
    total, count = softmax_cross_entropy(logits, mask)
    return np.sum(total) / np.sum(count)


def means(step, batch):
    return {name: np.mean(term) for name, term in step.loss_terms(batch).items()}


def test_cpnet_terms(batch):
    net = cpnet()
    step = cpnet_step(net)
    assert list(step.loss_terms(batch)) == list(step.term_names) == METHODS["cpnet"][2]
    outputs = net(batch["image"], training=True)
    low = downsample_mask(batch["mask"], (4, 6))
    expected = {
        "loss_seg": global_mean(outputs["logits"], batch["mask"]),
        "loss_aux": 0.4 * global_mean(outputs["aux_logits"], batch["mask"]),
        "loss_prior": np.mean(affinity_loss(outputs["prior"], low, K)),
    }
    got = means(step, batch)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4)
    masked = means(cpnet_step(net, masked_affinity=True, prior_weight=2.0), batch)
    value = 2 * np.mean(affinity_loss(outputs["prior"], low, K, masked=True))
    np.testing.assert_allclose(masked["loss_prior"], value, rtol=1e-4)
    np.testing.assert_allclose(masked["loss_seg"], expected["loss_seg"], rtol=1e-4)
    parts = [
        means(cpnet_step(net, **{off: 0.0}), batch)["loss_prior"]
        for off in ("unary_weight", "global_weight")
    ]
    np.testing.assert_allclose(sum(parts), expected["loss_prior"], rtol=1e-4)
    assert min(parts) > 0
    share = (batch["mask"] != 255).mean()
    everywhere = means(cpnet_step(net, over_all_pixels=True), batch)
    np.testing.assert_allclose(everywhere["loss_seg"], expected["loss_seg"] * share, rtol=1e-4)


def test_cpnet_hard_pixels_are_for_the_segmentation_loss(batch):
    net = cpnet()
    plain, step = means(cpnet_step(net), batch), cpnet_step(net, hard_probability=0.2)
    hard = means(step, batch)
    for name in ("loss_aux", "loss_prior"):
        np.testing.assert_allclose(hard[name], plain[name], rtol=1e-4)
    logits = net(batch["image"], training=True)["logits"]
    sums = softmax_cross_entropy(logits, batch["mask"], hard_probability=0.2)
    assert 0 < np.sum(sums[1]) < (batch["mask"] != 255).sum()
    np.testing.assert_allclose(hard["loss_seg"], np.sum(sums[0]) / np.sum(sums[1]), rtol=1e-4)
    assert hard["loss_seg"] > plain["loss_seg"]


def test_cpnet_variants(batch):
    def terms(net, **options):
        return list(cpnet_step(net, **options).loss_terms(batch))

    assert terms(cpnet(), prior_weight=None) == ["loss_seg", "loss_aux"]
    net = cpnet(context="aggregation", auxiliary=False)
    assert terms(net, prior_weight=None, aux_weight=None) == ["loss_seg"]
    with pytest.raises(ValueError, match=r"prior_weight to None"):
        cpnet_step(net)
    with pytest.raises(ValueError, match="aux_logits"):
        cpnet_step(net, prior_weight=None)


def test_affinity_loss_trains_the_prior(batch):
    net = cpnet()
    step = cpnet_step(net)
    with tf.GradientTape() as tape:
        term = tf.reduce_mean(step.loss_terms(batch)["loss_prior"])
    variables = {v.path: v.value for v in net.trainable_variables}
    reached = {p.split("/")[0] for p, g in tape.gradient(term, variables).items() if g is not None}
    trunk = {p.split("/")[0] for p in variables if p.startswith(("conv", "image"))}
    assert reached == {"aggregation", "context_prior"} | trunk


def test_sanet_terms(batch):
    net = sanet()
    step = sanet_step(net)
    assert list(step.loss_terms(batch)) == list(step.term_names) == METHODS["sanet"][2]
    outputs = net(batch["image"], training=True)
    presence = class_presence(batch["mask"], K)
    assert np.asarray(presence).tolist()[3] == [1, 1, 0]
    categorical = np.mean(categorical_loss(presence, outputs["category_logits"]))
    expected = {
        "loss_seg": global_mean(outputs["logits"], batch["mask"]),
        "loss_cat": 0.2 * categorical,
        "loss_den": 0.8 * global_mean(outputs["dense_logits"], batch["mask"]),
    }
    got = means(step, batch)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4)
    summed = means(sanet_step(net, cat_weight=1.0, cat_reduction="sum"), batch)
    np.testing.assert_allclose(summed["loss_cat"], K * categorical, rtol=1e-4)


def test_sanet_variants(batch):
    net = sanet()
    assert list(sanet_step(net, cat_weight=None).loss_terms(batch)) == ["loss_seg", "loss_den"]
    assert list(sanet_step(net, den_weight=None).loss_terms(batch)) == ["loss_seg", "loss_cat"]
    with pytest.raises(ValueError, match=r"category_logits.*dense_logits"):
        sanet_step(cpnet())


@pytest.mark.large
@each_method
def test_overfits_four_images(batch, network, step, names):
    step = step(network())
    step.compile(keras.optimizers.SGD(0.1, momentum=0.9))  # Adam's graph is twice as large
    data = tf.data.Dataset.from_tensors(batch).repeat()
    history = step.fit(data, epochs=4, steps_per_epoch=10, verbose=0).history
    assert set(history) == {*names, "loss"}
    assert history["loss_seg"][0] > 0.5
    assert history["loss_seg"][-1] < 0.3  # logits of stride 8 cannot follow an edge exactly
    prediction = np.argmax(step.net(batch["image"], training=True)["logits"], -1)
    valid = batch["mask"] != 255
    assert (prediction == batch["mask"])[valid].mean() > 0.9


@pytest.mark.large
@each_method
def test_two_replicas_equal_one(batch, network, step, names):
    # CPNet's with hard pixels, of which the replicas have different numbers.
    options = {"hard_probability": 0.4, "hard_share": 0.25} if step is cpnet_step else {}
    batch = {name: array[[3, 0, 1, 2]] for name, array in batch.items()}

    def make_step(is_single):
        trained = step(network(), **options)
        trained.compile(keras.optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
        return trained

    runs = train_on_one_and_two(make_step, batch, steps=2)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name in names:
        np.testing.assert_allclose(mirrored_losses[name], losses[name], rtol=2e-5)
    for path, weight in weights.items():
        if "seed_generator" not in path:
            np.testing.assert_allclose(mirrored_weights[path], weight, rtol=1e-4, atol=1e-5)
