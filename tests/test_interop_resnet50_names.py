"""Official files of ResNet-50 and IRN: the whole networks from their tensors, and the command."""

import numpy as np
import pytest
import tensorflow as tf
import whole_irn
from as_user import ok
from foreign_files import write_torch

from wsss_tf.backbones.dilated_resnet import dilated_resnet
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.inference.boundary_walk import mean_boundary
from wsss_tf.interop import resnet38_names, resnet50_names
from wsss_tf.models.irn import irn_cam_network, irn_network
from wsss_tf.runs.trained_network import load_network
from wsss_tf.training.initial_weights import load_initial_weights


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def load(net, model):
    """Give a network the golden weights, by the names of its checkpoint."""
    expected = resnet50_names.targets(model, num_outputs=21)
    arrays, missing, unused = resnet38_names.convert(whole_irn.tensors(model), expected)
    assert (missing, unused) == ([], [])
    loaded, missing, unused = load_initial_weights(net, arrays)
    assert (missing, unused) == ([], [])
    return net


def check_features(features, data):
    for ours, theirs in zip(
        ("stem", "stage1", "stage2", "stage3", "stage4"),
        ("stem", "layer1", "layer2", "layer3", "layer4"),
    ):
        maps = np.float64(features[ours])
        assert maps.shape == tuple(data[f"{theirs}_shape"])
        close(maps.mean(), data[f"{theirs}_mean"], 1e-4)
        close(maps.std(), data[f"{theirs}_std"], 1e-4)
        close(maps.mean(axis=(0, 1, 2)), data[f"{theirs}_channel_mean"], 1e-4)
        close(maps.std(axis=(0, 1, 2)), data[f"{theirs}_channel_std"], 1e-4)
        close(maps[0, 0, 0], data[f"{theirs}_corner"], 1e-4)


@pytest.mark.large
@pytest.mark.usefixtures("large_kernels_zero")
def test_whole_networks_are_the_official_ones(golden):
    data = golden("irn/wholenet")
    image = data["image"]
    both = np.concatenate([image, image[:, :, ::-1]])
    cam = load(irn_cam_network(20), "irn_cam")
    outputs = cam(both, training=True)  # BatchNorm has ImageNet's statistics in training too
    close(outputs["class_logits"], data["logits"], 1e-4)
    maps = np.maximum(outputs["cam"][..., 1:], 0)
    close(maps[0] + maps[1][:, ::-1], data["cam"], 1e-4)  # values to 20

    net = load(irn_network(displacement=True), "irn")
    outputs = net(image, training=False)
    close(outputs["edge_logits"], data["edge_logits"], 1e-4)
    close(outputs["displacement"], data["dp"], 1e-4)
    crop = int(data["crop_size"])
    padded = np.pad(both, [(0, 0), (0, crop - 90), (0, crop - 122), (0, 0)])
    outputs = net(padded, training=False)
    logits = mean_boundary(outputs["edge_logits"], data["edge"].shape)
    close(tf.sigmoid(logits)[0, :, :, 0], data["edge"], 1e-4)
    close(outputs["displacement"][0, :23, :31], data["dp_padded"], 1e-4)

    trunk = dilated_resnet(variant="v1", output_stride=16, dilate=False)
    for layer in trunk.layers:
        layer.set_weights(cam.get_layer(layer.name).get_weights())
    check_features(trunk(image, training=False), data)


WIDTH = 1 / 16


def test_the_whole_networks_have_as_many_parameters_as_the_official_ones():
    def count(model):
        targets = resnet50_names.targets(model, 21)
        statistics = ("running_mean", "running_var")
        return sum(
            int(np.prod(target.shape))
            for name, target in targets.items()
            if not name.endswith(statistics)
        )

    assert count("resnet50") == 23_508_032
    assert count("irn_cam") == 23_508_032 + 40_960
    assert count("irn") == 23_508_032 + 125_409 + 1_269_120


def narrow_tensors(model):
    rng = np.random.default_rng(0)
    targets = resnet50_names.targets(model, 21, WIDTH)
    return {
        name: rng.uniform(0.1, 0.3, target.shape).astype("float32")
        for name, target in targets.items()
    }


def test_a_checkpoint_becomes_a_run(tmp_path):
    tensors = narrow_tensors("irn")
    more = {f"backbone.{name}": value for name, value in list(tensors.items())[:3]}
    more |= {"path_indices0": np.zeros((2, 3), np.int64), "disp_target": np.zeros((1, 2), "f")}
    write_torch(tmp_path / "irn.pth", {**tensors, **more}, "zip")
    out = ok(
        "convert",
        "--model=irn",
        f"--source={tmp_path / 'irn.pth'}",
        f"--run_dir={tmp_path / 'run'}",
        f"--width={WIDTH}",
        f"--gin_bindings=dilated_resnet.width={WIDTH}",
    )
    assert f"{len(tensors)} of {len(tensors)} tensors of irn" in out
    assert "not used" not in out
    net = load_network(tmp_path / "run")
    assert RunFolder(tmp_path / "run").config.is_file()
    assert "displacement" not in net.output  # unless the recipe wants it
    kernel = tensors["fc_edge3.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(net.get_layer("fc_edge3").kernel, kernel)
    np.testing.assert_array_equal(net.get_layer("fc_edge3_gn").beta, tensors["fc_edge3.1.bias"])


def test_torchvisions_file_becomes_initial_weights(tmp_path):
    tensors = narrow_tensors("resnet50")
    classifier = {"fc.weight": np.zeros((10, 128), "f"), "fc.bias": np.zeros(10, "f")}
    write_torch(tmp_path / "resnet50.pth", {**tensors, **classifier}, "pickles")
    output = tmp_path / "resnet50.npz"
    arguments = "--model=resnet50", f"--source={tmp_path / 'resnet50.pth'}", f"--output={output}"
    assert "not used" not in ok("convert", *arguments, f"--width={WIDTH}")
    net = dilated_resnet(variant="v1", output_stride=16, dilate=False, width=WIDTH)
    _, missing, unused = load_initial_weights(net, output)
    assert (missing, unused) == ([], [])
    np.testing.assert_array_equal(
        net.get_layer("conv4_block2_3_bn").moving_mean, tensors["layer3.1.bn3.running_mean"]
    )
