"""The converter as a user runs it, and converted networks against their tensors used directly.

The forward pass here is written from the papers in NumPy, on PyTorch's layouts, tap by tap.
"""

import functools
import json

import as_user
import numpy as np
import pytest
from foreign_files import write_mxnet, write_torch
from scores_by_hand import cam_label, masks_of, mean_iou

from wsss_tf import ops
from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.data.shapes import shapes_source
from wsss_tf.errors import UserError
from wsss_tf.files import run_folder
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.interop import resnet38_names
from wsss_tf.models.seam import seam_network
from wsss_tf.runs.trained_network import load_network
from wsss_tf.training.initial_weights import load_initial_weights

WIDTH = 1 / 16
CLASSES = ("background", "cross", "stripes", "ring", "checker")
IMAGE = np.random.default_rng(1).normal(size=(2, 19, 26, 3)).astype("float32")


def narrow_seam(num_classes, width):
    return seam_network(num_classes, functools.partial(resnet38, width=width), head_width=width)


def ok(*arguments, fresh=False):
    return as_user.ok("convert", *arguments, fresh=fresh)


def refused(*arguments, fresh=False):
    """Run it and return the one line that it ends with."""
    result = as_user.run("convert", *arguments, fresh=fresh)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
    return line


def random_tensors(model, num_outputs=5, width=WIDTH):
    """Return a checkpoint's tensors, of sizes that keep activations and affinities near one."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, target in resnet38_names.targets(model, num_outputs, width).items():
        shape = target.shape
        if len(shape) == 4:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(size=shape) * 0.3
        tensors[name] = value.astype("float32")
    return tensors


# === The network by hand ===


def convolve(x, kernel, stride=1, dilation=1):
    """[B, H, W, I] with a kernel [O, I, kh, kw]; zeros on all four sides."""
    size = kernel.shape[2]
    pad = dilation * (size // 2)
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((n - dilation * (size - 1) - 1) // stride + 1 for n in x.shape[1:3])
    total = 0
    for row in range(size):
        for column in range(size):
            taps = x[:, row * dilation :, column * dilation :][:, ::stride, ::stride]
            taps = taps[:, :height, :width]
            total = total + np.einsum("bhwi,oi->bhwo", taps, kernel[:, :, row, column])
    return total


def norm_relu(x, tensors, name):
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    x = (x - mean) / np.sqrt(variance + 1e-5)
    return np.maximum(x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"], 0)


def backbone_by_hand(image, tensors):
    """Return conv4, conv5 and conv6."""
    t = {name: value.astype("float64") for name, value in tensors.items()}
    x, inner = convolve(image, t["conv1a.weight"]), {}
    names = [name.split(".")[0] for name in t if name.startswith("b") and not name.startswith("bn")]
    for unit in dict.fromkeys(names):
        stride = 2 if unit in ("b2", "b3", "b4") else 1
        p = inner[unit] = norm_relu(x, t, f"{unit}.bn_branch2a")
        if unit in ("b6", "b7"):
            y = convolve(p, t[f"{unit}.conv_branch2a.weight"])
            y = norm_relu(y, t, f"{unit}.bn_branch2b1")
            y = convolve(y, t[f"{unit}.conv_branch2b1.weight"], dilation=4)
            y = norm_relu(y, t, f"{unit}.bn_branch2b2")
            y = convolve(y, t[f"{unit}.conv_branch2b2.weight"])
        else:
            first = 2 if unit in ("b5_1", "b5_2") else 1
            second = 2 if unit.startswith("b5") else 1
            y = convolve(p, t[f"{unit}.conv_branch2a.weight"], stride, first)
            y = norm_relu(y, t, f"{unit}.bn_branch2b1")
            y = convolve(y, t[f"{unit}.conv_branch2b1.weight"], 1, second)
        if f"{unit}.conv_branch1.weight" in t:
            x = convolve(p, t[f"{unit}.conv_branch1.weight"], stride)
        x = x + y
    return inner["b5"], inner["b6"], norm_relu(x, t, "bn7")


def resize_aligned(x, size):
    """Bilinear with aligned corners, one axis after the other."""
    for axis, length in zip((1, 2), size):
        old = x.shape[axis]
        position = np.arange(length) * (old - 1) / max(length - 1, 1)
        low = np.minimum(np.floor(position).astype(int), max(old - 2, 0))
        high = np.minimum(low + 1, old - 1)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return x


def seam_by_hand(image, tensors):
    """Return cam and cam_rv at image size."""
    conv4, conv5, conv6 = backbone_by_hand(image, tensors)
    t = {name: value.astype("float64") for name, value in tensors.items()}
    scores = convolve(conv6, t["fc8.weight"])
    r = np.maximum(scores, 0)
    q = np.maximum(r - 1e-5, 0) / (r.max(axis=(1, 2), keepdims=True) + 1e-5)
    strongest = q[..., 1:].max(axis=-1)
    q[..., 0] = 1 - strongest
    q[..., 1:][q[..., 1:] < strongest[..., None]] = 0
    sides = [np.maximum(convolve(x, t[f"{name}.weight"]), 0)
             for name, x in (("f8_3", conv4), ("f8_4", conv5))]  # fmt: skip
    f = np.concatenate([resize_aligned(image, conv6.shape[1:3]), *sides], axis=-1)
    g = convolve(f, t["f9.weight"])
    g = g / (np.sqrt((g**2).sum(axis=-1, keepdims=True)) + 1e-5)
    g = g.reshape(len(g), -1, g.shape[-1])
    affinity = np.maximum(np.einsum("bid,bjd->bij", g, g), 0)
    affinity /= affinity.sum(axis=1, keepdims=True) + 1e-5
    refined = np.einsum("bic,bij->bjc", q.reshape(len(q), -1, q.shape[-1]), affinity)
    size = image.shape[1:3]
    return resize_aligned(scores, size), resize_aligned(refined.reshape(q.shape), size)


def close(actual, expected):
    expected = np.asarray(expected)
    # Float32 through 40 convolutions; relative to the largest value.
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=2e-5 * expected.max())


# === Converted networks ===


def mxnet_names(tensors):
    """Return the tensors under the names of the published ImageNet weights."""
    statistics = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
                  "running_var": "moving_var"}  # fmt: skip
    renamed = {}
    for name, value in tensors.items():
        *unit, layer, what = name.split(".")
        unit = unit[0] if unit else ""
        number = (unit[1:] + "a" if "_" not in unit else unit[1:].replace("_", "b")) if unit else ""
        if "conv" in layer:
            new = f"res{number}_{layer.removeprefix('conv_')}_weight" if unit else f"{layer}_weight"
        else:
            new = f"bn{number}_{layer.removeprefix('bn_')}_" if unit else f"{layer}_"
            new += statistics[what]
        renamed[f"{'aux' if 'running' in what else 'arg'}:{new}"] = value
    return renamed


def test_imagenet_weights_from_mxnet(tmp_path):
    tensors = random_tensors("resnet38")
    named = mxnet_names(tensors)
    assert {"arg:conv1a_weight", "arg:res4b5_branch2a_weight", "aux:bn6a_branch2b2_moving_var",
            "arg:bn2b1_branch2a_gamma", "arg:res7a_branch1_weight", "aux:bn7_moving_mean"
            } < named.keys()  # fmt: skip
    named["arg:linear1000_weight"] = np.zeros((1000, 256), "float32")
    write_mxnet(tmp_path / "x.params", named)
    out = ok("--model=resnet38", f"--source={tmp_path / 'x.params'}", f"--width={WIDTH}",
             f"--output={tmp_path / 'x.npz'}", fresh=True)  # fmt: skip
    assert "191 of 191 tensors" in out
    assert "not used: linear1000_weight" in out
    assert "missing" not in out
    network = resnet38(width=WIDTH)
    loaded, missing, unused = load_initial_weights(network, tmp_path / "x.npz")
    assert (len(loaded), missing, unused) == (191, [], [])
    maps = network(IMAGE, training=False)
    for name, expected in zip(("stage2", "stage3", "stage4"), backbone_by_hand(IMAGE, tensors)):
        close(maps[name], expected)


@pytest.fixture(scope="module")
def seam_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seam")
    tensors = random_tensors("seam")
    counts = {"b2.bn_branch2a.num_batches_tracked": np.int64([5])}
    write_torch(folder / "seam.pth", {**tensors, **counts}, "pickles")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return folder / "seam.pth"


@pytest.fixture(scope="module")
def converted(seam_file):
    """Convert to both forms; return the flags, what was printed, and the run folder."""
    run_dir = seam_file.with_name("run")
    arguments = [
        "--model=seam",
        f"--source={seam_file}",
        f"--width={WIDTH}",
        f"--class_names={seam_file.with_name('names.txt')}",
        f"--output={seam_file.with_name('seam.npz')}",
        f"--run_dir={run_dir}",
        "--gin_file=gin/seam.gin",
        "--gin_file=gin/data/shapes.gin",
        f"--gin_bindings=resnet38.width={WIDTH}",
        f"--gin_bindings=seam_network.head_width={WIDTH}",
        "--gin_bindings=shapes_source.num_val=3",
        "--gin_bindings=shapes_source.image_size=32",
    ]
    return arguments, ok(*arguments), run_dir


def test_seam_as_weights_and_as_a_run(converted):
    arguments, out, run_dir = converted
    assert "195 of 195 tensors" in out
    assert "not used" not in out
    cam, refined = seam_by_hand(IMAGE, random_tensors("seam"))
    assert 0.1 < refined[..., 1:].max() < 1  # neither all background nor all one class

    network = narrow_seam(len(CLASSES) - 1, WIDTH)
    loaded, missing, unused = load_initial_weights(network, run_dir.with_name("seam.npz"))
    assert (len(loaded), missing, unused) == (195, [], [])
    for net in (network, load_network(run_dir)):
        outputs = net(IMAGE, training=False)
        close(outputs["cam"], cam)
        close(outputs["cam_rv"], refined)

    assert RunFolder(run_dir).read_class_names() == CLASSES
    assert (run_dir / "config.gin").read_text().startswith("# Converted from seam.pth")
    assert "holds a run already" in refused(*arguments)


def test_infer_and_evaluate_take_a_converted_run(converted):
    _, _, run_dir = converted
    for name, options in (("infer", ["--scales=1", "--noflip"]), ("evaluate", [])):
        as_user.ok(name, f"--run_dir={run_dir}", "--split=val", *options)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    source = shapes_source("val", num_val=3, image_size=32)
    labels = []
    for i, image_id in enumerate(source.ids):
        present = np.flatnonzero(source.labels[i]) + 1
        class_ids, cams = run_folder.load_cams(run_dir / "cams", image_id)
        assert class_ids.tolist() == present.tolist()
        image = np.asarray(ops.normalize_image(source.read(i)["image"]))[None]
        _, refined = seam_by_hand(image, random_tensors("seam"))
        expected = np.maximum(refined[0].transpose(2, 0, 1)[present], 0)
        low, high = (f(expected, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
        expected = np.maximum(expected - low - 1e-5, 0) / (high - low + 1e-5)
        np.testing.assert_allclose(cams, expected, rtol=0, atol=2e-3)  # float16
        labels.append(cam_label(class_ids, cams, metrics["best_background_threshold"]))
    assert metrics["miou"] == pytest.approx(mean_iou(masks_of(source), labels, 5), abs=1e-9)


def test_what_is_missing_or_unused_is_listed(tmp_path):
    tensors = random_tensors("seam")
    tensors["extra.weight"] = tensors.pop("f9.weight")
    write_torch(tmp_path / "x.pth", tensors, "zip")
    arguments = ["--model=seam", f"--source={tmp_path / 'x.pth'}", f"--width={WIDTH}"]
    out = ok(*arguments, f"--output={tmp_path / 'x.npz'}")
    assert "194 of 195 tensors" in out
    assert "missing: f9.weight" in out
    assert "not used: extra.weight" in out
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    line = refused(*arguments, f"--run_dir={tmp_path / 'run'}",
                   f"--gin_bindings=resnet38.width={WIDTH}",
                   f"--gin_bindings=seam_network.head_width={WIDTH}",
                   f"--class_names={tmp_path / 'names.txt'}")  # fmt: skip
    assert "has nothing for pcm/f9/kernel" in line
    assert not (tmp_path / "run").exists()


def test_wrong_tensors_are_named(seam_file, tmp_path):
    tensors = random_tensors("seam")
    for expected, words in [
        (
            resnet38_names.targets("seam", 5),
            r"conv1a\.weight has the shape \(16, 3, 3, 3\), the network needs \(64, 3, 3, 3\)",
        ),
        (
            resnet38_names.targets("seam", 4, WIDTH),
            r"fc8\.weight has the shape \(5, 256, 1, 1\), .* for 5 classes .* not 4",
        ),
        (resnet38_names.targets("deeplab", 5, WIDTH), "none of the network's 203 tensors"),
    ]:
        with pytest.raises(UserError, match=words):
            resnet38_names.convert(tensors, expected)
    # A run is for PASCAL VOC's classes, if none are named.
    arguments = [f"--source={seam_file}", f"--width={WIDTH}", f"--run_dir={tmp_path / 'run'}"]
    line = refused("--model=seam", *arguments)
    assert "seam.pth: fc8.weight has the shape (5, 256, 1, 1)" in line
    assert "for 5 classes (background included), not 21" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--source is missing"),
        (["--source=x"], "--model is missing"),
        (["--source=none.pth", "--model=seam"], "none.pth: no such file"),
        (["--model=vgg"], "vgg"),
        (["--source={file}", "--model=seam"], "--output=FILE.npz, or --run_dir"),
        (["--source={file}", "--model=seam", "--output=x.weights.h5"], "by variable path"),
        (["--source={file}", "--model=resnet38", "--run_dir=x"], "a backbone only"),
        (["--source={file}", "--model=deeplab", "--run_dir=x"], "with --gin_file"),
        (["--source={file}", "--model=seam", "--output=x.npz", "--gin_file=a"], "for --run_dir"),
        (["--source={file}", "--model=sec_cues", "--output=x"], "--image_list is missing"),
        (["--source={names}", "--model=seam", "--output=x.npz"], "names.txt: is not a file of"),
    ],
)
def test_wrong_flags_end_in_one_line(seam_file, arguments, words):
    arguments = [x.format(file=seam_file, names=seam_file.with_name("names.txt"))
                 for x in arguments]  # fmt: skip
    assert words in refused(*arguments)


# === The published networks, by their shapes ===


@pytest.mark.parametrize(
    ("model", "tensors", "parameters"),
    [
        # Kernels, and gamma and beta; statistics are tensors, but no parameters.
        ("resnet38", 191, 105_358_208 - 21 * 4096 - 64 * 512 - 128 * 1024 - 192 * 195),
        ("seam", 195, 105_358_208),
    ],
)
def test_published_networks_have_the_official_counts(model, tensors, parameters):
    found = resnet38_names.targets(model, 21)
    assert len(found) == tensors
    values = sum(np.prod(t.shape) for t in found.values() if "/moving_" not in t.path)
    assert values == parameters


def test_shapes_are_those_of_the_facts():
    found = {name: target.shape for name, target in resnet38_names.targets("seam", 21).items()}
    assert found["conv1a.weight"] == (64, 3, 3, 3)
    assert found["b6.conv_branch2a.weight"] == (512, 1024, 1, 1)
    assert found["b6.conv_branch2b1.weight"] == (1024, 512, 3, 3)
    assert found["b7.conv_branch2b2.weight"] == (4096, 2048, 1, 1)
    assert found["b5.conv_branch1.weight"] == (1024, 512, 1, 1)
    assert found["b6.bn_branch2b2.running_var"] == (1024,)
    assert found["fc8.weight"] == (21, 4096, 1, 1)
    assert found["f9.weight"] == (192, 195, 1, 1)
    assert sum(name.endswith("conv_branch1.weight") for name in found) == 6
    affinity = {n: t.shape for n, t in resnet38_names.targets("affinitynet").items()}
    assert affinity["f8_5.weight"] == (256, 4096, 1, 1)
    assert affinity["f9.weight"] == (448, 448, 1, 1)
    assert "fc8.weight" not in affinity
    deeplab = {n: t.shape for n, t in resnet38_names.targets("deeplab", 21).items()}
    assert deeplab["backbone.b2_1.bn_branch2a.bias"] == (128,)
    assert deeplab["conv_fov.weight"] == (512, 4096, 3, 3)
    assert deeplab["cls_conv.bias"] == (21,)
    assert len(deeplab) == 191 + 2 + 8 + 2


@pytest.mark.usefixtures("large_kernels_zero")
@pytest.mark.parametrize("width", [1, WIDTH])
def test_every_variable_of_the_networks_here_has_its_tensor(width):
    network = narrow_seam(20, width)
    expected = {
        t.path: t.shape if len(t.shape) == 1 else tuple(t.shape[i] for i in (2, 3, 1, 0))
        for t in resnet38_names.targets("seam", 21, width).values()
    }
    actual = {v.path: tuple(v.shape) for v in network.variables if "seed" not in v.path}
    assert actual == expected
