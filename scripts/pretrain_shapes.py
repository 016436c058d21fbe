"""Make the pretrained small ResNet38 that comes with the package.

  python scripts/pretrain_shapes.py --run_dir=RUN --output=FILE.npz

The paper starts from a network that has learnt ImageNet, pictures of mostly one object. This is the
like for the drawn scenes: the small network learns to classify pictures with one object (of another
seed, at many sizes), and its backbone, without the head, is written as float16 by variable path.
"""

import pathlib

import gin
from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.")

_SETTINGS = (
    "Recipe.train_split='pretrain'",
    "Recipe.validation_split=None",
    "Recipe.require_labels=False",  # some show a body of no class
    "Recipe.initial_weights=None",
    "Recipe.epochs=12",
    "Recipe.seed=1",
    "shapes_source.seed=1",
    "shapes_source.num_train=2000",
    "shapes_source.ground_correlation=0.0",
    # Down to 0.4 of the size, for the branch and the scales that see it smaller.
    "seam_augmentation.min_long_side=40",
    "seam_augmentation.max_long_side=112",
    "seam_augmentation.crop_size=80",
    "seam_step.siamese=False",
    "poly_adam.learning_rate=2e-3",
    "poly_adam.new_layer_multiplier=1.0",
)


def main():
    """Run the script."""
    if not _RUN_DIR.value or not _OUTPUT.value:
        raise UserError("--run_dir and --output are both needed.")
    from wsss_tf.runs import recipe as recipe_lib
    from wsss_tf.runs.trained_network import load_network
    from wsss_tf.runs.training_run import train
    from wsss_tf.training.initial_weights import save_weights

    files = ["gin/cam.gin", "gin/data/shapes.gin", "gin/size/small.gin"]
    run_dir = pathlib.Path(_RUN_DIR.value)
    recipe = recipe_lib.load(files, _SETTINGS)
    head = gin.query_parameter("NEW_LAYERS/gin.macro.value")
    train(recipe, run_dir)
    net = load_network(run_dir)
    save_weights(
        net,
        _OUTPUT.value,
        keep=lambda path: not any(layer in path.split("/") for layer in head),
        dtype="float16",
    )
    print(f"{_OUTPUT.value}: {pathlib.Path(_OUTPUT.value).stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    command.run(main)
