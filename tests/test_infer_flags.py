"""What the flags of `infer` make of the dense CRF and the random walk."""

import types

import pytest
from absl import flags
from absl.testing import flagsaver

from wsss_tf.errors import UserError
from wsss_tf.inference.dense_crf import CAM_CRF, RANDOM_WALK_CRF, CrfParameters
from wsss_tf.runs import infer_cams, infer_walk


@pytest.fixture(autouse=True)
def _own_flags():
    with flagsaver.flagsaver():
        yield


def parse(*arguments, threshold=0.26):
    flags.FLAGS(["infer", *arguments])
    return types.SimpleNamespace(background_threshold=threshold)


def test_official_numbers_are_the_default():
    recipe = parse("--crf")
    options = infer_cams.crf_options(recipe)
    assert options["powers"] == pytest.approx((4, 24), rel=1e-9)
    assert options["parameters"] == CAM_CRF
    assert infer_walk.options(recipe)["background_power"] == pytest.approx(6, rel=1e-9)
    assert infer_cams.thresholds(recipe)["background_threshold"] == 0.26


def test_powers_follow_the_threshold():
    recipe = parse("--crf", threshold=0.5)
    followed = (
        infer_cams.crf_options(recipe)["powers"],
        infer_walk.options(recipe)["background_power"],
    )
    low, high = followed[0]
    assert 0.7 < low < followed[1] < high < 7
    recipe = parse("--crf", "--background_threshold=0.5")
    assert followed == (
        infer_cams.crf_options(recipe)["powers"],
        infer_walk.options(recipe)["background_power"],
    )
    assert infer_cams.thresholds(recipe)["background_threshold"] == 0.5
    recipe = parse("--crf", "--crf_powers=5,20", "--background_power=7", threshold=0.5)
    assert infer_cams.crf_options(recipe)["powers"] == (5, 20)
    assert infer_walk.options(recipe)["background_power"] == 7


def test_thresholds_for_powers():
    recipe = parse("--crf", "--crf_thresholds=0.25,0.5")
    assert infer_cams.crf_options(recipe)["powers"] == pytest.approx((1, 4.8188), abs=1e-4)


def test_widths_iterations_and_unary_weight():
    recipe = parse("--crf", "--crf_scale=2", "--crf_iterations=3", "--crf_unary_weight=1.5")
    assert infer_cams.crf_options(recipe)["parameters"] == CrfParameters(
        iterations=3, gaussian_sxy=1.5, bilateral_sxy=40, unary_weight=1.5
    )


def test_the_crf_of_the_walk_has_the_same_widths():
    recipe = parse("--walk_crf", "--crf_scale=2")
    assert infer_cams.crf_options(recipe) is None
    assert infer_walk.options(recipe)["crf"] == RANDOM_WALK_CRF.scaled(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--crf", "--crf_powers=9"], "--crf_powers=9: give two numbers"),
        (["--crf", "--crf_thresholds=0.5,0.2"], "--crf_thresholds=0.5,0.2: give two numbers"),
        (["--crf", "--crf_thresholds=0.5,1"], "scores lie below 1"),
        (["--crf", "--crf_powers=4,24", "--crf_thresholds=0.1,0.2"], "either --crf_powers or"),
        (["--crf", "--crf_scale=0"], "--crf_scale=0: give a number above 0"),
        (["--crf", "--background_threshold=1"], "threshold 1.0: it must lie between 0 and 1"),
        (["--crf_powers=3,9"], "--crf_powers means nothing without --crf"),
        (["--crf_unary_weight=2"], "--crf_unary_weight means nothing without --crf"),
        (["--crf_scale=2"], "--crf_scale means nothing without --crf"),
    ],
)
def test_mistakes(arguments, words):
    with pytest.raises(UserError, match=words):
        infer_cams.crf_options(parse(*arguments))
