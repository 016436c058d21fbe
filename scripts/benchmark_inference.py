"""Measure what folding BatchNorm into convolutions is worth to a trained network.

  python scripts/benchmark_inference.py --run_dir=RUN --picture=FILE [--size=375x500]

Maps or masks of one picture, at the scales that `infer` takes, with the network as it was trained
and as `models.folding` makes it, in turn. Processor time counts, so that other work on the machine
disturbs little; the ratio of the medians is what to compare.
"""

import statistics
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
    compute = [_function(recipe, one) for one in (net, folded(net))]
    picture = _picture()
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
