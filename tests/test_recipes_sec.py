"""SEC's gin files: the paper's settings, and the overlays."""

import pytest

from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.training.sec import SecStep


def test_sec_is_the_papers_recipe(tmp_path):
    recipe = recipe_lib.load(["gin/sec.gin"])
    assert (recipe.batch_size, recipe.train_split) == (15, "trainaug")
    assert recipe.steps == 8000
    assert recipe.require_initial_weights
    assert recipe.weakly_supervised
    assert recipe.cam_output is None
    optimizer = recipe.optimizer(total_steps=8000)
    assert optimizer.momentum == 0.9
    assert float(optimizer._learning_rate(7999)) == pytest.approx(1e-6)
    assert optimizer._rule("fc8/kernel") == (10.0, 5e-4)
    assert optimizer._rule("fc8/bias") == (20.0, 0.0)
    assert optimizer._rule("fc7/bias") == (2.0, 0.0)


@pytest.mark.parametrize("name", ["foreground", "background"])
def test_classifiers_have_the_authors_schedule(name):
    recipe = recipe_lib.load([f"gin/sec_{name}.gin"])
    optimizer = recipe.optimizer(total_steps=8000)
    rates = [float(optimizer._learning_rate(step)) for step in (3999, 4000, 7999)]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4])
    assert (recipe.cam_output, recipe.validation_split) == (
        ("cam", "val") if name == "foreground" else ("cam", None)
    )
    for layer, rate in (("fc8_cam", 10), ("fc8_bg", 10), ("fc6_cam", 1), ("fc7_bg", 1)):
        is_own_head = layer.startswith("fc8") and layer.endswith({"f": "cam", "b": "bg"}[name[0]])
        expected = rate if is_own_head else 1
        assert optimizer._rule(f"{layer}/kernel")[0] == expected


METHODS = ("sec", "sec_foreground", "sec_background")


def small(method, data):
    files = [f"gin/{method}.gin", f"gin/data/{data}.gin", "gin/size/small_sec.gin"]
    return recipe_lib.load(files, ["Recipe.batch_size=5"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", ["shapes", "folder"])
def test_small_overlay_of_any_data_set(method, data):
    recipe = small(method, data)
    assert recipe.batch_size == 5
    assert not recipe.require_initial_weights
    assert recipe.source.__name__ == f"{data}_source"


@pytest.mark.parametrize("method", METHODS)
def test_small_networks_of_the_overlay(method):
    recipe = small(method, "folder")
    network = recipe.network(num_classes=5)
    shapes = network.compute_output_shape((1, 97, 97, 3))
    if method == "sec":
        assert shapes["logits_low"] == (1, 13, 13, 5)
    else:
        assert shapes["class_logits"] == (1, 5)
    assert network.get_layer("conv5_1").filters == 128
    assert network.get_layer("conv5_1_bn") is not None
    recipe.optimizer(total_steps=10).build(network.trainable_variables)  # a rule for each
    step = recipe.step(network)
    if isinstance(step, SecStep):
        assert step.decays == {
            "present_decay": 0.961, "absent_decay": 0.0, "background_decay": 0.99
        }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_overlay_for_photographs(method):
    files = [f"gin/{method}.gin", "gin/data/folder.gin", "gin/size/photos_sec.gin"]
    recipe = recipe_lib.load(files)
    assert (recipe.batch_size, recipe.initial_weights) == (16, "imagenet")
    network = recipe.network(num_classes=5)
    assert network.backbone_name == "efficientnet_lite0"
    assert not any(x.trainable for x in network.layers if x.name.endswith("_bn"))
    shapes = network.compute_output_shape((1, 300, 400, 3))
    low = {"sec": "logits_low", "sec_foreground": "heat", "sec_background": "class_logits"}[method]
    assert shapes[low] == ((1, 5) if method == "sec_background" else (1, 16, 16, 5))
    recipe.optimizer(total_steps=10).build(network.trainable_variables)  # a rule for each
    step = recipe.step(network)
    if isinstance(step, SecStep):
        for name, papers in (("present", 0.996), ("background", 0.999)):
            decay = step.decays[f"{name}_decay"]
            assert decay == pytest.approx(papers ** (41**2 / 16**2), abs=5e-4)
        assert step.crf["bilateral_xy"] == pytest.approx(80 / 12 * 16 / 41, abs=0.01)


def test_losses_can_be_switched_off_in_a_binding():
    recipe = recipe_lib.load(
        ["gin/sec.gin", "gin/size/small_sec.gin"],
        ["sec_step.use_seed=False", "sec_step.use_constrain=False"],
    )
    step = recipe.step(recipe.network(num_classes=3))
    assert step.term_names == ["loss_expand"]
