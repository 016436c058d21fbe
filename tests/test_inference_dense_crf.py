"""The dense CRF: against pydensecrf's reference numbers and against exact mean field."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf
from numba.core.caching import CacheImpl

from wsss_tf import ops
from wsss_tf.compiled import compiled
from wsss_tf.errors import UserError
from wsss_tf.inference.dense_crf import (
    CAM_CRF,
    CrfParameters,
    crf_postprocess,
    dense_crf,
    dense_crf_from_energy,
    dense_crfs,
    prepare,
)
from wsss_tf.runs import recipe as recipe_lib


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def exact_mean_field(energy, image, parameters):
    """Every pair of pixels, float64; symmetric normalisation, the diagonal included."""
    height, width, classes = energy.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float64)
    colour = image.reshape(-1, 3) / parameters.bilateral_srgb
    near = np.stack([x, y], 1) / parameters.gaussian_sxy
    alike = np.concatenate([np.stack([x, y], 1) / parameters.bilateral_sxy, colour], 1)

    def kernel(features):
        square = ((features[:, None] - features[None]) ** 2).sum(-1)
        values = np.exp(-square / 2)
        norm = 1 / np.sqrt(values.sum(1))
        return values * norm[:, None] * norm[None]

    pairwise = parameters.gaussian_weight * kernel(near)
    pairwise += parameters.bilateral_weight * kernel(alike)
    energy = energy.reshape(-1, classes).astype(np.float64)
    q = softmax(-energy)
    for _ in range(parameters.iterations):
        q = softmax(-energy + pairwise @ q)
    return q.reshape(height, width, classes)


def two_halves(height=19, width=26, noise=0.15):
    """A picture of a bright and a dark part, and scores that are noisy on it."""
    rng = np.random.default_rng(0)
    right = np.broadcast_to(np.arange(width) >= width // 3, (height, width))
    image = np.where(right[..., None], 200, 40) + rng.integers(0, 6, (height, width, 3))
    probs = np.stack([np.where(right, 0.35, 0.6), np.where(right, 0.6, 0.35)], -1)
    return image.astype(np.uint8), np.clip(probs + noise * rng.normal(size=probs.shape), 0, 1)


def test_exact_formula_is_the_references(golden):
    data = golden("sec/crf_small")
    expected = exact_mean_field(-data["logits"], data["image"], CAM_CRF.scaled(12))
    np.testing.assert_allclose(expected, data["q_exact"], atol=1e-9)


def test_marginals_are_pydensecrfs(golden):
    data = golden("sec/crf_small")
    marginals = dense_crf_from_energy(-data["logits"], data["image"], CAM_CRF.scaled(12))
    np.testing.assert_allclose(marginals, data["q_lattice"], atol=1e-5)


@pytest.mark.parametrize("case", range(3))
def test_photographs_at_the_size_of_training(golden, case):
    data = golden(f"sec/crf41_{case}")
    marginals = dense_crf_from_energy(-data["logits"], data["image"], CAM_CRF.scaled(12))
    np.testing.assert_allclose(marginals, data["q_lattice"], atol=1e-4)
    assert (marginals.argmax(-1) == data["label_exact"]).mean() >= 0.98


def test_whole_photograph(golden):
    data = golden("sec/crf_full_0")
    probs = tf.constant(data["unary_q"].astype(np.float32)[None])
    probs = ops.resize_bilinear(probs, (360, 480), align_corners=False)[0].numpy()
    marginals = dense_crf(probs, data["image"])
    label = marginals.argmax(-1)
    assert (label == data["label_lattice"]).mean() >= 0.995
    assert (label == data["label_exact"]).mean() >= 0.98
    rows, columns = data["positions"].T
    difference = np.abs(marginals[rows, columns] - data["q_lattice_at"])
    assert difference.mean() < 1e-3


# Numbers of labels around those that fill a register, or half of one.
@pytest.mark.parametrize("labels", [1, 2, 4, 5, 8, 9, 21])
def test_both_libraries_give_the_same(golden, labels):
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    image = golden("sec/crf_full_1")["image"][:131, 40:217]
    coarse = np.random.default_rng(labels).uniform(size=(1, 7, 9, labels)).astype(np.float32)
    probs = ops.resize_bilinear(tf.constant(coarse), image.shape[:2], align_corners=False)[0]
    for parameters in (
        CAM_CRF,
        CrfParameters(gaussian_weight=0.0, unary_weight=3.0),
        CrfParameters(bilateral_weight=0.0, iterations=2),
    ):
        marginals = dense_crf(probs, image, parameters)
        other = dense_crf(probs, image, dataclasses.replace(parameters, library="pydensecrf"))
        # Some marginals are close to each other, and the sums have other orders.
        np.testing.assert_allclose(marginals, other, atol=2e-4)
        assert np.abs(marginals - other).mean() < 1e-6
        assert (marginals.argmax(-1) == other.argmax(-1)).mean() > 0.9999


@pytest.mark.parametrize("labels", [1, 2, 4, 5, 11])
@pytest.mark.parametrize("count", [2, 3])
def test_several_fields_are_each_by_itself(labels, count):
    image, _ = two_halves(33, 47)
    rng = np.random.default_rng(labels)
    several = [rng.uniform(size=(33, 47, labels)) for _ in range(count)]
    for together, probs in zip(dense_crfs(several, image), several, strict=True):
        alone = dense_crf(probs, image)
        assert together.shape == alone.shape
        np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [
        CrfParameters(bilateral_sxy=8.0, bilateral_srgb=30.0, gaussian_sxy=1.0, iterations=1),
        CrfParameters(bilateral_sxy=8.0, bilateral_srgb=30.0, gaussian_weight=0.0, iterations=5),
    ],
    ids=["both kernels", "appearance only"],
)
def test_lattice_is_close_to_exact_mean_field(parameters):
    image, probs = two_halves()
    marginals = dense_crf(probs, image, parameters)
    expected = exact_mean_field(-np.log(np.clip(probs, 1e-5, 1)), image, parameters)
    difference = np.abs(marginals - expected)
    assert difference.mean() < 0.02
    assert (marginals.argmax(-1) == expected.argmax(-1)).mean() > 0.98
    # It is not the unary that agrees so well.
    assert np.abs(softmax(np.log(np.clip(probs, 1e-5, 1))) - expected).mean() > 0.1


def test_noise_is_removed_up_to_the_edge():
    image, probs = two_halves()
    truth = image[..., 0] > 128
    assert (probs.argmax(-1) == truth).mean() < 0.95
    assert (dense_crf(probs, image).argmax(-1) == truth).all()


def test_without_pairs_it_is_the_input():
    image, probs = two_halves()
    probs = probs + 0.01
    probs /= probs.sum(-1, keepdims=True)
    nothing = CrfParameters(gaussian_weight=0.0, bilateral_weight=0.0)
    for parameters in (nothing, CrfParameters(iterations=0)):
        np.testing.assert_allclose(dense_crf(probs, image, parameters), probs, atol=1e-5)


def test_unary_weight_is_a_power_of_the_probabilities():
    image, probs = two_halves()
    probs = np.clip(probs, 0.05, 0.95)
    plain = CrfParameters(iterations=1, gaussian_weight=1.0, bilateral_weight=1.0)
    sharper = dense_crf(probs, image, dataclasses.replace(plain, unary_weight=1.5))
    np.testing.assert_allclose(sharper, dense_crf(probs**1.5, image, plain), atol=1e-5)
    assert np.abs(sharper - dense_crf(probs, image, plain)).max() > 1e-3


def test_classes_can_be_permuted():
    image, probs = two_halves()
    probs = np.concatenate([probs, probs[..., :1] * 0.7], -1)
    order = [2, 0, 1]
    marginals = dense_crf(probs, image)
    np.testing.assert_allclose(
        dense_crf(probs[..., order], image), marginals[..., order], atol=1e-4
    )


def test_bounds_of_probabilities_are_1e_5_and_1():
    image, probs = two_halves()
    bounded = np.clip(probs, 1e-5, 1)
    np.testing.assert_array_equal(
        dense_crf(np.where(bounded == 1, 3.0, np.where(probs <= 0, -1.0, probs)), image),
        dense_crf(bounded, image),
    )


def test_scores_that_say_nothing():
    image, probs = two_halves()
    np.testing.assert_allclose(dense_crf(np.zeros_like(probs), image), 0.5, atol=1e-5)
    np.testing.assert_array_equal(dense_crf(probs[..., :1], image), 1)
    one = dense_crf(probs[:1, :1], image[:1, :1])
    assert one.shape == (1, 1, 2)
    assert one.argmax() == probs[0, 0].argmax()
    assert dense_crf(probs[:1], image[:1]).shape == (1, 26, 2)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (65, 1), (64, 64)])
def test_pictures_of_one_colour(shape):
    image = np.full((*shape, 3), 255, np.uint8)
    probs = np.random.default_rng(0).uniform(size=(*shape, 3))
    marginals = dense_crf(probs, image)
    np.testing.assert_allclose(marginals.sum(-1), 1, atol=1e-6)
    # Neighbours agree, as nothing in the picture parts them.
    label = marginals.argmax(-1)
    assert (np.diff(label, axis=0) != 0).sum() + (np.diff(label, axis=1) != 0).sum() <= 5


def test_energies_of_any_size():
    image, probs = two_halves()
    energy = -np.log(np.clip(probs, 1e-5, 1))
    expected = dense_crf_from_energy(energy, image)
    np.testing.assert_allclose(dense_crf_from_energy(energy + 700, image), expected, atol=1e-3)
    sure = dense_crf_from_energy(1e6 * energy, image)
    np.testing.assert_array_equal(sure, np.eye(2)[probs.argmax(-1)])


def test_inputs_are_left_alone_and_may_be_read_only():
    image, probs = two_halves()
    image.flags.writeable = probs.flags.writeable = False
    first = dense_crf(probs, image)
    np.testing.assert_array_equal(dense_crf(probs, np.asfortranarray(image)), first)


def test_inputs_that_cannot_be():
    image, probs = two_halves()
    with pytest.raises(ValueError, match=r"\[19, 26, 3\].*\[18, 26, 3\]"):
        dense_crf(probs, image[:18])
    with pytest.raises(ValueError, match="float64"):
        dense_crf(probs, image / 255)
    with pytest.raises(ValueError, match=r"\[19, 26\]"):
        dense_crf(probs[..., 0], image)
    with pytest.raises(ValueError, match=r"\[19, 26, 0\]"):
        dense_crf(probs[..., :0], image)
    probs[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 988 scores are not finite"):
        dense_crf(probs, image)
    with pytest.raises(ValueError, match="widths must be positive"):
        CrfParameters(gaussian_sxy=0)
    with pytest.raises(ValueError, match="iterations = -1"):
        CrfParameters(iterations=-1)
    with pytest.raises(ValueError, match="library = 'c'; there are numba, tensorflow, pydensecrf"):
        CrfParameters(library="c")
    probs[3, 4, 1] = 0
    with pytest.raises(ValueError, match="too narrow for a picture of this size"):
        dense_crf(probs, image, CrfParameters(bilateral_srgb=1e-4))


def test_published_parameters():
    assert CAM_CRF.scaled(12).bilateral_sxy == pytest.approx(6.667, abs=1e-3)
    assert CAM_CRF.scaled(12).gaussian_sxy == 0.25


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("deeplab", CrfParameters(iterations=1, bilateral_sxy=32.0)), ("sec", CAM_CRF)],
    ids=["deeplab", "sec"],
)
def test_postprocess_of_recipes_is_the_crf_of_the_authors(method, parameters):
    postprocess = recipe_lib.load([f"gin/{method}.gin"]).postprocess()
    image, probs = two_halves()
    np.testing.assert_array_equal(postprocess(probs, image), dense_crf(probs, image, parameters))
    other = recipe_lib.load([f"gin/{method}.gin"], ["crf_postprocess.bilateral_weight=0.0"])
    assert np.abs(other.postprocess()(probs, image) - postprocess(probs, image)).max() > 1e-3


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, probs = two_halves()
    wanted = CrfParameters(library="pydensecrf")
    for call in (
        lambda: dense_crf(probs, image, wanted),
        lambda: prepare(wanted),
        lambda: crf_postprocess(library="pydensecrf")(probs, image),
    ):
        with pytest.raises(UserError, match=r"pip install 'wsss_tf\[pydensecrf\]'"):
            call()
    prepare()


def test_without_a_place_for_compiled_code(monkeypatch):
    # A package folder that cannot be written, and a user without a home.
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(lambda x: x + 1)(2) == 3
