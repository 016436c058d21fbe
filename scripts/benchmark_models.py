"""Measure CPNet, SANet and their baselines: parameters, operations, inference rate, prior memory.

  python scripts/benchmark_models.py [--models=fcn50,cpnet50] [--crop=512] [--norate]

Operations are multiply-accumulates of the convolutions and matrix products of one image at that
crop, read off the graph. The second table is what the context prior adds to a process' memory when
it gathers the contexts of one image, all positions at once and tile by tile. A process each.
"""

import functools
import json
import math
import subprocess
import sys
import time

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_MODELS = {
    "fcn50": ("fcn", 50),
    "fcn101": ("fcn", 101),
    "se50": ("fcn_se", 50),
    "se101": ("fcn_se", 101),
    "sanet50": ("sanet", 50),
    "sanet101": ("sanet", 101),
    "cpnet50": ("cpnet", 50),
    "cpnet101": ("cpnet", 101),
}
_PRIORS = ((60, None), (60, 256), (96, None), (96, 256))

_NAMES = flags.DEFINE_list("models", list(_MODELS), "Which networks.")
_CROP = flags.DEFINE_integer("crop", 512, "Side of the images, pixels.")
_CLASSES = flags.DEFINE_integer("classes", 60, "Classes to predict.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Factor on the backbone's channels.")
_RATE = flags.DEFINE_bool("rate", True, "Measure images per second too.")
_PRIOR = flags.DEFINE_bool("prior", True, "Measure the context prior's memory too.")
_RUN = flags.DEFINE_string("run", None, "One measurement only (what the script starts).")


def main():
    """Run the script."""
    if unknown := set(_NAMES.value) - set(_MODELS):
        raise UserError(f"--models: {sorted(unknown)} unknown; there are {list(_MODELS)}.")
    if _RUN.value:
        kind, *settings = _RUN.value.split(":")
        measured = _measure_model(*settings) if kind == "model" else _measure_prior(*settings)
        print("RESULT " + json.dumps(measured))
        return
    print("| network | parameters, million | multiply-accumulates, billion | images/s |")
    print("| --- | --- | --- | --- |", flush=True)
    for name in _NAMES.value:
        r = _process(f"model:{name}")
        rate = "–" if r["rate"] is None else f"{r['rate']:.3g}"
        print(f"| {name} | {r['parameters']:.1f} | {r['operations']:.1f} | {rate} |", flush=True)
    if _PRIOR.value:
        print("\n| context prior | tile | memory, MiB |\n| --- | --- | --- |", flush=True)
        for side, tile in _PRIORS:
            r = _process(f"prior:{side}:{tile or 0}")
            print(f"| {side} x {side} | {tile or 'none'} | {r['memory']:.0f} |", flush=True)


def _process(run):
    result = subprocess.run(
        [sys.executable, *sys.argv, f"--run={run}"], check=True, stdout=subprocess.PIPE, text=True
    )
    [line] = [x for x in result.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def build(kind, depth, num_classes, crop, width=1.0):
    """Return a network by its name in this script."""
    from wsss_tf.backbones.dilated_resnet import dilated_resnet
    from wsss_tf.models import cpnet, fcn, sanet

    backbone = functools.partial(dilated_resnet, depth=depth, width=width)
    if kind == "cpnet":
        return cpnet.cpnet_network(num_classes, crop_size=crop, backbone=backbone)
    factory = {
        "fcn": fcn.fcn_network, "fcn_se": fcn.fcn_se_network, "sanet": sanet.sanet_network
    }[kind]  # fmt: skip
    return factory(num_classes, backbone=backbone)


def _measure_model(name):
    import tensorflow as tf

    crop = _CROP.value
    net = build(*_MODELS[name], _CLASSES.value, crop, _WIDTH.value)
    trained = sum(math.prod(v.shape) for v in net.trainable_variables)
    predict = tf.function(
        lambda image: net(image, training=False)["logits"],
        input_signature=[tf.TensorSpec([1, crop, crop, 3])],
    )
    graph = predict.get_concrete_function()
    rate = None
    if _RATE.value:
        image = tf.zeros([1, crop, crop, 3])
        predict(image).numpy()
        start, count = time.perf_counter(), 3
        for _ in range(count):
            predict(image).numpy()
        rate = count / (time.perf_counter() - start)
    return {
        "parameters": trained / 1e6,
        "operations": multiply_accumulates(graph, net) / 1e9,
        "rate": rate,
    }


def multiply_accumulates(function, net):
    """Return those of the convolutions and matrix products that lead to a function's result.

    Args:
      function: concrete function of static shapes; what its result does not need (auxiliary heads)
        is left out.
      net: the network in it; its variables are what the function captures.
    """
    del net  # keeps the captured variables alive while the graph is read
    wanted, stack = set(), [t.op for t in function.outputs]
    while stack:
        op = stack.pop()
        if op not in wanted:
            wanted.add(op)
            stack.extend(t.op for t in op.inputs)
    total = 0
    for op in wanted:
        if op.type not in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2"):
            continue
        left, right, out = op.inputs[0].shape, op.inputs[1].shape, op.outputs[0].shape
        if op.type == "Conv2D":
            each = math.prod(right[:3])
        elif op.type == "DepthwiseConv2dNative":
            each = math.prod(right[:2])
        else:
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            each = left[-2] if transposed else left[-1]
        total += each * math.prod(out)
    return total


def _measure_prior(side, tile):
    import resource

    import tensorflow as tf

    from wsss_tf.layers.context_prior import ContextPrior

    side, tile = int(side), int(tile) or None
    layer = ContextPrior((side, side), tile)
    value = tf.random.normal([1, side, side, 512])
    layer.build(value.shape)
    contexts = tf.function(lambda x: layer(x, training=False)[:2]).get_concrete_function(value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for tensor in contexts(value):
        tensor.numpy()
    return {"memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10}


if __name__ == "__main__":
    command.run(main)
