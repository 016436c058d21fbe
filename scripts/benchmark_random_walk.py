"""Measure the random walk, dense squaring against sparse products.

  python scripts/benchmark_random_walk.py [--height=375 --width=500]

Every line is a process of its own, for its own peak memory. The walk is that of one picture with
random affinities: T is squared --logt times as the official code does, or multiplied with the
scores 2 ^ logt times; the largest difference between the two results is printed.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags
from process_memory import fresh_peak, memory

from wsss_tf import command

_HEIGHT = flags.DEFINE_integer("height", 375, "Of the picture, pixels.", 1)
_WIDTH = flags.DEFINE_integer("width", 500, "Of the picture, pixels.", 1)
_CLASSES = flags.DEFINE_integer("classes", 2, "Foreground classes in the picture.", 0)
_LOGT = flags.DEFINE_integer("logt", 6, "Squarings; the walk has 2 ^ logt steps.", 0)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Walks of which the fastest counts.", 1)
_RUN = flags.DEFINE_string("run", None, "One case only (what the script starts).")
_FOLDER = flags.DEFINE_string("folder", None, "Where that case leaves its files.")

STRIDE = 8


def main():
    """Run the script."""
    if _RUN.value:
        print("RESULT " + json.dumps(_walk(pathlib.Path(_FOLDER.value), _RUN.value)))
        return
    print("| case | seconds | peak memory MiB | of which for it |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for case in ("dense", "sparse"):
            r = _start(case, folder)
            print(f"| walk, {case} | {r['seconds']:.3g} | {r['peak']:.0f} | {r['rise']:.0f} |")
        print(f"\nlargest difference of the scores: {_difference(folder):.1e}\n", flush=True)


def _start(case, folder):
    """Run one case in a process of its own and return its figures."""
    given = [f"--{name}={flags.FLAGS[name].value}" for name in (
        "height", "width", "classes", "logt", "repeats"
    )]  # fmt: skip
    result = subprocess.run(
        [sys.executable, __file__, f"--run={case}", f"--folder={folder}", *given],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    [line] = [x for x in result.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def _difference(folder):
    import numpy as np

    dense, sparse = (np.load(folder / f"{case}.npy") for case in ("dense", "sparse"))
    return float(np.abs(dense - sparse).max())


def _walk(folder, case):
    import numpy as np

    from wsss_tf import ops
    from wsss_tf.inference.random_walk import transition_matrix, walk

    height, width = (-(-n // STRIDE) for n in (_HEIGHT.value, _WIDTH.value))
    radius = ops.search_radius(height, width)
    rng = np.random.default_rng(0)
    pairs = (height - radius + 1) * (width - 2 * radius + 2)
    affinity = rng.random((len(ops.pair_offsets(radius)), pairs), np.float32)
    scores = rng.random((height, width, _CLASSES.value + 1), np.float32)

    def sparse():
        transition = transition_matrix(affinity, height, width, radius)
        return walk(scores, transition, 2**_LOGT.value)

    def dense():
        power = transition_matrix(affinity, height, width, radius).toarray()
        for _ in range(_LOGT.value):
            power = power @ power
        return (power.T @ scores.reshape(height * width, -1)).reshape(scores.shape)

    before = fresh_peak()
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        walked = {"sparse": sparse, "dense": dense}[case]()
        seconds.append(time.perf_counter() - start)
    peak = memory("VmHWM")
    np.save(folder / f"{case}.npy", walked)
    return {"seconds": min(seconds), "peak": peak, "rise": peak - before}


if __name__ == "__main__":
    command.run(main)
