"""Compare the masks of exported models, run by a C program, with those of `wsss_tf.infer`.

    python scripts/serve/compare_with_infer.py --input=FOLDER RUN [RUN ...]

exports each run, has a C program (load_model.c, linked to the TensorFlow library that is installed)
load the SavedModel and label the pictures, has wsss_tf.infer label them with the same options, and
counts the pixels that differ. Exit status 1 if there is one, or more than --most in a million:
with --crf, the recipe's dense CRF is in the model, whose sums have another order than infer's.
Needs a C compiler.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# One setting for both: with and without oneDNN sums are rounded differently.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
from PIL import Image

from wsss_tf.serving.client import find_pictures

_HERE = pathlib.Path(__file__).resolve().parent


def build_loader(folder):
    """Compile load_model.c against the installed TensorFlow and return the program's path."""
    import tensorflow as tf

    library = pathlib.Path(tf.__file__).parent
    program = pathlib.Path(folder) / "load_model"
    # The library has hundreds of thousands of symbols: this linker takes 2 seconds, not 9.
    linker = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []
    line = [
        os.environ.get("CC", "cc"), *linker, "-O1", "-Wall", f"-I{tf.sysconfig.get_include()}",
        str(_HERE / "load_model.c"), "-o", str(program), f"-L{library}", f"-Wl,-rpath,{library}",
        "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2",
    ]  # fmt: skip
    subprocess.run(line, check=True)
    return program


def tensor_names(model_dir):
    """Return the graph tensors of image_bytes and mask_bytes, as NAME:INDEX."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((pathlib.Path(model_dir) / "saved_model.pb").read_bytes())
    signature = model.meta_graphs[0].signature_def["serving_default"]
    return signature.inputs["image_bytes"].name, signature.outputs["mask_bytes"].name


def run_loader(program, model_dir, pictures, folder):
    """Have the C program label pictures; returns the finished process."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    names = tensor_names(model_dir)
    line = [program, model_dir, *names, folder, *pictures]
    # No Python path: the program could not find the package if it looked for it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in line], env=environment, capture_output=True, text=True
    )


def _command(name, *arguments):
    line = [sys.executable, "-m", f"wsss_tf.{name}", *map(str, arguments)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def compare(run_dir, pictures, options, program, folder):
    """Return (pixels, pixels that differ) of all pictures together.

    Args:
      run_dir: run folder.
      pictures: (folder, {id: path}).
      options: flags for both commands, such as --flip.
      program: as `build_loader` returns it.
      folder: for what is made on the way.
    """
    is_cam = not _predicts_masks(run_dir)
    thresholds, metrics = [], _metrics(run_dir)
    if is_cam and "best_background_threshold" in metrics:  # else both take the recipe's
        thresholds = [f"--background_threshold={metrics['best_background_threshold']}"]
    run = f"--run_dir={run_dir}"
    _command("export", run, f"--output={folder / 'model'}", "--version=1", *options, *thresholds)
    infer = thresholds if is_cam or "--crf" in options else ["--nopostprocess"]
    infer += [option for option in options if option != "--crf"]
    _command("infer", run, f"--input={pictures[0]}", f"--output={folder / 'infer'}", *infer)
    result = run_loader(program, folder / "model/1", pictures[1].values(), folder / "c")
    if result.returncode:
        raise SystemExit(f"{run_dir}: load_model failed: {result.stderr}")
    kind = "pseudo_labels" if is_cam else "predictions"
    total = different = 0
    for number, image_id in enumerate(pictures[1]):
        masks = [
            np.array(Image.open(path))
            for path in (folder / "infer" / kind / f"{image_id}.png", folder / f"c/{number}.png")
        ]
        if masks[0].shape != masks[1].shape:
            raise SystemExit(f"{run_dir}, {image_id}: {masks[0].shape}, C {masks[1].shape}")
        total += masks[0].size
        different += int((masks[0] != masks[1]).sum())
    return total, different


def _metrics(run_dir):
    path = pathlib.Path(run_dir) / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _predicts_masks(run_dir):
    from wsss_tf.runs import recipe as recipe_lib

    return recipe_lib.load_run(run_dir).predicts_masks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--input", required=True, type=pathlib.Path, help="folder of pictures")
    parser.add_argument("--scales", default="1")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--crf", action="store_true", help="with the recipe's CRF in the model")
    parser.add_argument(
        "--most", type=float, default=0, help="pixels that may differ, in a million"
    )
    arguments = parser.parse_args()
    pictures = arguments.input, find_pictures(arguments.input)
    options = [f"--scales={arguments.scales}", "--flip" if arguments.flip else "--noflip"]
    options += ["--crf"] if arguments.crf else []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        program = build_loader(folder)
        print(f"options: {' '.join(options)}; {len(pictures[1])} pictures")
        for number, run_dir in enumerate(arguments.runs):
            work = pathlib.Path(folder) / str(number)
            total, different = compare(run_dir, pictures, options, program, work)
            failed |= different > arguments.most / 1e6 * total
            print(f"{run_dir}: {total} pixels, {different} differ", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
