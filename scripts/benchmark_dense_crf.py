"""Compare the dense CRF's libraries with pydensecrf: seconds, results, and the rate of `refine`.

  python scripts/benchmark_dense_crf.py [--picture=FILE] [--labels=3,12,21]

Each is timed in turn on one thread, and the fastest of a few rounds counts. "pair" is two CRFs on
one picture, as `wsss_tf.refine` runs them for its two background powers. Without --picture it is
one of patches with noise. The rate counts pictures as `refine` does them, four files each, the
start of its processes included. pydensecrf must be installed.
"""

import os
import pathlib
import resource
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.inference.dense_crf import CrfParameters, dense_crfs, prepare

_PICTURE = flags.DEFINE_string("picture", None, "Picture file; its size counts.")
_HEIGHT = flags.DEFINE_integer("height", 360, "Of the picture without --picture, pixels.", 1)
_WIDTH = flags.DEFINE_integer("width", 480, "Likewise.", 1)
_LABELS = flags.DEFINE_list("labels", ["3", "12", "21"], "Numbers of labels to compare.")
_LIBRARIES = flags.DEFINE_list("libraries", ["numba"], "Of numba and tensorflow.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds, of which the fastest counts.", 1)
_PROCESSES = flags.DEFINE_list("processes", ["1", "2"], "Numbers of processes for the rate.")
_IMAGES = flags.DEFINE_integer("images", 40, "Pictures for the rate; 0 for none.", 0)


def main():
    """Run the script."""
    for name in ("labels", "processes"):
        if not all(text.isdigit() and int(text) for text in flags.FLAGS[name].value):
            raise UserError(f"--{name}: give numbers, such as 1,2.")
    if "tensorflow" in _LIBRARIES.value:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    parameters = {name: CrfParameters(library=name) for name in (*_LIBRARIES.value, "pydensecrf")}
    start = time.perf_counter()
    for one in parameters.values():
        prepare(one)
    print(f"compiled, or found in the cache, in {time.perf_counter() - start:.1f} s\n")
    image = _image()
    print(f"{image.shape[1]} x {image.shape[0]} pixels, 10 iterations\n")
    print(
        "| labels | library | s | ratio | s of a pair | ratio | same labels | largest difference |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for labels in map(int, _LABELS.value):
        _compare(labels, image, parameters)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"\nmost memory of this process: {peak:.0f} MiB\n")
    if _IMAGES.value:
        print("| library | processes | images/s |\n| --- | ---: | ---: |")
        for processes in map(int, _PROCESSES.value):
            for library in ("numba", "pydensecrf"):
                rate = _rate(image, CrfParameters(library=library), processes)
                print(f"| {library} | {processes} | {rate:.2f} |", flush=True)


def _image():
    if _PICTURE.value:
        from PIL import Image

        return np.asarray(Image.open(_PICTURE.value).convert("RGB"))
    rng = np.random.default_rng(0)
    size = (_HEIGHT.value, _WIDTH.value)
    return (
        (_patches(rng, size, 3) * 255 + rng.normal(0, 8, (*size, 3))).clip(0, 255).astype("uint8")
    )


def _patches(rng, size, channels):
    """Return [h, w, channels] of patches of 16 pixels, as photographs are not noise."""
    coarse = rng.random((-(-size[0] // 16), -(-size[1] // 16), channels))
    return coarse.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]


def _compare(labels, image, parameters):
    rng = np.random.default_rng(0)
    pair = [_patches(rng, image.shape[:2], labels) for _ in range(2)]
    seconds, marginals = {}, {}
    for _ in range(_ROUNDS.value):
        for library, one in parameters.items():
            for fields in (pair[:1], pair):
                start = time.process_time()
                result = dense_crfs(fields, image, one)
                taken = time.process_time() - start
                key = library, len(fields)
                seconds[key] = min(taken, seconds.get(key, taken))
            marginals[library] = result
    reference = np.stack(marginals["pydensecrf"])
    for library in parameters:
        alone, pair_of_them = (seconds[library, n] for n in (1, 2))
        ratios = [seconds[library, n] / seconds["pydensecrf", n] for n in (1, 2)]
        ours = np.stack(marginals[library])
        same = (ours.argmax(-1) == reference.argmax(-1)).mean()
        print(
            f"| {labels} | {library} | {alone:.3f} | {ratios[0]:.2f} | {pair_of_them:.3f} "
            f"| {ratios[1]:.2f} | {100 * same:.3f} % | {np.abs(ours - reference).max():.0e} |",
            flush=True,
        )


def _rate(image, parameters, processes):
    from wsss_tf.files import run_folder
    from wsss_tf.inference.cam_crf import refine
    from wsss_tf.inference.process_pool import map_in_processes

    cams = _patches(np.random.default_rng(1), image.shape[:2], 2).transpose(2, 0, 1)
    names = [f"{i:05}" for i in range(_IMAGES.value)]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            run_folder.save_cams(pathlib.Path(folder) / "cams", name, [1, 2], cams)
        start = time.perf_counter()
        calls = ((folder, name, image, parameters) for name in names)
        for _ in map_in_processes(refine, calls, processes):
            pass
        return len(names) / (time.perf_counter() - start)


if __name__ == "__main__":
    command.run(main)
