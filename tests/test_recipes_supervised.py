"""The gin files of CPNet, SANet and their baselines."""

import gin
import pytest
from parameters import few_of

from wsss_tf.errors import UserError
from wsss_tf.runs import recipe as recipe_lib

# File: source, batch, steps, epochs, learning rate, weight decay, crop.
SETTINGS = {
    "cpnet_ade20k": ("ade20k_source", 80000, 0.02, 1e-4, 480),
    "cpnet_pascal_context": ("pascal_context_source", 25000, 0.01, 1e-4, 512),
    "cpnet_cityscapes": ("cityscapes_source", 60000, 0.01, 5e-4, 768),
    "sanet_pascal_context": ("pascal_context_source", None, 0.001, 1e-4, 512),
    "sanet_voc": ("voc_source", None, 0.0001, 1e-4, 512),
    "fcn": ("pascal_context_source", None, 0.001, 1e-4, 512),
}
EPOCHS = {"sanet_pascal_context": 80, "sanet_voc": 80, "fcn": 20}


@pytest.mark.parametrize("name", SETTINGS)
def test_papers_settings(name):
    source, steps, rate, decay, crop = SETTINGS[name]
    recipe = recipe_lib.load([f"gin/{name}.gin"])
    assert recipe.source.__name__ == source
    assert (recipe.batch_size, recipe.steps) == (16, steps)
    if steps is None:
        assert recipe.epochs == EPOCHS[name]
    assert recipe.predicts_masks
    assert not recipe.weakly_supervised
    assert recipe.require_initial_weights
    optimizer = recipe.optimizer(total_steps=100)
    assert float(optimizer.learning_rate) == pytest.approx(rate)
    assert optimizer.rules == [(".*", 1.0, decay)]
    assert optimizer.momentum == 0.9
    query = gin.query_parameter
    for name in ("supervised_augmentation.crop_size", "multi_scale_predictor.window_size"):
        assert query(name) == query("cpnet_network.crop_size" if steps else name)
    assert query("CROP/macro.value") == crop


def test_loss_weights_are_the_papers():
    recipe_lib.load(["gin/cpnet_ade20k.gin"])
    assert gin.query_parameter("cpnet_step.aux_weight") == 0.4
    assert gin.query_parameter("cpnet_step.prior_weight") == 1.0
    recipe_lib.load(["gin/cpnet_cityscapes.gin"])
    assert gin.query_parameter("cpnet_step.hard_probability") == 0.7
    assert gin.query_parameter("cpnet_step.hard_share") == 0.0625
    assert gin.query_parameter("cpnet_step.aux_weight") == 0.4
    recipe_lib.load(["gin/sanet_voc.gin"])
    assert gin.query_parameter("sanet_step.cat_weight") == 0.2
    assert gin.query_parameter("sanet_step.den_weight") == 0.8


@pytest.mark.parametrize(
    "name", few_of(["cpnet_cityscapes", "sanet_voc", "fcn"], "cpnet_cityscapes")
)
def test_small_networks(name):
    files = [f"gin/{name}.gin", "gin/data/shapes.gin", "gin/size/small_supervised.gin"]
    recipe = recipe_lib.load(files, ["Recipe.epochs=3"])
    assert recipe.source.__name__ == "shapes_source"
    assert not recipe.require_initial_weights
    assert (recipe.steps, recipe.epochs) == (None, 3)
    net = recipe.network(num_classes=5)
    assert net.get_layer("conv2_block1_1_conv").filters == 16
    assert net.get_layer("conv5_block3_3_conv").filters == 256
    if name.startswith("cpnet"):
        assert net.output["prior"].shape == (None, 144, 144)  # a crop of 96
    recipe.step(net).compile(recipe.optimizer(total_steps=10))


def test_variants_by_one_binding():
    small = ["gin/data/shapes.gin", "gin/size/small_supervised.gin"]
    recipe = recipe_lib.load(["gin/fcn.gin", *small], ["Recipe.network=@fcn_se_network"])
    assert recipe.network.__name__ == "fcn_se_network"
    recipe = recipe_lib.load(
        ["gin/sanet_voc.gin", *small],
        ["sanet_network.backbone=@efficientnet", "efficientnet.size='b0'"],
    )
    assert recipe.network(num_classes=5).get_layer("block7a_dwconv") is not None
    recipe_lib.load(["gin/cpnet_ade20k.gin", *small], ["CROP=64"])
    assert gin.query_parameter("CROP/macro.value") == 64


def test_data_set_has_to_be_given():
    recipe = recipe_lib.load(["gin/cpnet_ade20k.gin"])
    with pytest.raises(UserError, match=r"ade20k_source\.root is not set"):
        recipe.source(split="train")
