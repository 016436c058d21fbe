"""Measure against PyTorch, pydensecrf and NumPy on this machine, in one run.

  pip install torch pydensecrf2
  python scripts/benchmark_peers.py [--rows=cam_lite0,input,sweep] [--repeats=3]

Rows: `cam_resnet38` and `cam_lite0`, maps of a picture at four scales with mirror images, by SEAM
on ResNet38 and on EfficientNet-Lite0; `train_resnet38`, its training step at 448, one picture;
`train_photos`, that of gin/size/photos.gin; `input`, a picture read and augmented, against a
DataLoader with Pillow; `sweep`, the threshold sweep against one pass over the masks a threshold;
`crf`, the dense CRF. What a row needs and is not installed is said, and the row left out.

One thread each, in turn; processor time counts, and the ratio is that of the medians. PyTorch's
networks (`torch_networks.py`) have as many parameters and multiply-accumulates as ours, which is
checked.
"""

import dataclasses
import importlib.util
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import flags
from PIL import Image

from wsss_tf import command
from wsss_tf.errors import UserError

_CLASSES = 20
_BATCH = 16  # of gin/size/photos.gin, and of the input
_PHOTOS = ["gin/backbone/efficientnet_lite0.gin", "gin/size/photos.gin"]
_PHOTOS_CROP = 288
_THRESHOLDS = 60

_ROWS = flags.DEFINE_list("rows", None, "Which rows; all by default.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "How often each is timed.", 1)
_SIZE = flags.DEFINE_string("size", "375x500", "HEIGHTxWIDTH of pictures and masks, pixels.")
_SCALES = flags.DEFINE_list("scales", ["0.5", "1", "1.5", "2"], "Of the maps.")
_CROP = flags.DEFINE_integer("crop", 448, "Of train_resnet38 and input, pixels.", 32)
_SIDES = flags.DEFINE_list("sides", ["448", "768"], "Range of the input's long side, pixels.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Factor on ResNet38's channels.", 0.0)
_PICTURES = flags.DEFINE_integer("pictures", 64, "Of the input.", _BATCH)
_MASKS = flags.DEFINE_integer("masks", 200, "Of the sweep.", 1)
_PASSES = flags.DEFINE_integer(
    "passes", _THRESHOLDS, f"Passes of {_THRESHOLDS} that are timed of the peer's sweep.", 1
)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """What is timed: two functions that do the same, `count` times in a call."""

    ours: Callable
    peer: Callable
    count: int = 1
    peer_factor: float = 1  # on the peer's time, of which only a part is timed
    operations: float = 0  # floating-point ones of our convolutions, for the share


def main():
    """Run the script."""
    rows = list(_KINDS) if _ROWS.value is None else _ROWS.value
    if unknown := [row for row in rows if row not in _KINDS]:
        raise UserError(f"--rows: {unknown} unknown; there are {', '.join(_KINDS)}.")
    scales = command.parse_scales(_SCALES.value)
    _size(), _sides()
    possible = []
    for row in rows:
        _, module, package = _KINDS[row]
        if module is None or importlib.util.find_spec(module):
            possible.append(row)
        else:
            print(f"{row}: left out; it needs {package} (pip install {package}).")
    # PyTorch's optimizers import triton where it is, whose LLVM crashes beside TensorFlow's.
    sys.modules["triton"] = None
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for row in possible:
            make = _KINDS[row][0]
            if row == "crf":
                lines += make()
                continue
            place = pathlib.Path(folder) / row
            place.mkdir()
            lines.append(_timed(row, make(place, scales)))
    print("\n| row | ours, s | peer, s | ratio |\n| --- | ---: | ---: | ---: |")
    for row, ours, peer in lines:
        print(f"| {row} | {ours:.4g} | {peer:.4g} | {ours / peer:.2g} |")


def _timed(row, pair):
    """Return (row, seconds of ours, of the peer), for one of `pair.count`."""
    seconds = {"ours": [], "peer": []}
    pair.ours(), pair.peer()  # also makes graphs and kernels
    for _ in range(_REPEATS.value):
        for name, times in seconds.items():
            begin = time.process_time()
            getattr(pair, name)()
            times.append((time.process_time() - begin) / pair.count)
        print(f"{row}: " + ", ".join(f"{n} {t[-1]:.4g} s" for n, t in seconds.items()), flush=True)
    ours, peer = (statistics.median(times) for times in seconds.values())
    if pair.operations:
        share = pair.operations / ours / _matrix_product()
        print(f"{row}: {1 / ours:.3g} a second, {share:.0%} of the rate of a matrix product")
    return row, ours, peer * pair.peer_factor


def _matrix_product():
    """Return the floating-point operations a second of a large float32 matrix product."""
    import tensorflow as tf

    matrix, product = tf.random.normal([2000, 2000]), tf.function(tf.matmul, autograph=False)
    product(matrix, matrix).numpy()
    begin = time.process_time()
    for _ in range(3):
        product(matrix, matrix).numpy()
    return 3 * 2 * 2000**3 / (time.process_time() - begin)


# === Networks ===


def _cam_resnet38(_, scales):
    from torch_networks import ResNet38, Seam

    peer = Seam(ResNet38(_WIDTH.value), _CLASSES, _WIDTH.value)
    return _cams(_recipe([]), peer, scales)


def _cam_lite0(_, scales):
    from torch_networks import EfficientNetLite0, Seam

    return _cams(_recipe(_PHOTOS), Seam(EfficientNetLite0(), _CLASSES), scales)


def _cams(recipe, peer, scales):
    from torch_networks import multi_scale_cams

    from wsss_tf.inference.multi_scale_cam import MultiScaleCam
    from wsss_tf.models.folding import folded

    net = recipe.network(num_classes=_CLASSES)
    _check_counts(net, peer, _size())
    compute = MultiScaleCam(folded(net), scales=scales)  # as `infer` does
    picture = _picture(_size())
    peer.eval()
    return _Pair(
        ours=lambda: compute(picture[None])["cams"].numpy(),
        peer=lambda: multi_scale_cams(peer, picture, scales),
    )


def _train_resnet38(*_):
    import torch
    from torch_networks import ResNet38, Seam

    peer = Seam(ResNet38(_WIDTH.value), _CLASSES, _WIDTH.value)
    peer.set_training()
    trained = [p for p in peer.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=5e-4, weight_decay=5e-4)
    return _steps(_recipe([]), peer, optimizer, 1, _CROP.value)


def _train_photos(*_):
    import torch
    from torch_networks import EfficientNetLite0, Seam

    peer = Seam(EfficientNetLite0(), _CLASSES, dropout=0.3)
    peer.set_training()
    optimizer = torch.optim.Adam([p for p in peer.parameters() if p.requires_grad], lr=2e-4)
    return _steps(_recipe(_PHOTOS), peer, optimizer, _BATCH, _PHOTOS_CROP)


def _steps(recipe, peer, optimizer, batch, crop):
    import tensorflow as tf
    import torch
    from torch_networks import training_step

    net = recipe.network(num_classes=_CLASSES)
    step = recipe.step(net)
    step.compile(optimizer=recipe.optimizer(total_steps=1000))
    operations = 2 * _check_counts(net, peer, (crop, crop))
    peer.set_training()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, crop, crop, 3)).astype(np.float32)
    labels = (rng.random((batch, _CLASSES)) < 0.1).astype(np.float32)
    data = {"image": images, "labels": labels, "uniform": rng.random((batch, 4), np.float32)}
    data = {name: tf.constant(value) for name, value in data.items()}
    train = tf.function(step.train_step, autograph=False)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(labels)
    rescale = step.transform.rescale
    return _Pair(
        ours=lambda: float(train(data)["loss"]),
        peer=lambda: training_step(peer, optimizer, images, labels, rescale),
        count=batch,
        # Both branches; the backward pass counted as two forward ones.
        operations=3 * operations * (1 + rescale**2),
    )


def _recipe(overlays):
    import torch

    from wsss_tf.runs import recipe as recipe_lib

    torch.set_num_threads(1)
    width = _WIDTH.value
    narrow = [f"resnet38.width={width}", f"seam_network.head_width={width}"]
    return recipe_lib.load(["gin/seam.gin", *overlays], [] if overlays or width == 1 else narrow)


def _check_counts(net, peer, size):
    """Return the multiply-accumulates of the convolutions, as many in both networks.

    Raises:
      UserError: they, or the parameters, differ.
    """
    import tensorflow as tf
    from torch_networks import counts

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1, *size, 3])])
    def forward(image):
        outputs = net(image, training=False)
        return outputs["cam"], outputs["cam_rv"]

    operations = 0
    for op in forward.get_concrete_function().graph.get_operations():
        if op.type in ("Conv2D", "DepthwiseConv2dNative"):
            kernel = op.inputs[1].shape
            taps = kernel[:3] if op.type == "Conv2D" else kernel[:2]
            operations += int(np.prod(taps)) * op.outputs[0].shape.num_elements()
    statistics_of_norms = ("moving_mean", "moving_variance")
    parameters = sum(
        int(np.prod(v.shape))
        for v in net.weights
        if v.name not in statistics_of_norms and "seed" not in v.path
    )
    if (parameters, operations) != counts(peer, size):
        raise UserError(f"ours has {(parameters, operations)}, the peer {counts(peer, size)}.")
    print(
        f"{net.backbone_name}: {parameters / 1e6:.2f} million parameters, {operations / 1e9:.2f} "
        f"billion multiply-accumulates at {size[1]} x {size[0]} in both"
    )
    return operations


# === Input, sweep and CRF ===


def _input(folder, _):
    import tensorflow as tf
    import torch
    from torch_networks import Pictures

    from wsss_tf.data.folder import folder_source
    from wsss_tf.data.transforms import seam_augmentation

    torch.set_num_threads(1)
    count = _PICTURES.value
    names = [f"{i:05}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        Image.fromarray(_picture(_size(), i)).save(folder / name, quality=92)
    rows = ["image,labels", *(f"{name},thing" for name in names)]
    (folder / "image_labels.csv").write_text("\n".join(rows) + "\n")
    crop = _CROP.value
    sides = _sides()
    source = folder_source(root=str(folder))
    augment = seam_augmentation(*sides, crop)

    # Without what the training pipeline does ahead, so that a call does its own work only.
    @tf.autograph.experimental.do_not_convert
    def example(index):
        return augment(source.load(index), tf.stack([tf.cast(index, tf.int32), 0]))["image"]

    # Endless, as in training: to start an iterator takes as long as some pictures.
    dataset = tf.data.Dataset.range(count).repeat().map(example).batch(_BATCH)
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False  # which work ahead
    options.autotune.enabled = False
    batches = iter(dataset.with_options(options))
    pictures = Pictures([folder / name for name in names], *sides, crop)
    loader = torch.utils.data.DataLoader(pictures, _BATCH, shuffle=True, drop_last=True)
    return _Pair(
        ours=lambda: [next(batches).numpy() for _ in range(count // _BATCH)],
        peer=lambda: [batch.numpy() for batch in loader],
        count=count // _BATCH * _BATCH,
    )


def _sweep(folder, _):
    from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, Sweep
    from wsss_tf.files import run_folder

    rng = np.random.default_rng(0)
    names = [f"{i:05}" for i in range(_MASKS.value)]
    for name in names:
        class_ids = np.sort(rng.choice(_CLASSES, rng.integers(1, 4), replace=False) + 1)
        cams = _patches(rng, _size(), len(class_ids)).transpose(2, 0, 1).astype(np.float16)
        mask = np.r_[0, class_ids, 255][rng.integers(len(class_ids) + 2, size=_size())]
        run_folder.save_cams(folder / "cams", name, class_ids, cams)
        np.savez(folder / f"{name}.npz", class_ids=class_ids, cams=cams.astype(np.float32))
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{name}.png")

    def mask_of(name):
        return np.asarray(Image.open(folder / f"{name}.png"))

    def ours():
        sweep = Sweep(_CLASSES + 1)
        for name in names:
            sweep.update(*run_folder.load_cams(folder / "cams", name), mask_of(name))
        return sweep.result(list(map(str, range(_CLASSES + 1)))).confusion

    def peer():
        return [_pass_over_masks(folder, names, mask_of, t) for t in THRESHOLDS[: _PASSES.value]]

    for matrix, counts in zip(ours(), peer()):
        if not np.array_equal(counts, [matrix.diagonal(), matrix.sum(0), matrix.sum(1)]):
            raise UserError("sweep: the counts differ.")
    return _Pair(ours, peer, peer_factor=_THRESHOLDS / _PASSES.value)


def _pass_over_masks(folder, names, mask_of, threshold):
    """Return pixels hit, predicted and true of each class, as the official evaluation counts."""
    counts = np.zeros((3, _CLASSES + 1), np.int64)
    for name in names:
        mask = mask_of(name)
        scores = np.zeros((_CLASSES + 1, *mask.shape), np.float32)
        with np.load(folder / f"{name}.npz") as arrays:
            scores[arrays["class_ids"]] = arrays["cams"]
        scores[0] = threshold
        predicted = scores.argmax(0).astype(np.uint8)
        valid = mask < 255
        hit = (predicted == mask) & valid
        for k in range(_CLASSES + 1):
            counts[0, k] += ((mask == k) & hit).sum()
            counts[1, k] += ((predicted == k) & valid).sum()
            counts[2, k] += ((mask == k) & valid).sum()
    return counts


def _crf():
    """Return (row, seconds of ours, of the peer) by scripts/benchmark_dense_crf.py."""
    height, width = _size()
    script = pathlib.Path(__file__).with_name("benchmark_dense_crf.py")
    flags_of_it = [f"--height={height}", f"--width={width}", "--labels=3,21", "--images=0"]
    line = [sys.executable, str(script), *flags_of_it, f"--rounds={_REPEATS.value}"]
    output = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = re.findall(r"^\| (\d+) \| (numba|pydensecrf) \| (\S+) \|", output, re.M)
    seconds = {(labels, library): float(text) for labels, library, text in rows}
    return [
        (f"crf, {n} labels", seconds[n, "numba"], seconds[n, "pydensecrf"]) for n in ("3", "21")
    ]


# === Pictures ===


def _size():
    """Return (height, width) of --size."""
    height, _, width = _SIZE.value.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UserError(f"--size={_SIZE.value}: give HEIGHTxWIDTH, such as 375x500.")
    return int(height), int(width)


def _sides():
    """Return (smallest, largest) of --sides."""
    numbers = _SIDES.value
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"--sides={','.join(numbers)}: give two lengths, such as 448,768.")
    return tuple(map(int, numbers))


def _picture(size, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 8, (*size, 3))
    return (_patches(rng, size, 3) * 255 + noise).clip(0, 255).astype(np.uint8)


def _patches(rng, size, channels):
    """Return [h, w, channels] in [0, 1) of patches of 16 pixels, as photographs are not noise."""
    coarse = rng.random((-(-size[0] // 16), -(-size[1] // 16), channels))
    return coarse.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]


# Of each row what makes it, and the module and package that the peer is.
_KINDS = {
    "cam_resnet38": (_cam_resnet38, "torch", "torch"),
    "cam_lite0": (_cam_lite0, "torch", "torch"),
    "train_resnet38": (_train_resnet38, "torch", "torch"),
    "train_photos": (_train_photos, "torch", "torch"),
    "input": (_input, "torch", "torch"),
    "sweep": (_sweep, None, None),
    "crf": (_crf, "pydensecrf", "pydensecrf2"),
}


if __name__ == "__main__":
    command.run(main)
