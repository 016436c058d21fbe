"""The gin files: the papers' settings, overlays in order, and errors that name what is wrong."""

import pathlib
import re

import gin
import pytest

from wsss_tf.errors import UserError
from wsss_tf.pipelines.settings import load_pipeline
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.training.initial_weights import load_initial_weights

# Shapes and names only.
pytestmark = pytest.mark.usefixtures("large_kernels_zero")

SEAM_LAYERS = ("fc8", "f8_3", "f8_4", "f9")
DEEPLAB_LAYERS = ("conv_fov", "conv_fov2", "cls_conv")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_seam_is_the_papers_recipe():
    recipe = recipe_lib.load(["gin/seam.gin"])
    assert (recipe.batch_size, recipe.epochs, recipe.train_split) == (8, 8, "trainaug")
    assert recipe.require_initial_weights
    optimizer = recipe.optimizer(total_steps=10576)
    assert optimizer.momentum == 5e-4
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert optimizer.rules[0][1:] == (10.0, 5e-4)
    query = gin.query_parameter
    assert query("seam_step.rescale") == 0.3
    assert query("seam_augmentation.crop_size") == 448


def test_cam_differs_from_seam_in_method_only(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # recipes are found from any folder
    recipe = recipe_lib.load(["gin/cam.gin"])
    assert recipe.cam_output == "cam"
    assert gin.query_parameter("seam_step.siamese") is False
    assert recipe.batch_size == 8


def test_irn_is_the_papers_recipe():
    recipe = recipe_lib.load(["gin/irn.gin"])
    assert (recipe.batch_size, recipe.epochs, recipe.train_split) == (32, 3, "trainaug")
    assert recipe.require_initial_weights
    optimizer = recipe.optimizer(total_steps=990)
    assert optimizer.momentum == 1e-4
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    groups = {
        "fc_edge1/kernel": (1.0, 1e-4),
        "fc_edge6/bias": (1.0, 1e-4),
        "fc_edge5_gn/gamma": (1.0, 1e-4),
        "fc_dp3/kernel": (10.0, 1e-4),
        "fc_dp7_gn/beta": (10.0, 1e-4),
        "fc_dp7_out/kernel": (10.0, 1e-4),
    }
    assert {path: optimizer._rule(path) for path in groups} == groups
    net = recipe.network(num_classes=20)
    layer = net.get_layer("affinity")
    assert (layer.radius, layer.crop_size) == (10, 512)
    assert (net.backbone_name, len(net.trainable_variables)) == ("resnet50_v1", 17)
    assert gin.query_parameter("irn_augmentation.min_scale") == 0.5


def test_irns_classifier_is_the_papers_recipe():
    recipe = recipe_lib.load(["gin/irn_cam.gin"])
    assert (recipe.batch_size, recipe.epochs, recipe.background_threshold) == (16, 5, 0.15)
    assert (recipe.cam_output, recipe.cam_merging) == ("cam", "irn")
    optimizer = recipe.optimizer(total_steps=3305)
    assert optimizer.momentum == 1e-4
    net = recipe.network(num_classes=20)
    rates = {v.path: optimizer._rule(v.path) for v in net.trainable_variables}
    assert rates.pop("classifier/kernel") == (10.0, 1e-4)
    assert set(rates.values()) == {(1.0, 1e-4)}
    assert {path.split("_")[0] for path in rates} == {"conv4", "conv5"}
    assert {path.split("/")[-1] for path in rates} == {"kernel", "gamma", "beta"}
    query = gin.query_parameter
    assert query("seam_augmentation.min_long_side") == 320
    assert query("seam_augmentation.max_long_side") == 640
    assert (query("seam_augmentation.jitter"), query("seam_augmentation.hue")) == (0, 0)


def test_deeplab_is_the_authors_recipe():
    recipe = recipe_lib.load(["gin/deeplab.gin"])
    assert (recipe.batch_size, recipe.steps, recipe.train_split) == (10, 20000, "trainaug")
    assert recipe.require_initial_weights
    assert recipe.predicts_masks
    assert not recipe.weakly_supervised
    optimizer = recipe.optimizer(total_steps=20000)
    assert optimizer.momentum == 0.9
    assert float(optimizer.learning_rate) == pytest.approx(0.001)
    groups = {
        "conv1a/kernel": (1.0, 5e-4),
        "conv_fov/kernel": (10.0, 5e-4),
        "cls_conv/bias": (20.0, 0.0),
        "bn_fov/gamma": (0.0, 0.0),
        "b6_bn_branch2a/beta": (0.0, 0.0),
    }
    assert {path: optimizer._rule(path) for path in groups} == groups
    query = gin.query_parameter
    assert query("deeplab_augmentation.crop_size") == 448
    assert query("multi_scale_predictor.scales") == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def test_networks_for_masks_have_an_output_for_every_class():
    recipe = recipe_lib.load(
        ["gin/deeplab.gin", "gin/data/shapes.gin", "gin/size/small_deeplab.gin"]
    )
    source = recipe.true_source("val")
    assert recipe.num_outputs(source) == len(source.class_names) == 5
    cam = recipe_lib.load(["gin/seam.gin", "gin/data/shapes.gin", "gin/size/small.gin"])
    assert cam.num_outputs(source) == source.num_classes == 4
    assert not cam.predicts_masks


def test_what_suits_the_drawn_scenes_is_not_in_the_small_overlay(caplog):
    query = gin.query_parameter
    small = recipe_lib.load(["gin/seam.gin", "gin/size/small.gin"])
    assert (small.cam_output, query("seam_step.translation")) == ("cam_rv", 0.0)
    sizes = query("resnet38.width"), query("seam_augmentation.crop_size")
    # The order of data set and size makes no difference.
    for overlays in (["data/shapes", "size/small_shapes"], ["size/small_shapes", "data/shapes"]):
        shapes = recipe_lib.load(["gin/seam.gin", *(f"gin/{name}.gin" for name in overlays)])
        assert (shapes.cam_output, query("seam_step.translation")) == ("cam", 15.0)
        assert (query("seam_step.rescale"), query("seam_step.er_weight")) == (1.0, 20.0)
        assert (query("resnet38.width"), query("seam_augmentation.crop_size")) == sizes
    assert not caplog.records  # of an included file, looked for where it is not


def test_truth_may_come_from_another_source():
    files = ["gin/deeplab.gin", "gin/data/shapes.gin", "gin/data/folder.gin"]
    bindings = ["folder_source.root='nowhere'", "Recipe.validation_source=@shapes_source"]
    recipe = recipe_lib.load(files, bindings)
    assert recipe.true_source("val").name == "shapes"
    with pytest.raises(UserError, match="'nowhere': no such folder"):
        recipe.source(split="train")


def test_affinity_is_the_papers_recipe():
    recipe = recipe_lib.load(["gin/affinity.gin"])
    assert (recipe.batch_size, recipe.epochs, recipe.train_split) == (8, 8, "trainaug")
    assert recipe.require_initial_weights
    optimizer = recipe.optimizer(total_steps=10576)
    assert optimizer.momentum == 5e-4
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert "f8_5" in optimizer.rules[0][0]
    assert gin.query_parameter("affinity_augmentation.crop_size") == 448


@pytest.mark.parametrize("data", ["shapes", "folder"])
def test_affinity_takes_the_overlays_of_data_sets(data):
    files = ["gin/affinity.gin", f"gin/data/{data}.gin", "gin/size/small_affinity.gin"]
    recipe = recipe_lib.load(files)
    assert recipe.source.__name__ == f"{data}_source"
    assert recipe.prepare_source.__name__ == "with_crf_maps"
    assert not recipe.validation_images  # though the overlay names a split
    if data == "folder":  # the network is the same
        return
    net = recipe.network(num_classes=4)
    loaded, missing, unused = load_initial_weights(
        net, recipe_lib.find_weights(recipe.initial_weights)
    )
    assert unused == []
    assert {name.split("/")[-2] for name in missing} == {"f8_3", "f8_4", "f8_5", "f9"}
    assert recipe.optimizer(total_steps=9).rules[0][1] == 3.0


@pytest.mark.parametrize("method", ["seam", "cam", "deeplab"])
@pytest.mark.parametrize("data", ["shapes", "folder"])
def test_overlays_override_in_order(method, data):
    size = "small_deeplab" if method == "deeplab" else "small"
    files = [f"gin/{method}.gin", f"gin/data/{data}.gin", f"gin/size/{size}.gin"]
    recipe = recipe_lib.load(files, ["Recipe.batch_size=5"])
    assert recipe.batch_size == 5
    assert not recipe.require_initial_weights
    assert recipe.source.__name__ == f"{data}_source"
    assert recipe.train_split == "train"


@pytest.mark.parametrize(
    ("method", "size", "new_layers"),
    [
        ("seam", "small", set(SEAM_LAYERS)),
        ("deeplab", "small_deeplab", {*DEEPLAB_LAYERS, "bn_fov", "bn_fov2"}),
    ],
)
def test_shipped_weights_fit_the_small_network(method, size, new_layers):
    files = [f"gin/{method}.gin", "gin/data/shapes.gin", f"gin/size/{size}.gin"]
    recipe = recipe_lib.load(files)
    net = recipe.network(num_classes=3)
    path = recipe_lib.find_weights(recipe.initial_weights)
    loaded, missing, unused = load_initial_weights(net, path)
    assert unused == []
    assert {name.split("/")[-2] for name in missing} == new_layers
    assert len(loaded) + len(missing) == len([v for v in net.variables if "seed" not in v.path])


@pytest.mark.parametrize(
    ("method", "size", "new_layers"),
    [
        ("seam", "photos", SEAM_LAYERS),
        ("cam", "photos", ("fc8",)),
        ("affinity", "photos_affinity", ("f8_3", "f8_4", "f8_5", "f9")),
        ("irn_cam", "photos_irn_cam", ("classifier",)),
        ("deeplab", "photos_deeplab", DEEPLAB_LAYERS),
    ],
)
def test_sizes_for_photographs(method, size, new_layers):
    backbone = "gin/backbone/efficientnet_lite0.gin"
    recipe = recipe_lib.load([f"gin/{method}.gin", backbone, f"gin/size/{size}.gin"])
    assert recipe.initial_weights == "imagenet"
    assert recipe.steps is None
    assert (recipe.postprocess is None) == (method != "deeplab")
    optimizer = recipe.optimizer(total_steps=9)
    net = recipe.network(num_classes=3)
    rates = {v.path: optimizer._rule(v.path)[0] for v in net.trainable_variables}
    fast = {path.split("/")[-2] for path, rate in rates.items() if rate > 5}
    assert set(new_layers) <= fast <= {*SEAM_LAYERS, *new_layers}
    # BatchNorm of the backbone is frozen, and so is its first part.
    assert not any("lite" in path and "gamma" in path for path in rates)
    assert not any("lite_stem" in path for path in rates)
    assert any("lite_head" in path for path in rates)


@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("seam", "small"),
        ("cam", "small"),
        ("affinity", "small_affinity"),
        ("irn", "photos_irn"),
        ("deeplab", "photos_deeplab"),
    ],
)
def test_new_layers_are_layers_of_the_network(method, size, tmp_path):
    recipe = recipe_lib.load([f"gin/{method}.gin", "gin/data/shapes.gin", f"gin/size/{size}.gin"])
    names = gin.query_parameter("NEW_LAYERS/gin.macro.value")
    paths = [variable.path.split("/") for variable in recipe.network(num_classes=3).variables]
    assert set(names) <= {path[-2] for path in paths}
    rule = recipe.optimizer(total_steps=9).rules[0][0]
    assert all(name in rule for name in names)
    # A run's config.gin, which holds the macro too, is loaded by every later command.
    assert "NEW_LAYERS = " in recipe_lib.save_config(tmp_path)
    assert recipe_lib.load_run(tmp_path).optimizer(total_steps=9).rules[0][0] == rule


@pytest.mark.parametrize(
    ("files", "bindings", "words"),
    [
        ([], [], "no --gin_file"),
        (["gin/nope.gin"], [], "gin/nope.gin"),
        (["gin/seam.gin"], ["Recipe.batchsize=1"], "batchsize"),
        (["gin/seam.gin"], ["nothing.here=1"], "nothing.here|'nothing'|nothing"),
        (["gin/data/shapes.gin"], [], "network|augmentation"),
    ],
    ids=["none", "missing", "parameter", "configurable", "overlay alone"],
)
def test_errors_name_what_is_wrong(files, bindings, words):
    with pytest.raises(UserError, match=words):
        recipe_lib.load(files, bindings)


def test_every_recipe_says_how_it_is_run_and_what_is_reported():
    paths = sorted((ROOT / "gin").glob("*.gin"))
    assert len(paths) > 10
    for path in paths:
        head = path.read_text().split("from __gin__")[0]
        command = rf"python -m wsss_tf\.train +--gin_file=gin/{path.name}\b"
        assert re.search(command, head), path
        named = set(re.findall(r"\bgin/[\w/]+\.gin", head))
        assert all((ROOT / name).is_file() for name in named), path
        reported = " ".join(head.split("# Reported", 1)[1].replace("#", " ").split())
        if "nothing of its own" not in reported:
            assert re.search(r"\b\d\d\.\d+ mIoU\b", reported), path
            split = r"\b(VOC|ADE20K|Cityscapes|PASCAL-Context) (train|val|test)\b"
            assert re.search(split, reported), path


def test_a_run_of_before_the_backbones_had_their_own_settings_is_named(tmp_path):
    (tmp_path / "config.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        "from wsss_tf.models import seam\n"
        "seam.seam_network.head_width = 0.5\n"
        "seam.seam_network.freeze_stem = False\n"
        "seam.seam_network.width = 0.125\n"
    )
    with pytest.raises(UserError, match=r"seam_network\.freeze_stem, seam_network\.width\. Remove"):
        recipe_lib.load_run(tmp_path)
    # Any other error is told as it is.
    (tmp_path / "config.gin").write_text("nothing.here = 1\n")
    with pytest.raises(UserError, match=r"gin: .*nothing"):
        recipe_lib.load_run(tmp_path)


BACKBONE_OVERLAYS = sorted(path.stem for path in (ROOT / "gin/backbone").glob("*.gin"))


@pytest.mark.parametrize("backbone", BACKBONE_OVERLAYS)
def test_a_backbone_overlay_binds_every_network(backbone):
    overlay = f"gin/backbone/{backbone}.gin"
    networks = set()
    for path in sorted((ROOT / "gin").glob("*.gin")):
        recipe = recipe_lib.load([str(path), overlay])
        name = recipe.network.__name__
        networks.add(name)
        trunk = gin.query_parameter(f"{name}.backbone").configurable.wrapped.__name__
        assert trunk in {"resnet38", "dilated_resnet", "efficientnet", "efficientnet_lite"}
        assert overlay == "gin/backbone/resnet38.gin" or recipe.initial_weights == "imagenet"
    # Also those that no recipe names.
    for name in ("fcn_se_network",):
        assert gin.query_parameter(f"{name}.backbone").configurable.wrapped.__name__ == trunk
    assert len(networks) > 6


def test_files_from_before_modules_moved_are_read(tmp_path):
    config = tmp_path / "config.gin"
    config.write_text(
        "from __gin__ import dynamic_registration\n"
        "from wsss_tf import recipe\n"
        "include 'seam.gin'\n"
        "recipe.Recipe.epochs = 3\n"
    )
    assert recipe_lib.load_run(tmp_path).epochs == 3
    config.write_text(
        "from __gin__ import dynamic_registration\n"
        "from wsss_tf.pipelines import pipeline  # a pipeline of one's own\n"
        "include 'pipelines/seam.gin'\n"
        "pipeline.Pipeline.score_split = 'some'\n"
    )
    assert load_pipeline([config], []).score_split == "some"
    # Settings that have moved with them are named.
    config.write_text(config.read_text() + "pipeline.Pipeline.crf_powers = (1.0, 2.0)\n")
    with pytest.raises(UserError, match=r"Pipeline\.crf_powers is .* now: crf_stage\.powers"):
        load_pipeline([config], [])


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("Recipe.batch_size=", r"line 1 cannot be read \('Recipe.batch_size='\)"),
        ("Recipe.batch_size", "expected ':' or '='"),
        ("Recipe.batch_size=(1,", "a bracket or a quote is not closed"),
        ("Recipe.batch_size='''1", "a bracket or a quote is not closed"),
        ("Recipe.batch_size=four", r"no value; values are numbers, 'texts'"),
        ("Recipe.batch_size=" + "(" * 5000, "nested too deeply"),
        ("Recipe.network=@Recipe()", "called by itself"),
        ("Recipe.batch_size=%FOUR", "FOUR/gin.macro'$"),
        ("x" * 5000, r"x{80}'\.\.\.\)"),
    ],
    ids=lambda text: text[:24],
)
def test_a_binding_that_gin_cannot_read_is_a_line(binding, words):
    with pytest.raises(UserError, match=words) as raised:
        recipe_lib.load(["gin/seam.gin"], [binding])
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("include '{path}'", "included or called by itself"),
        ("Recipe.batch_size = [", "a bracket or a quote is not closed"),
        ("Recipe.batch_size = 4 4", "line 1 of {path} cannot be read"),
        ("# caf\u00e9", "not a UTF-8 text file"),
    ],
    ids=["loop", "bracket", "words", "latin-1"],
)
def test_a_gin_file_that_cannot_be_read_is_named(tmp_path, text, words):
    path = tmp_path / "bad.gin"
    path.write_text(text.format(path=path), encoding="latin-1")
    with pytest.raises(UserError, match=words.format(path=path)) as raised:
        recipe_lib.load([path])
    assert f"--gin_file={path}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", r"line 1 of .*own_part\.py cannot be read \('def f\(:'\): invalid syntax"),
        ("x = undefined\n", "name 'undefined' is not defined"),
    ],
    ids=["syntax", "name"],
)
def test_a_module_of_the_users_own_that_cannot_be_imported_is_a_line(
    tmp_path, monkeypatch, text, words
):
    (tmp_path / "own_part.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own.gin"
    path.write_text("from __gin__ import dynamic_registration\nimport own_part\n")
    with pytest.raises(UserError, match=words):
        recipe_lib.load([path])
