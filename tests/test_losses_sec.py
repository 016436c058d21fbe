import keras
import numpy as np
import pytest
import tensorflow as tf

from wsss_tf import ops
from wsss_tf.losses import sec


def close(actual, expected, atol=0.0, rtol=0.0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


def mean_and_gradient(function, logits):
    """Return the terms of a loss on the clipped softmax, and the gradient of their mean."""
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = function(sec.clipped_softmax(logits))
        loss = tf.reduce_mean(terms)
    return np.asarray(terms), np.asarray(tape.gradient(loss, logits))


# === Clipped softmax ===


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-11), ("float32", 1e-6)])
def test_clipped_softmax_agrees_with_the_reference(golden, dtype, atol):
    data = golden("sec/softmax_clip")
    logits = tf.constant(data["small_logits"].astype(dtype))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        probs = sec.clipped_softmax(logits)
        loss = tf.reduce_sum(probs * data["small_dy"].astype(dtype))
    close(probs, data["small_probs"], atol)
    close(tape.gradient(loss, logits), data["small_dlogits"], atol)
    close(
        sec.clipped_softmax(data["extreme_logits"].astype(dtype)), data["extreme_probs"], atol=atol
    )
    close(sec.clipped_softmax(data["logits"]), data["probs"], atol=1e-6)


def test_clipped_softmax_computes_in_float32():
    assert sec.clipped_softmax(np.float16([[0, 1]])).dtype == tf.float32


# === Weighted rank pooling ===


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [("float64", 1e-12, 1e-12), ("float32", 2e-6, 1e-6)]
)
@pytest.mark.parametrize("as_list", [False, True], ids=["one decay", "a decay a class"])
def test_rank_pooling_agrees_with_the_reference(golden, dtype, rtol, atol, as_list):
    data = golden("sec/gwrp")
    probs = tf.constant(data["small_probs"].astype(dtype))
    for d, scores, gradient in zip(data["d"], data["small_scores"], data["small_dprobs"]):
        decay = [d] * probs.shape[-1] if as_list else d
        with tf.GradientTape() as tape:
            tape.watch(probs)
            pooled = ops.weighted_rank_pooling(probs, decay)
        close(pooled, scores, rtol=rtol)
        close(tape.gradient(pooled, probs), gradient, atol=atol)
        tied = ops.weighted_rank_pooling(data["tied_probs"].astype(dtype), float(d))
        close(tied, data["tied_scores"][list(data["d"]).index(d)], rtol=2e-6)


def test_rank_pooling_of_the_full_size(golden):
    data = golden("sec/gwrp")
    probs = sec.clipped_softmax(data["logits"])
    for d, scores in zip(data["d"], data["scores"]):
        close(ops.weighted_rank_pooling(probs, d), scores, rtol=5e-6)


def test_rank_pooling_by_hand():
    scores = np.float32([4, 1, 2, 8]).reshape(1, 2, 2, 1)
    close(ops.weighted_rank_pooling(scores, 0.5), [[(8 + 2 + 0.5 + 0.125) / 1.875]], rtol=1e-6)
    both = np.concatenate([scores, -scores], axis=-1)
    close(ops.weighted_rank_pooling(both, [0, 1]), [[8, -3.75]])


def test_rank_pooling_of_a_size_known_only_in_the_graph():
    scores = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3])])
    def pooled(x):
        return ops.weighted_rank_pooling(x, [0.0, 0.9, 1.0])

    close(pooled(scores), ops.weighted_rank_pooling(scores, [0.0, 0.9, 1.0]), rtol=1e-6)


def test_pooled_scores_lie_between_mean_and_maximum_and_ignore_where_pixels_are():
    scores = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    pooled = np.stack([ops.weighted_rank_pooling(scores, d) for d in (0.0, 0.3, 0.9, 0.99, 1.0)])
    assert np.all(np.diff(pooled, axis=0) < 0)
    close(ops.weighted_rank_pooling(scores[:, ::-1, ::-1], 0.9), pooled[2], rtol=1e-6)


# === The losses ===


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [("float64", 1e-10, 1e-10), ("float32", 5e-6, 1e-6)]
)
def test_losses_agree_with_the_reference(golden, dtype, rtol, atol):
    data = {name: array.astype(dtype) for name, array in golden("sec/losses_small").items()}
    labels = data["labels"][:, 1:]
    terms, gradient = mean_and_gradient(lambda p: sec.seeding(p, data["cues"]), data["logits"])
    close(terms, data["seed_loss_per_image"], rtol=rtol)
    close(terms.mean(), data["seed_loss"], rtol=rtol)
    close(gradient, data["d_seed"], atol)

    terms, gradient = mean_and_gradient(lambda p: sec.expansion(p, labels), data["logits"])
    parts = [data[f"expand_{part}_per_image"] for part in ("present", "absent", "background")]
    close(terms, sum(parts), rtol=rtol)
    close(terms.mean(), data["expand_loss"], rtol=rtol)
    close(gradient, data["d_expand"], atol)

    crf = data["crf_q_raw"]
    terms, gradient = mean_and_gradient(lambda p: sec.constrain(p, crf), data["logits"])
    close(terms, data["constrain_loss_per_image"], rtol=rtol)
    close(terms.mean(), data["constrain_loss"], rtol=rtol)
    close(gradient, data["d_constrain"], atol)


def dense_cues(rows, size, classes):
    cues = np.zeros((*size, classes), np.float32)
    cues[rows[1], rows[2], rows[0]] = 1
    return cues


def test_losses_of_the_full_size_agree_with_the_reference(golden):
    data = golden("sec/losses_full")
    labels = data["labels"][:, 1:]
    cues = np.stack([dense_cues(data[f"cues_{i}"], (41, 41), 21) for i in range(2)])
    crf = data["crf_q_raw"]
    for name, function, loss_rtol, share in (
        ("seed", lambda p: sec.seeding(p, cues), 2e-5, 1.0),
        ("expand", lambda p: sec.expansion(p, labels), 2e-5, 1.0),
        ("constrain", lambda p: sec.constrain(p, crf), 2e-4, 0.999),
    ):
        terms, gradient = mean_and_gradient(function, data["logits"])
        close(terms.mean(), data[f"{name}_loss"], rtol=loss_rtol)
        difference = np.abs(gradient - data[f"d_{name}"])
        atol = 1e-6 if name == "expand" else 1e-7
        assert np.mean(difference <= atol) >= share, name


def example(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 5, 7, 4)).astype(np.float32)
    labels = np.float32([[1, 0, 0], [0, 1, 1], [1, 0, 1]])
    cues = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (3, 5, 7))][..., :4]
    crf = sec.clipped_softmax(2 * rng.normal(size=(3, 5, 7, 4)))
    return logits, labels, cues, np.float32(crf)


LOSSES = {
    "seeding": lambda p, labels, cues, crf: sec.seeding(p, cues),
    "expansion": lambda p, labels, cues, crf: sec.expansion(p, labels),
    "constrain": lambda p, labels, cues, crf: sec.constrain(p, crf),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_terms_follow_the_order_of_the_batch_and_ignore_mirroring(loss):
    logits, labels, cues, crf = example()
    probs = sec.clipped_softmax(logits)
    terms = np.asarray(loss(probs, labels, cues, crf))
    assert terms.shape == (3,)
    close(loss(probs[::-1], labels[::-1], cues[::-1], crf[::-1]), terms[::-1], rtol=1e-6)
    mirrored = (x[:, :, ::-1] for x in (cues, crf))
    close(loss(probs[:, :, ::-1], labels, *mirrored), terms, rtol=1e-6)


def test_an_image_without_cues_costs_nothing():
    logits, _, cues, _ = example()
    terms, before = mean_and_gradient(lambda p: sec.seeding(p, cues), logits)
    cues[1] = 0
    alone, gradient = mean_and_gradient(lambda p: sec.seeding(p, cues), logits)
    close(alone, terms * [1, 0, 1])
    assert not gradient[1].any()
    close(gradient[[0, 2]], before[[0, 2]])


def test_seeding_by_hand():
    probs = np.float32([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]).reshape(1, 1, 2, 3)
    cues = np.float32([[1, 0, 0], [0, 1, 0]]).reshape(1, 1, 2, 3)
    close(sec.seeding(probs, cues), [-(np.log(0.5) + np.log(0.8)) / 2], rtol=1e-6)


def test_expansion_without_any_class_or_with_all_of_them():
    logits, _, _, _ = example()
    for labels in (np.zeros((3, 3)), np.ones((3, 3))):
        terms, gradient = mean_and_gradient(lambda p: sec.expansion(p, labels), logits)  # noqa: B023
        assert np.all(np.isfinite(terms))
        assert np.all(np.isfinite(gradient))
        probs = np.asarray(sec.clipped_softmax(logits))
        background = -np.log(ops.weighted_rank_pooling(probs[..., :1], 0.999))[:, 0]
        best = probs[..., 1:].max(axis=(1, 2))
        present = -np.log(ops.weighted_rank_pooling(probs[..., 1:], 0.996))
        expected = present if labels.any() else -np.log(1 - best)
        close(terms, background + expected.mean(axis=1), rtol=1e-5)


def test_expansion_by_hand():
    # One row of two pixels; class 1 is there, class 2 is not.
    probs = np.float32([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]).reshape(1, 1, 2, 3)
    terms = sec.expansion(probs, [[1, 0]], present_decay=0.5, background_decay=1.0)
    present = (0.7 + 0.5 * 0.3) / 1.5
    close(terms, [-np.log(present) - np.log(1 - 0.2) - np.log(0.35)], rtol=1e-6)
    average = sec.expansion(probs, [[1, 0]], present_decay=1.0, background_decay=1.0)
    close(average, [-np.log(0.5) - np.log(0.8) - np.log(0.35)], rtol=1e-6)


def test_constrain_is_zero_where_the_crf_changes_nothing_and_trains_no_crf():
    logits, _, _, _ = example()
    probs = sec.clipped_softmax(logits)
    close(sec.constrain(probs, probs), np.zeros(3), atol=1e-6)
    crf = tf.constant(example()[3])
    with tf.GradientTape() as tape:
        tape.watch(crf)
        loss = sec.constrain(probs, crf)
    assert np.all(np.asarray(loss) > 0)
    assert tape.gradient(loss, crf) is None


def test_constrain_raises_small_marginals():
    probs = np.float32([[[[0.5, 0.5]]]])
    low = 1e-4 / 1.0001
    expected = low * np.log(2 * low) + (1 - low) * np.log(2 * (1 - low))
    close(sec.constrain(probs, np.float32([[[[0, 1]]]])), [expected], rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_terms_are_compiled_and_take_unknown_sizes(loss):
    logits, labels, cues, crf = example()
    expected = loss(sec.clipped_softmax(logits), labels, cues, crf)
    maps, tags = tf.TensorSpec([None, None, None, 4]), tf.TensorSpec([None, 3])

    def terms(logits, labels, cues, crf):
        return loss(sec.clipped_softmax(logits), labels, cues, crf)

    unknown = tf.function(terms, autograph=False, input_signature=[maps, tags, maps, maps])
    close(unknown(logits, labels, cues, crf), expected, rtol=1e-5)
    compiled = tf.function(terms, autograph=False, jit_compile=True)
    close(compiled(logits, labels, cues, crf), expected, rtol=1e-5)


def test_losses_train_a_class_to_its_cues():
    keras.utils.set_random_seed(0)
    logits = keras.Variable(np.zeros((1, 4, 5, 3), np.float32))
    cues = np.zeros((1, 4, 5, 3), np.float32)
    cues[0, 0, 1, 2] = cues[0, 3, 3, 0] = 1
    optimizer = keras.optimizers.SGD(10.0)
    for _ in range(30):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(sec.seeding(sec.clipped_softmax(logits), cues))
        optimizer.apply_gradients([(tape.gradient(loss, logits.value), logits)])
    labels = np.argmax(logits, axis=-1)[0]
    assert (labels[0, 1], labels[3, 3]) == (2, 0)
    assert float(loss) < 0.05
