import keras
import numpy as np
import pytest
import tensorflow as tf
from two_replicas import train_on_one_and_two

from wsss_tf import ops
from wsss_tf.backbones.resnet38 import _Blocks
from wsss_tf.losses.classification import sigmoid_cross_entropy
from wsss_tf.losses.seam import cross_equivariance, equivariance, minimum_pooling
from wsss_tf.models.seam import seam_head
from wsss_tf.training.affine import Affine
from wsss_tf.training.optimizer import poly_adam, poly_sgd
from wsss_tf.training.seam import seam_losses, seam_step

NEW_LAYERS = ("fc8", "f8_3", "f8_4", "f9")


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def shrink(x):
    """The paper's transform; without rotation its random numbers do not matter."""
    return Affine(0.3)(x, None)


WEIGHTS = {"er": 1.0, "ecr": 1.0, "minimum_pooling": 1.0}


@pytest.fixture
def seam_loss(golden):
    return golden("seam_loss")


def branches(data):
    """Return the golden outputs of the two branches as tensors."""
    return tuple(
        {name: tf.constant(data[f"{name}{branch}"]) for name in ("cam", "cam_rv")}
        for branch in (1, 2)
    )


def normalised(data):
    """Return the normalised, label-masked maps under their golden names."""
    mask = np.insert(data["label"], 0, 1, axis=1)[:, None, None, :]
    return {
        "norm_cam1": shrink(ops.max_norm(data["cam1"])) * mask,
        "norm_cam_rv1": shrink(ops.max_norm(data["cam_rv1"])) * mask,
        "norm_cam2": ops.max_norm(data["cam2"]) * mask,
        "norm_cam_rv2": ops.max_norm(data["cam_rv2"]) * mask,
    }


def test_maps_of_the_losses_agree_with_the_official_code(seam_loss):
    maps = normalised(seam_loss)
    for name, expected in maps.items():
        close(seam_loss[name], expected)
    for target, source in [("target_ecr1", "norm_cam2"), ("target_ecr2", "norm_cam1")]:
        close(ops.suppress_non_maxima(ops.with_background(maps[source])), seam_loss[target])
    close(shrink(seam_loss["img1"]), seam_loss["img2"])


def test_each_loss_agrees_with_the_official_code(seam_loss):
    maps, labels = normalised(seam_loss), seam_loss["label"]
    terms = {
        "loss_er": equivariance(maps["norm_cam1"], maps["norm_cam2"]),
        "loss_ecr1": cross_equivariance(maps["norm_cam2"], maps["norm_cam_rv1"]),
        "loss_ecr2": cross_equivariance(maps["norm_cam1"], maps["norm_cam_rv2"]),
    }
    for branch in "12":
        logits = seam_loss[f"cam{branch}"].mean(axis=(1, 2))
        close(logits, seam_loss[f"logits{branch}"])
        terms[f"loss_cls{branch}"] = sigmoid_cross_entropy(labels, logits[:, 1:])
        scores = seam_loss[f"cam_rv{branch}"][..., 1:] * labels[:, None, None, :]
        terms[f"loss_rvmin{branch}"] = minimum_pooling(scores)
    for name, term in terms.items():
        close(np.mean(term), seam_loss[name])


def test_losses_and_gradients_agree_with_the_official_code(seam_loss):
    first, second = branches(seam_loss)
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        terms = seam_losses(first, second, seam_loss["label"], shrink, WEIGHTS)
        means = {name: tf.reduce_mean(term) for name, term in terms.items()}
        loss = sum(means.values())
    assert {name: tuple(term.shape) for name, term in terms.items()} == {
        "loss_cls": (3,), "loss_rvmin": (3,), "loss_er": (3,), "loss_ecr": (3,)
    }  # fmt: skip
    close(means["loss_cls"] + means["loss_rvmin"], seam_loss["loss_cls"])  # named so there
    close(means["loss_er"], seam_loss["loss_er"])
    close(means["loss_ecr"], seam_loss["loss_ecr"])
    close(loss, seam_loss["loss"])
    gradients = tape.gradient(loss, [first, second])
    for branch, of_branch in zip("12", gradients):
        for name, gradient in of_branch.items():
            close(gradient, seam_loss[f"grad_{name}{branch}"], atol=1e-7)
        assert not np.any(of_branch["cam"][..., 0])


def test_terms_train_their_own_part(seam_loss):
    first, second = branches(seam_loss)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([first, second])
        terms = seam_losses(first, second, seam_loss["label"], shrink, WEIGHTS)
    trained = {
        name: {k for k in first if tape.gradient(term, first[k]) is not None}
        for name, term in terms.items()
    }
    assert trained == {
        "loss_cls": {"cam"}, "loss_er": {"cam"}, "loss_rvmin": {"cam_rv"}, "loss_ecr": {"cam_rv"}
    }  # fmt: skip


def test_weights_scale_the_terms(seam_loss):
    first, second = branches(seam_loss)
    labels = seam_loss["label"]
    plain = seam_losses(first, second, labels, shrink, WEIGHTS)
    factors = {"er": 2.0, "ecr": 3.0, "minimum_pooling": 0.0}
    scaled = seam_losses(first, second, labels, shrink, factors)
    for name, factor in zip(("cls", "er", "ecr", "rvmin"), (1, *factors.values())):
        close(scaled[f"loss_{name}"], factor * np.asarray(plain[f"loss_{name}"]), atol=1e-6)


def tiny_network():
    """Return two of the backbone's units, with trained BatchNorm, under the real head."""
    image = keras.Input((None, None, 3))
    blocks = _Blocks(width=1, train_batchnorm=True, synchronized=True, dropout=0, frozen_stages=0)
    x = blocks.conv(image, 16, 3, "conv1a")
    x, _ = blocks.residual(x, "b2", 16, 16, 2, (1, 1))
    x, side = blocks.residual(x, "b5", 16, 32, 1, (1, 2))
    features = {"stage2": side, "stage3": side, "stage4": blocks.norm_relu(x, "bn7")}
    return keras.Model(image, seam_head(image, features, 3, filters=(16, 16, 16), dropout=0))


def tiny_batch(size=24):
    """Return four images with a square of each of their classes' colours, red, green and blue."""
    rng = np.random.default_rng(0)
    labels = np.float32([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]])
    image = 0.3 * rng.normal(size=(4, size, size, 3))
    for i, k in np.argwhere(labels):
        top, left = rng.integers(0, size // 2, 2)
        image[i, top : top + size // 3, left : left + size // 3, k] += 2
    uniform = rng.random((4, 4))
    return {
        "image": image.astype("float32"),
        "labels": labels,
        "uniform": uniform.astype("float32"),
    }


TABLE_1 = {
    "cam": ({"siamese": False}, ["loss_cls"]),
    "er": ({"use_pcm": False}, ["loss_cls", "loss_er"]),
    "pcm": (
        {"hard_pixel_ratio": 1.0},
        ["loss_cls", "loss_rvmin", "loss_er", "loss_ecr"],
    ),
    "hard_pixels": ({}, ["loss_cls", "loss_rvmin", "loss_er", "loss_ecr"]),
}


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return tiny_network()


def test_rows_of_table_1(network):
    batch = tiny_batch()
    terms = {}
    for row, (options, names) in TABLE_1.items():
        step = seam_step(network, **options)
        terms[row] = {name: np.asarray(v) for name, v in step.loss_terms(batch).items()}
        assert list(terms[row]) == list(step.term_names) == names
        assert [metric.name for metric in step.metrics] == [*names, "loss"]
        assert all(v.shape == (4,) and np.all(v > 0) for v in terms[row].values())
    # A row adds a term and leaves the others as they were.
    close(terms["pcm"]["loss_er"], terms["er"]["loss_er"], atol=1e-6)
    close(terms["hard_pixels"]["loss_rvmin"], terms["pcm"]["loss_rvmin"], atol=1e-6)
    assert np.all(terms["hard_pixels"]["loss_ecr"] > terms["pcm"]["loss_ecr"])


def test_terms_without_minimum_pooling(network):
    step = seam_step(network, minimum_pooling_weight=None)
    assert list(step.loss_terms(tiny_batch())) == ["loss_cls", "loss_er", "loss_ecr"]


def test_backbone_learns_from_cls_and_er_and_the_pcm_from_the_rest(network):
    step = seam_step(network)
    with tf.GradientTape(persistent=True) as tape:
        terms = step.loss_terms(tiny_batch())
    head = {"f8_3/kernel", "f8_4/kernel", "pcm/f9/kernel"}
    variables = {v.path: v.value for v in network.trainable_variables}
    for name, term in terms.items():
        gradients = tape.gradient(term, variables)
        reached = {path for path, gradient in gradients.items() if gradient is not None}
        expected = variables.keys() - head if name in ("loss_cls", "loss_er") else head
        assert reached == expected, name


def test_ramp(network):
    step = seam_step(network, consistency_start=10, consistency_ramp=4)
    step.compile(poly_sgd(100, NEW_LAYERS))
    terms = []
    for iteration in (0, 10, 11, 14, 50):
        step.optimizer.iterations.assign(iteration)
        terms.append({k: np.mean(v) for k, v in step.loss_terms(tiny_batch()).items()})
    for name in terms[0]:
        shares = [1] * 5 if name == "loss_cls" else [0, 0, 0.25, 1, 1]
        close([term[name] / terms[-1][name] for term in terms], shares)


@pytest.mark.large
def test_overfits_four_images(network):
    step = seam_step(network)
    step.compile(poly_adam(50, NEW_LAYERS, learning_rate=0.02))
    dataset = tf.data.Dataset.from_tensors(tiny_batch()).repeat()
    history = step.fit(dataset, epochs=4, steps_per_epoch=10, verbose=0).history
    assert set(history) == {"loss", "loss_cls", "loss_er", "loss_ecr", "loss_rvmin"}
    assert history["loss_cls"][0] > 0.2
    assert history["loss_cls"][-1] < 0.05


@pytest.mark.large
def test_two_replicas_equal_one():
    batch = tiny_batch()
    order = [0, 3, 1, 2]  # the replicas see different classes
    batch = {name: array[order] for name, array in batch.items()}

    def make_step(is_single):
        step = seam_step(tiny_network())
        # Making a graph takes longer than three steps; test_commands.py has replicas in one.
        step.compile(poly_sgd(3, NEW_LAYERS, momentum=0.9), run_eagerly=True)
        return step

    runs = train_on_one_and_two(make_step, batch)
    (losses, weights), (mirrored_losses, mirrored_weights) = runs
    for name, values in losses.items():
        close(mirrored_losses[name], values, atol=2e-6)
    for path, weight in weights.items():  # with the statistics of BatchNorm
        close(mirrored_weights[path], weight, atol=2e-6)
