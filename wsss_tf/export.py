"""Export a trained network as a SavedModel, preprocessing included.

python -m wsss_tf.export --run_dir=RUN --output=DIR [--scales=0.5,1,1.5,2] [--flip]
"""

import os
import pathlib
import shutil
import uuid

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder, as wsss_tf.train made it.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; must not exist yet.")
_SCALES = flags.DEFINE_list("scales", ["1"], "Factors on the picture's size, all in the graph.")
_FLIP = flags.DEFINE_bool("flip", False, "Add the mirrored picture.")
_CAM_OUTPUT = flags.DEFINE_string(
    "cam_output", None, "Network output to use: cam or cam_rv (default: the recipe's)."
)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which network to use.")


def main():
    """Run the command."""
    for name in ("run_dir", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    output = pathlib.Path(_OUTPUT.value)
    if output.exists():
        raise UserError(f"--output={output}: exists already; give a new folder.")
    scales = command.parse_scales(_SCALES.value)
    from wsss_tf import recipe as recipe_lib

    run_dir = pathlib.Path(_RUN_DIR.value)
    recipe = recipe_lib.load_run(run_dir)
    net = recipe_lib.load_network(run_dir, _CHECKPOINT.value)
    save, signatures = (_masks if recipe.predicts_masks else _cams)(recipe, net, scales)
    class_names = run_dir / "class_names.txt"
    # Complete before it is visible: a server that watches the folder must never load half of it.
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}")
    try:
        save(unfinished)
        shutil.copy(class_names, unfinished / "assets" / "class_names.txt")
        os.replace(unfinished, output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"SavedModel: {output} (signatures {signatures})")


def _cams(recipe, net, scales):
    """Return the function that writes a SavedModel of CAMs to a path, and its signatures."""
    from wsss_tf.serving.saved_model import save_cam_model

    cam_output = _CAM_OUTPUT.value or recipe.cam_output
    if cam_output not in net.output:
        raise UserError(f"--cam_output={cam_output}: the network has {sorted(net.output)}.")
    return (
        lambda path: save_cam_model(net, path, cam_output, scales, _FLIP.value),
        "serving_default and cam",
    )


def _masks(recipe, net, scales):
    """Return the same for a network that predicts masks."""
    from wsss_tf.serving.saved_model import save_mask_model
    from wsss_tf.stages import make_predictor

    if _CAM_OUTPUT.value:
        raise UserError(
            f"--cam_output={_CAM_OUTPUT.value}: the network of this run predicts masks."
        )
    if recipe.postprocess is not None:
        print("note: the recipe's postprocess is not part of a SavedModel.")
    predictor = make_predictor(recipe, net, scales=scales, flip=_FLIP.value)
    return lambda path: save_mask_model(predictor, path), "serving_default and probabilities"


if __name__ == "__main__":
    command.run(main)
