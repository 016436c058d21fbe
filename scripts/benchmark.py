"""Measure training, inference and input rates, peak memory, and their share of the machine's speed.

  python scripts/benchmark.py [--cases=small,full] [--onednn=1,0]

Cases: `small` is gin/size/small_shapes.gin on the drawn scenes; `full` the published network, 448
crop, batch 1. Every line is a process of its own, because oneDNN is chosen when TensorFlow starts.
The share is the rate of floating-point operations of the convolutions (2 per multiply-add, a
training step counted as three forward passes) over that of a large float32 matrix product in the
same run.
"""

import json
import math
import os
import subprocess
import sys
import time

from absl import flags

from wsss_tf import command

_CASES = flags.DEFINE_list("cases", ["small", "full"], "Which sizes to measure.")
_ONEDNN = flags.DEFINE_list("onednn", ["1", "0"], "Values of TF_ENABLE_ONEDNN_OPTS.")
_RUN = flags.DEFINE_string("run", None, "One case only (what the script starts).")

# Case: overlays, bindings, crop, batch, timed steps.
_SETTINGS = {
    "small": (["gin/data/shapes.gin", "gin/size/small_shapes.gin"], [], 96, 16, 20),
    "full": (
        ["gin/data/shapes.gin"],
        [
            "Recipe.batch_size=1",
            "shapes_source.image_size=448",
            "shapes_source.num_train=16",
            "seam_augmentation.min_long_side=448",
            "seam_augmentation.max_long_side=768",
            "seam_augmentation.crop_size=448",
        ],
        448,
        1,
        2,
    ),
}


def main():
    """Run the script."""
    if _RUN.value:
        print("RESULT " + json.dumps(_measure(_RUN.value)))
        return
    print(
        "| case | oneDNN | matrix product GFLOP/s | training images/s | share "
        "| inference images/s | share | input images/s | peak memory GiB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for case in _CASES.value:
        for onednn in _ONEDNN.value:
            result = subprocess.run(
                [sys.executable, __file__, f"--run={case}"],
                env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            [line] = [x for x in result.stdout.splitlines() if x.startswith("RESULT ")]
            r = json.loads(line.removeprefix("RESULT "))
            print(
                f"| {case} | {'on' if onednn == '1' else 'off'} | {r['matmul']:.0f} "
                f"| {r['train']:.3g} | {r['train_share']:.0%} | {r['infer']:.3g} "
                f"| {r['infer_share']:.0%} | {r['input']:.3g} | {r['memory']:.1f} |",
                flush=True,
            )


def _measure(case):
    import resource

    import tensorflow as tf

    from wsss_tf.data import batches
    from wsss_tf.runs import recipe as recipe_lib

    overlays, bindings, crop, batch, steps = _SETTINGS[case]
    recipe = recipe_lib.load(["gin/seam.gin", *overlays], bindings)
    source = recipe.source(split="train").without_masks()
    net = recipe.network(num_classes=recipe.num_outputs(source))
    forward = convolution_flops(net, crop)
    step = recipe.step(net)
    step.compile(optimizer=recipe.optimizer(total_steps=1000))
    batches = iter(batches.training_batches(source, recipe.augmentation(), batch, 0))
    data = next(batches)

    product = tf.function(tf.matmul)
    matrix = tf.random.normal([3000, 3000])
    matmul = 2 * 3000**3 / _seconds(lambda: product(matrix, matrix), 10) / 1e9

    input_rate = batch / _seconds(lambda: next(batches), 10 * steps)
    train_step = tf.function(step.train_step)
    train = batch / _seconds(lambda: train_step(data), steps)
    infer_step = tf.function(lambda x: net(x, training=False)["cam_rv"])
    infer = batch / _seconds(lambda: infer_step(data["image"]), steps)
    # Two branches, the second at `rescale` of the size; backward costs twice the forward pass.
    per_image = 3 * forward * (1 + (step.transform.rescale**2 if step.transform else 0))
    return {
        "matmul": matmul,
        "input": input_rate,
        "train": train,
        "train_share": train * per_image / 1e9 / matmul,
        "infer": infer,
        "infer_share": infer * forward / 1e9 / matmul,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def convolution_flops(net, size):
    """Return the floating-point operations of a forward pass of one [size, size] image."""
    import keras

    fixed = keras.models.clone_model(net, input_tensors=keras.Input((size, size, 3)))
    total = 0
    for layer in fixed.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width = layer.output.shape[1:3]
            total += 2 * math.prod(layer.kernel.shape) * height * width
    return total


def _seconds(call, repeats):
    """Return the seconds of one call, after a first one that is not counted."""
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    if hasattr(result, "numpy"):
        result.numpy()  # wait for what is still running
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    command.run(main)
