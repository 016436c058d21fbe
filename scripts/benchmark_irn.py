"""Measure IRN: its walk on pictures, and a training step against AffinityNet's.

  python scripts/benchmark_irn.py [--sizes=375x500,3000x4000] [--crop=224 --batch=8]

Every line is a process of its own, for its own peak memory. A walk is that of one picture with
random boundaries and three classes: --steps products of the sparse matrix with the scores, or, on
pictures whose map has at most --dense_cells cells, the dense matrix squared, as the official code
does; then the largest difference of the two results is printed. A step is one of training on random
pictures and labels, of both networks on --backbone without weights, at the same crop.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from absl import flags
from process_memory import fresh_peak, memory

from wsss_tf import command
from wsss_tf.errors import UserError

_SIZES = flags.DEFINE_list("sizes", ["375x500", "3000x4000"], "Of the pictures, HEIGHTxWIDTH.")
_CLASSES = flags.DEFINE_integer("classes", 3, "Classes in the pictures.", 1)
_STEPS = flags.DEFINE_integer("steps", 256, "Of the walk, a power of two.", 1)
_DENSE_CELLS = flags.DEFINE_integer("dense_cells", 12000, "Largest map for the dense matrix.", 0)
_CROP = flags.DEFINE_integer("crop", 224, "Side of the pictures in training, pixels.", 32)
_BATCH = flags.DEFINE_integer("batch", 8, "Pictures in a training step.", 1)
_RADIUS = flags.DEFINE_integer("radius", 10, "Of IRN's pairs in training.", 2)
_BACKBONE = flags.DEFINE_enum(
    "backbone", "efficientnet_lite0", ["efficientnet_lite0", "resnet50_v1"], "Under both networks."
)
_REPEATS = flags.DEFINE_integer("repeats", 2, "Of which the fastest counts.", 1)
_WALKS = flags.DEFINE_bool("walks", True, "Measure walks.")
_TRAINING = flags.DEFINE_bool("training", True, "Measure training steps.")
_RUN = flags.DEFINE_string("run", None, "One case only (what the script starts).")
_FOLDER = flags.DEFINE_string("folder", None, "Where that case leaves its files.")

STRIDE, RADIUS = 4, 5
# Flags that a case has, too.
_KEPT = ("classes", "steps", "crop", "batch", "radius", "backbone", "repeats")


def main():
    """Run the script."""
    if _RUN.value:
        print("RESULT " + json.dumps(_case(_RUN.value, pathlib.Path(_FOLDER.value))))
        return
    sizes = [_size(text) for text in _SIZES.value]
    if _WALKS.value:
        print("| walk | cells | matrix, s | all, s | memory for it, MiB |")
        print("| --- |" + " ---: |" * 4)
        for height, width in sizes:
            _walks(height, width)
    if _TRAINING.value:
        print(
            f"\n| step, {_CROP.value} pixels, batch {_BATCH.value} | seconds | peak memory, MiB |"
        )
        print("| --- | ---: | ---: |")
        for network in ("affinitynet", "irn", "irn with displacements"):
            result = _start(network)
            print(f"| {network} | {result['seconds']:.3g} | {result['peak']:.0f} |", flush=True)


def _size(text):
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not all(map(int, match.groups())):
        raise UserError(f"--sizes={text}: give HEIGHTxWIDTH in pixels, such as 375x500.")
    return tuple(map(int, match.groups()))


def _walks(height, width):
    cells = -(-height // STRIDE) * -(-width // STRIDE)
    kinds = ("sparse", "dense") if cells <= _DENSE_CELLS.value else ("sparse",)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            r = _start(f"{kind}:{height}x{width}", folder)
            name = f"{width} x {height}, {kind}"
            print(
                f"| {name} | {cells} | {r['matrix']:.3g} | {r['seconds']:.3g} | {r['rise']:.0f} |",
                flush=True,
            )
        if len(kinds) == 2:
            import numpy as np

            one, other = (np.load(pathlib.Path(folder) / f"{kind}.npy") for kind in kinds)
            print(f"\nlargest difference of the scores: {np.abs(one - other).max():.1e}\n")


def _start(case, folder="."):
    """Run one case in a process of its own and return its figures."""
    given = [f"--{name}={flags.FLAGS[name].value}" for name in _KEPT]
    result = subprocess.run(
        [sys.executable, __file__, f"--run={case}", f"--folder={folder}", *given],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    [line] = [x for x in result.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def _case(case, folder):
    kind, _, size = case.partition(":")
    if size:
        return _walk(kind, *_size(size), folder)
    return _step(case)


# === Walks ===


def _walk(kind, height, width, folder):
    import numpy as np

    from wsss_tf.inference.boundary_walk import bordered_affinity
    from wsss_tf.inference.random_walk import Grid, PictureGraph, walk
    from wsss_tf.layers.path_affinity import PathAffinity

    height, width = (-(-n // STRIDE) for n in (height, width))
    rng = np.random.default_rng(0)
    # Blotches with borders, as boundaries have them, and not noise in which nothing moves.
    coarse = rng.normal(size=(-(-height // 8), -(-width // 8)))
    logits = 2 * np.kron(coarse, np.ones((8, 8)))[None, :height, :width, None] - 2
    edge = 1 / (1 + np.exp(-logits[0, :, :, 0]))
    scores = rng.random((height, width, _CLASSES.value), np.float32)
    bordered_affinity(PathAffinity(), np.zeros((1, 8, 8, 1), np.float32), RADIUS)  # once, for all
    before = fresh_peak()
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        affinity = bordered_affinity(PathAffinity(), logits.astype(np.float32), RADIUS)
        graph = PictureGraph(affinity[0].numpy(), Grid(height, width, RADIUS, STRIDE, RADIUS), edge)
        transition = graph.transition(10.0)
        matrix = time.perf_counter() - start
        begin = scores * (1 - edge[:, :, None]).astype(np.float32)
        if kind == "sparse":
            walked = walk(begin, transition, _STEPS.value)
        else:
            power = transition.toarray()
            for _ in range(_STEPS.value.bit_length() - 1):
                power = power @ power
            walked = (power.T @ begin.reshape(height * width, -1)).reshape(begin.shape)
        seconds.append((time.perf_counter() - start, matrix))
    rise = memory("VmHWM") - before
    np.save(folder / f"{kind}.npy", walked)
    return {"seconds": min(seconds)[0], "matrix": min(seconds)[1], "rise": rise}


# === Training steps ===


def _step(network):
    import functools

    import numpy as np
    import tensorflow as tf

    from wsss_tf.backbones.dilated_resnet import dilated_resnet
    from wsss_tf.backbones.efficientnet_lite import efficientnet_lite
    from wsss_tf.models.affinitynet import affinity_network
    from wsss_tf.models.irn import irn_network, irn_resnet50
    from wsss_tf.training.affinity import affinity_step
    from wsss_tf.training.irn import irn_step
    from wsss_tf.training.optimizer import uniform_sgd

    crop = _CROP.value
    if network == "affinitynet":
        backbone = {
            "efficientnet_lite0": functools.partial(efficientnet_lite, frozen_stages=2),
            "resnet50_v1": functools.partial(
                dilated_resnet, variant="v1", output_stride=16, train_batchnorm=False
            ),
        }[_BACKBONE.value]
        step, stride = affinity_step(affinity_network(backbone=backbone)), 8
    else:
        backbone = {"efficientnet_lite0": efficientnet_lite, "resnet50_v1": irn_resnet50}
        net = irn_network(
            backbone=backbone[_BACKBONE.value],
            radius=_RADIUS.value,
            crop_size=crop,
            displacement=network != "irn",
        )
        step, stride = irn_step(net), 4
    step.compile(uniform_sgd(100))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(_BATCH.value, crop, crop, 3)).astype(np.float32)
    blocks = rng.integers(0, 3, (_BATCH.value, crop // stride // 7 + 1, crop // stride // 7 + 1))
    labels = blocks.repeat(7, 1).repeat(7, 2)[:, : crop // stride, : crop // stride]
    batch = {"image": image, "affinity_labels": labels.astype(np.uint8)}
    data = tf.data.Dataset.from_tensors(batch).repeat()
    step.fit(data, epochs=1, steps_per_epoch=1, verbose=0, shuffle=False)  # makes the graph
    fresh_peak()
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        step.fit(data, epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)
        seconds.append((time.perf_counter() - start) / 2)
    return {"seconds": min(seconds), "peak": memory("VmHWM")}


if __name__ == "__main__":
    command.run(main)
