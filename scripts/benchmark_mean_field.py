"""Compare the CRF layer with pydensecrf, and SEC's training with and without its constrain loss.

  python scripts/benchmark_mean_field.py [--batch=15 --size=41 --classes=21] [--repeats=5]

First table: seconds for a batch, the library called for one image after the other from the host (as
SEC's official training did) against the layer as one graph function, in turns, medians; how far the
marginals are apart; and, for scale, what ten iterations move. Pictures and scores are drawn:
smooth regions with noise. Second table: training steps per second. On NVIDIA cards with
TensorFloat-32 TensorFlow multiplies matrices with ten-bit mantissas, which shows in the marginals.
"""

import dataclasses
import functools
import statistics
import time

from absl import flags

from wsss_tf import command

_BATCH = flags.DEFINE_integer("batch", 15, "Images a batch.", 1)
_SIZE = flags.DEFINE_integer("size", 41, "Side of the grid.", 5)
_CLASSES = flags.DEFINE_integer("classes", 21, "Labels, background included.", 2)
_ITERATIONS = flags.DEFINE_integer("iterations", 10, "Mean field iterations.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed calls.", 1)
_TILE = flags.DEFINE_integer("tile", None, "Rows of the kernel held at a time; default all.", 1)
_TRAINING = flags.DEFINE_bool("training", True, "Measure training steps too.")
_WIDTH = flags.DEFINE_float("width", 0.25, "Width of the network in training.", 0)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the numbers.")


def main():
    """Run the script."""
    from wsss_tf.files import run_folder
    from wsss_tf.inference.dense_crf import require_library

    require_library("pydensecrf")

    results = {"mean_field": _compare()}
    r = results["mean_field"]
    print("| implementation | seconds a batch | images/s |")
    print("| --- | --- | --- |")
    for name in ("pydensecrf", "layer"):
        print(f"| {name} | {r[name]:.3f} | {_BATCH.value / r[name]:.1f} |")
    print(
        f"time ratio, pydensecrf / layer: {r['pydensecrf'] / r['layer']:.2f}\n"
        f"same label: {r['agreement']:.2%} of the pixels; mean |dQ| {r['mean']:.2e}, "
        f"99th percentile {r['percentile99']:.2e}, max {r['max']:.2f}; "
        f"the CRF itself moves Q by {r['moved']:.2e} on average"
    )
    if _TRAINING.value:
        results["training"] = _measure_training()
        print("\n| training | steps/s |\n| --- | --- |")
        for name, rate in results["training"].items():
            print(f"| {name} | {rate:.3f} |")
    if _OUTPUT.value:
        run_folder.write_json(_OUTPUT.value, results)


def _drawn_batch():
    """Return scores float32 [B, h, w, K] and pictures uint8 [B, h, w, 3] with common regions."""
    import numpy as np
    import scipy.ndimage

    rng = np.random.default_rng(0)
    batch, size, classes = _BATCH.value, _SIZE.value, _CLASSES.value

    def smooth(channels, sigma):
        noise = rng.normal(size=(batch, size, size, channels))
        noise = scipy.ndimage.gaussian_filter(noise, (0, sigma, sigma, 0))
        return noise / noise.std()

    region = np.argmax(smooth(4, size / 10), axis=-1)
    colours = rng.integers(40, 216, (batch, 4, 3))[np.arange(batch)[:, None, None], region]
    pictures = colours + 12 * smooth(3, 1.5) + 4 * rng.normal(size=colours.shape)
    present = rng.integers(0, classes, (batch, 4))
    label = present[np.arange(batch)[:, None, None], region]
    logits = 2.0 * np.eye(classes)[label]
    logits = scipy.ndimage.gaussian_filter(logits, (0, 2, 2, 0)) + smooth(classes, 2)
    return logits.astype(np.float32), np.clip(pictures, 0, 255).astype(np.uint8)


def _compare():
    import numpy as np
    import tensorflow as tf

    from wsss_tf.inference.dense_crf import CAM_CRF, dense_crf_from_energy
    from wsss_tf.layers.mean_field import MeanField

    logits, pictures = _drawn_batch()
    parameters = dataclasses.replace(
        CAM_CRF.scaled(12), iterations=_ITERATIONS.value, library="pydensecrf"
    )
    layer = MeanField(iterations=_ITERATIONS.value, tile=_TILE.value)
    compiled = tf.function(lambda x, y: layer([x, y]))

    def with_library():
        pairs = zip(-logits, pictures)
        return np.stack([dense_crf_from_energy(*pair, parameters) for pair in pairs])

    def with_layer():
        return compiled(logits, pictures).numpy()

    calls = {"pydensecrf": with_library, "layer": with_layer}
    marginals = {name: call() for name, call in calls.items()}  # and compile
    seconds = {name: [] for name in calls}
    for _ in range(_REPEATS.value):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    difference = np.abs(marginals["pydensecrf"] - marginals["layer"])
    labels = [value.argmax(-1) for value in marginals.values()]
    before = tf.nn.softmax(logits).numpy()
    return {
        **{name: statistics.median(values) for name, values in seconds.items()},
        "agreement": float(np.mean(labels[0] == labels[1])),
        "mean": float(difference.mean()),
        "percentile99": float(np.percentile(difference, 99)),
        "max": float(difference.max()),
        "moved": float(np.abs(marginals["layer"] - before).mean()),
    }


def _measure_training():
    """Return {name: steps per second} of the whole training step."""
    import numpy as np
    import tensorflow as tf

    from wsss_tf.backbones.vgg16_largefov import vgg16_largefov
    from wsss_tf.models.sec import sec_network
    from wsss_tf.training.optimizer import step_sgd
    from wsss_tf.training.sec import sec_step

    rng = np.random.default_rng(0)
    side, image_size = _SIZE.value, 8 * (_SIZE.value - 1) + 1
    labels = rng.random((_BATCH.value, _CLASSES.value - 1)) < 0.1
    data = {
        "image": rng.normal(size=(_BATCH.value, image_size, image_size, 3)).astype(np.float32),
        "labels": labels.astype(np.float32),
        "cues": rng.integers(0, 2, (_BATCH.value, side, side), dtype=np.uint8),
    }
    data = {name: tf.constant(array) for name, array in data.items()}
    backbone = functools.partial(vgg16_largefov, width=_WIDTH.value)
    steps = {}
    for name, use_constrain in (("seed + expand", False), ("seed + expand + constrain", True)):
        step = sec_step(
            sec_network(_CLASSES.value, image_size, backbone),
            use_constrain=use_constrain,
        )
        step.compile(step_sgd(1000, ("fc8",)))
        steps[name] = tf.function(step.train_step)
        steps[name](data)
    seconds = {name: [] for name in steps}
    for _ in range(_REPEATS.value):
        for name, train_step in steps.items():
            start = time.perf_counter()
            float(train_step(data)["loss"])
            seconds[name].append(time.perf_counter() - start)
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    command.run(main)
