"""What the flags of the dense CRF and the random walk make of them."""

import pytest
from absl import flags

from wsss_tf import command_flags
from wsss_tf.errors import UserError
from wsss_tf.inference.cam_crf import threshold_of_power
from wsss_tf.inference.dense_crf import CAM_CRF, RANDOM_WALK_CRF, CrfParameters
from wsss_tf.runs import infer_walk, recipe, refine
from wsss_tf.runs.recipe import Recipe


def parse(*arguments):
    """Return flags of their own, as `infer` has them for CRF and walk."""
    values = flags.FlagValues()
    command_flags.define_crf(values)
    command_flags.define_any_crf(values)
    command_flags.define_walk(values)
    flags.DEFINE_bool("crf", False, "", flag_values=values)
    values(["infer", *arguments])
    return values


def crf(*arguments, threshold=0.26):
    return command_flags.crf_options(threshold, parse(*arguments))


def walk(*arguments, threshold=0.26):
    return command_flags.walk_options(threshold, parse(*arguments))


def test_official_numbers_are_the_default():
    options = crf()
    assert options["powers"] == pytest.approx((4, 24), rel=1e-9)
    assert options["parameters"] == CAM_CRF
    assert options == refine.crf_options(0.26)
    assert walk()["background_power"] == pytest.approx(6, rel=1e-9)
    assert walk() == infer_walk.walk_options(0.26)


def test_threshold_of_a_recipe():
    recipe = Recipe(None, None, None, None, None)
    assert recipe.threshold(None) == 0.26
    assert recipe.threshold(0.5) == 0.5
    assert recipe.threshold(0.0) == 0


def test_powers_follow_the_threshold():
    low, high = crf(threshold=0.5)["powers"]
    assert 0.7 < low < walk(threshold=0.5)["background_power"] < high < 7
    given = "--crf_powers=5,20", "--background_power=7"
    assert crf(*given, threshold=0.5)["powers"] == (5, 20)
    assert walk(*given, threshold=0.5)["background_power"] == 7


def test_thresholds_for_powers():
    assert crf("--crf_thresholds=0.25,0.5")["powers"] == pytest.approx((1, 4.8188), abs=1e-4)


def test_thresholds_by_odds():
    powers = crf("--crf_odds=0.5,2", threshold=0.5)["powers"]
    thresholds = [threshold_of_power(power) for power in powers]
    assert thresholds == pytest.approx([2 / 3, 1 / 3])
    assert walk("--walk_odds=1.5", threshold=0.5)["threshold"] == pytest.approx(0.6)
    assert walk("--walk_odds=1.5", threshold=0.25)["threshold"] == pytest.approx(1 / 3)


def test_widths_iterations_and_unary_weight():
    options = crf("--crf_scale=2", "--crf_iterations=3", "--crf_unary_weight=1.5")
    assert options["parameters"] == CrfParameters(
        iterations=3, gaussian_sxy=1.5, bilateral_sxy=40, unary_weight=1.5
    )


def test_the_crf_of_the_walk_has_the_same_widths():
    assert walk("--crf_scale=2")["crf"] is None
    assert walk("--walk_crf", "--crf_scale=2")["crf"] == RANDOM_WALK_CRF.scaled(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--crf_powers=9"], "--crf_powers=9: give two numbers"),
        (["--crf_thresholds=0.5,0.2"], "--crf_thresholds=0.5,0.2: give two numbers"),
        (["--crf_thresholds=0.5,1"], "scores lie below 1"),
        (["--crf_thresholds=0.5,x"], "--crf_thresholds=0.5,x: give positive numbers"),
        (["--crf_powers=4,24", "--crf_thresholds=0.1,0.2"], "give one of --crf_powers"),
        (["--crf_odds=1,2", "--crf_thresholds=0.1,0.2"], "give one of --crf_powers"),
        (["--crf_odds=2,1"], "--crf_odds=2,1: give two numbers"),
        (["--crf_scale=0"], "--crf_scale=0: give a number above 0"),
    ],
)
def test_mistakes(arguments, words):
    with pytest.raises(UserError, match=words):
        crf(*arguments)


def test_thresholds_that_no_power_follows():
    for options in (crf, walk):
        with pytest.raises(UserError, match=r"threshold 1.0: it must lie between 0 and 1"):
            options(threshold=1.0)


@pytest.mark.parametrize("argument", ["--crf_powers=3,9", "--crf_unary_weight=2", "--crf_scale=2"])
def test_flags_that_mean_nothing_alone(argument):
    name = argument[2:].partition("=")[0]
    command_flags.refuse_without("crf", [name], parse("--crf", argument))
    command_flags.refuse_without("crf", [name], parse())
    with pytest.raises(UserError, match=f"--{name} means nothing without --crf"):
        command_flags.refuse_without("crf", [name], parse(argument))


def test_threshold_of_the_walk():
    assert walk()["threshold"] is None
    options = walk(
        "--walk_threshold=0.7",
        "--walk_crf",
        "--walk_crf_iterations=4",
        "--walk_crf_unary_weight=5",
        "--crf_scale=2",
    )
    assert options["threshold"] == 0.7
    expected = CrfParameters(4, 3.0, 3.0, 80.0, 13.0, 10.0, 5.0)
    assert options["crf"] == expected.scaled(2)
    with pytest.raises(UserError, match="give one"):
        walk("--walk_threshold=0.7", "--background_power=2")
    with pytest.raises(UserError, match="between 0 and 1"):
        walk("--walk_threshold=1")
    with pytest.raises(UserError, match="give one"):
        walk("--walk_threshold=0.7", "--walk_odds=2")
    with pytest.raises(UserError, match="above 0"):
        walk("--walk_odds=0")


# === The data set, where it has moved ===


def _bindings(*arguments):
    values = flags.FlagValues()
    command_flags.define_data(values)
    values(["command", *arguments])
    return command_flags.gin_bindings(values)


def test_data_stands_for_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pictures").mkdir()
    root = f"folder_source.root={str(tmp_path / 'my pictures')!r}"
    assert _bindings("--data=my pictures", "--gin_bindings=a.b=1") == [root, "a.b=1"]
    assert _bindings("--gin_bindings=a.b=1") == ["a.b=1"]
    with pytest.raises(UserError, match="--data=nope: no such folder"):
        _bindings("--data=nope")


def test_data_means_nothing_for_a_run_of_another_kind(tmp_path):
    (tmp_path / "config.gin").write_text("# drawn scenes\n")
    with pytest.raises(UserError, match=r"--data: the run in .* not trained on a folder"):
        recipe.load_run(tmp_path, _bindings(f"--data={tmp_path}"))
