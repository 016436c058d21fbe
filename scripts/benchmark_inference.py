"""Measure what folding BatchNorm into convolutions is worth to a trained network.

  python scripts/benchmark_inference.py --run_dir=RUN --picture=FILE [--size=375x500]

Maps or masks of one picture, at the scales that `infer` takes, with the network as it was trained
and as `models.folding` makes it, in turn. Processor time counts, so that other work on the machine
disturbs little; the ratio of the medians is what to compare.

  python scripts/benchmark_inference.py --run_dir=RUN --picture=FILE --clients=4 [--requests=20]

A SavedModel of each, as `export` writes them at scale 1 without mirror images, asked for the mask
of the picture's file: how long one client waits for an answer, and how many answers a second so
many get, each in a thread of this process, without a server between.
"""

import concurrent.futures
import io
import pathlib
import statistics
import tempfile
import time

import numpy as np
from absl import flags
from PIL import Image

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder.")
_PICTURE = flags.DEFINE_string("picture", None, "Picture to run the network on.")
_SIZE = flags.DEFINE_string("size", None, "HEIGHTxWIDTH, pixels, to bring it to; default: its own.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "How often each is timed.", 1)
_CLIENTS = flags.DEFINE_integer("clients", None, "Of SavedModels, at the same time.", 1)
_REQUESTS = flags.DEFINE_integer("requests", 20, "Of each client, each time.", 1)


def main():
    """Run the script."""
    for name in ("run_dir", "picture"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    from wsss_tf.models.folding import folded
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.trained_network import load_network

    recipe = recipe_lib.load_run(_RUN_DIR.value)
    net = load_network(_RUN_DIR.value)
    networks = net, folded(net)
    picture = _picture()
    if _CLIENTS.value is None:
        _compare_functions([_function(recipe, one) for one in networks], picture)
    else:
        _compare_served(recipe, networks, picture)


def _compare_functions(compute, picture):
    results = [one(picture) for one in compute]  # also makes the graphs
    seconds = [[], []]
    for _ in range(_REPEATS.value):
        for one, times in zip(compute, seconds):
            begin = time.process_time()
            one(picture)
            times.append(time.process_time() - begin)
    plain, fold = map(statistics.median, seconds)
    height, width = picture.shape[1:3]
    print("| picture | as trained, s | folded, s | ratio | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    difference = np.abs(results[0] - results[1]).max()
    print(
        f"| {width} x {height} | {plain:.3f} | {fold:.3f} | {fold / plain:.2f} | {difference:.0e} |"
    )


def _compare_served(recipe, networks, picture):
    contents = io.BytesIO()
    Image.fromarray(picture[0]).save(contents, "JPEG", quality=92)
    models = [_served(recipe, net) for net in networks]
    ask = [lambda answer=answer: answer(contents.getvalue()) for answer in models]
    masks = [one()["mask_bytes"].numpy().item() for one in ask]
    # Of each network seconds for an answer, answers a second, and processor seconds an answer.
    found = [([], [], []) for _ in ask]
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS.value) as clients:
        for _ in range(_REPEATS.value):
            for one, (latencies, rates, costs) in zip(ask, found):
                for _ in range(_REQUESTS.value):
                    begin = time.perf_counter()
                    one()
                    latencies.append(time.perf_counter() - begin)
                count = _CLIENTS.value * _REQUESTS.value
                begin, cost = time.perf_counter(), time.process_time()
                for answer in [clients.submit(one) for _ in range(count)]:
                    answer.result()
                rates.append(count / (time.perf_counter() - begin))
                costs.append((time.process_time() - cost) / count)
    plain, fold = ([statistics.median(values) for values in of] for of in found)
    print(f"\n{picture.shape[2]} x {picture.shape[1]}, same masks: {masks[0] == masks[1]}\n")
    print("| | as trained | folded | ratio |\n| --- | ---: | ---: | ---: |")
    rows = (
        "latency of one client, ms",
        f"requests a second of {_CLIENTS.value}",
        f"processor time of a request of {_CLIENTS.value}, ms",
    )
    for row, factor, one, other in zip(rows, (1000, 1, 1000), plain, fold):
        print(f"| {row} | {one * factor:.3g} | {other * factor:.3g} | {other / one:.2f} |")


def _served(recipe, net):
    """Return the function of a picture's bytes to what the SavedModel of a network answers."""
    import tensorflow as tf

    from wsss_tf.serving import saved_model

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "1"
        if recipe.predicts_masks:
            from wsss_tf.runs.training_run import make_predictor

            predict = make_predictor(recipe, net, scales=(1.0,), flip=False)
            names = [f"class {i}" for i in range(net.output["logits"].shape[-1])]
            saved_model.save_mask_model(predict, path, names, 2**25)
        else:
            from wsss_tf.inference.multi_scale_cam import MultiScaleCam

            compute = MultiScaleCam(net, recipe.cam_output, scales=(1.0,), flip=False)
            names = [f"class {i}" for i in range(net.output[recipe.cam_output].shape[-1])]
            saved_model.save_cam_model(
                compute, path, names, 2**25, recipe.background_threshold, 0.5
            )
        loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    serve.of = loaded  # whose variables it reads
    return lambda contents: serve(image_bytes=tf.constant([contents]))


def _function(recipe, net):
    """Return the function of pictures to maps, or to probabilities, as an array."""
    if recipe.predicts_masks:
        from wsss_tf.runs.training_run import make_predictor

        predict = make_predictor(recipe, net)
        return lambda pictures: predict(pictures).numpy()
    from wsss_tf.inference.multi_scale_cam import MultiScaleCam

    compute = MultiScaleCam(net, recipe.cam_output)
    return lambda pictures: compute(pictures)["cams"].numpy()


def _picture():
    with Image.open(_PICTURE.value) as picture:
        picture = picture.convert("RGB")
        if _SIZE.value is not None:
            height, _, width = _SIZE.value.partition("x")
            if not (height.isdigit() and width.isdigit()):
                raise UserError(f"--size={_SIZE.value}: give HEIGHTxWIDTH, such as 375x500.")
            picture = picture.resize((int(width), int(height)))
        return np.asarray(picture)[None]


if __name__ == "__main__":
    command.run(main)
