import numpy as np
import pytest
import tensorflow as tf
from golden_weights import near

from wsss_tf.losses.cpnet import affinity_loss, affinity_terms, downsample_mask

CASES = ("generic6x6", "generic8x10", "singletons", "oneclass", "allclasses")
TERMS = {"unary": "unary", **{t: f"{t}_loss" for t in ("recall", "specificity", "precision")}}


def classes(mask):
    """Return K: enough classes for the labels of a golden case."""
    return int(mask[mask != 255].max()) + 1


def ideal_affinity(mask):
    """Return which positions share a class, float32 [B, N, N]; ignored ones are a class too."""
    flat = np.reshape(mask, (len(mask), -1))
    return (flat[:, :, None] == flat[:, None, :]).astype(np.float32)


@pytest.mark.parametrize("case", range(4))
def test_labels_and_affinity_agree_with_the_official_code(golden, case):
    data = golden("cpnet/ideal_affinity")
    label, scaled = data[f"label_{case}"], data[f"scaled_{case}"]
    picked = downsample_mask(label, scaled.shape[1:])
    np.testing.assert_array_equal(picked, scaled)
    np.testing.assert_array_equal(ideal_affinity(picked), data[f"affinity_{case}"])


def test_the_papers_example(golden):
    data = golden("cpnet/ideal_affinity")
    affinity = ideal_affinity(data["figure_label"][None])
    np.testing.assert_array_equal(affinity[0], data["figure_affinity"])
    np.testing.assert_array_equal(affinity[0][0], [1, 0, 0, 0, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_agree_with_the_official_code(golden, case):
    data = {
        name.removeprefix(f"{case}."): array
        for name, array in golden("cpnet/affinity_loss").items()
        if name.startswith(f"{case}.")
    }
    label = data["label"]
    num_classes = classes(label)
    np.testing.assert_array_equal(ideal_affinity(label), data["affinity"])
    logits = tf.constant(data["logits"])
    near(tf.sigmoid(logits), data["prob"], 1e-4)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        terms = affinity_terms(logits, label, num_classes)
        means = {name: tf.reduce_mean(term) for name, term in terms.items()}
        total = tf.reduce_mean(affinity_loss(logits, label, num_classes))
    for name, golden_term in TERMS.items():
        assert terms[name].shape == (len(label),)
        near(means[name], data[golden_term], 1e-4)
        near(tape.gradient(means[name], logits), data[f"d_logits_{golden_term}"], 2e-4)
    near(total, data["total"], 1e-4)
    gradient = tape.gradient(total, logits).numpy()
    near(gradient, data["d_logits"], 2e-4)
    # d P / d logits = P (1 - P): the gradient to P, where that is not nearly zero.
    p = data["prob"]
    slope = p * (1 - p)
    away = slope > 1e-3
    near(np.where(away, gradient / slope, 0), np.where(away, data["d_prob"], 0), 2e-3)


def test_per_row_ratios_agree_with_the_official_code(golden):
    data = golden("cpnet/affinity_loss")
    for case in CASES:
        logits, label = data[f"{case}.logits"], data[f"{case}.label"]
        terms = affinity_terms(logits, label, classes(label))
        for name in ("recall", "specificity", "precision"):
            ratio = data[f"{case}.{name}"]
            rows = np.where(ratio > 0, -np.log(np.where(ratio > 0, ratio, 1)), 100)
            near(terms[name], rows.mean(axis=1), 1e-4)


def random_case(batch=2, size=(3, 5), num_classes=4, ignore=True):
    rng = np.random.default_rng(0)
    n = size[0] * size[1]
    mask = rng.integers(0, num_classes, (batch, *size))
    if ignore:
        mask[:, -1, 1:] = 255
    return rng.normal(size=(batch, n, n)).astype(np.float32), mask


def by_definition(logits, mask, masked):
    """The terms of one image from the N x N map itself, in float64."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    flat = mask.ravel()
    if masked:
        p, flat = p[flat != 255][:, flat != 255], flat[flat != 255]
    a = (flat[:, None] == flat).astype(float)
    v = a - np.eye(len(a))
    tp = (p * v).sum(1)
    ratios = {
        "recall": (tp, v.sum(1)),
        "specificity": (((1 - p) * (1 - a)).sum(1), (1 - a).sum(1)),
        "precision": (tp, p.sum(1)),
    }
    terms = {"unary": -np.where(a > 0, np.log(p), np.log(1 - p)).mean()}
    for name, (top, bottom) in ratios.items():
        counted = np.ones(len(a), bool)
        if masked:
            counted = (1 - a).sum(1) > 0 if name == "specificity" else v.sum(1) > 0
        rows = [-np.log(t / b) if t > 0 else 100 for t, b in zip(top, bottom)]
        terms[name] = np.mean(np.array(rows)[counted]) if counted.any() else 0
    return terms


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_classes", [2, 4, 20])
def test_terms_by_definition(masked, num_classes):
    logits, mask = random_case(num_classes=num_classes)
    terms = affinity_terms(logits, mask, num_classes, masked)
    for i in range(len(mask)):
        for name, expected in by_definition(logits[i], mask[i], masked).items():
            np.testing.assert_allclose(terms[name][i], expected, rtol=1e-5)


def test_masked_image_without_labels_is_zero_with_finite_gradients():
    logits, mask = random_case()
    mask[0] = 255
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = affinity_loss(logits, mask, 4, masked=True)
    assert loss[0] == 0
    assert loss[1] > 0
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[0].any()
    assert np.isfinite(gradient).all()
    valid = mask[1].ravel() != 255
    assert not gradient[1][:, ~valid].any()
    assert not gradient[1][~valid].any()
    assert gradient[1][valid][:, valid].all()


def test_weights_and_the_order_of_the_batch():
    logits, mask = random_case(batch=3)
    terms = affinity_terms(logits, mask, 4)
    loss = affinity_loss(logits, mask, 4, unary_weight=2.0, global_weight=0.5)
    expected = 2 * terms["unary"] + 0.5 * (
        terms["recall"] + terms["specificity"] + terms["precision"]
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(
        affinity_loss(logits[::-1], mask[::-1], 4),
        affinity_loss(logits, mask, 4)[::-1],
        rtol=1e-5,
    )


def test_sizes_known_only_in_the_graph():
    logits, mask = random_case()

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, 15, 15]),
            tf.TensorSpec([None, None, None], tf.int32),
        ],
    )
    def loss(logits, mask):
        return affinity_loss(logits, downsample_mask(mask, (3, 5)), 4)

    big = np.repeat(np.repeat(mask, 8, axis=1), 8, axis=2)
    np.testing.assert_allclose(
        loss(logits, big.astype("int32")), affinity_loss(logits, mask, 4), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits, mask = random_case()
    half = tf.cast(logits, dtype)
    loss = affinity_loss(half, mask, 4)
    assert loss.dtype == tf.float32
    np.testing.assert_array_equal(loss, affinity_loss(tf.cast(half, "float32"), mask, 4))
