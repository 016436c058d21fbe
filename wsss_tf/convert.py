"""Turn published weights and data of other frameworks into this project's files.

  python -m wsss_tf.convert --model=resnet38 --source=FILE.params --output=resnet38_imagenet.npz
  python -m wsss_tf.convert --model=seam --source=resnet38_SEAM.pth --run_dir=RUN
  python -m wsss_tf.convert --model=resnet50 --source=FILE.pth --output=resnet50_imagenet.npz
  python -m wsss_tf.convert --model=sec_cues --source=localization_cues.pickle.gz \\
      --image_list=input_list.txt --output=cues

--source is an MXNet .params file or a PyTorch checkpoint; neither framework is needed, and nothing
in a file is run. The weights go to an .npz of arrays by variable path, for Recipe.initial_weights,
or straight into a run folder, which infer, evaluate and export then take like a trained one.
"""

import pathlib

from absl import flags

from wsss_tf import command
from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder, atomic_path

_BACKBONES = ("resnet38", "resnet50")
_MODELS = (*_BACKBONES, "seam", "affinitynet", "deeplab", "irn_cam", "irn", "sec_cues")
# What --run_dir takes as its recipe where no --gin_file is given.
_RECIPES = {"seam": "gin/seam.gin", "irn_cam": "gin/irn_cam.gin", "irn": "gin/irn.gin"}

_SOURCE = flags.DEFINE_string("source", None, "File to convert.")
_MODEL = flags.DEFINE_enum("model", None, list(_MODELS), "What is in the file.")
_OUTPUT = flags.DEFINE_string("output", None, "File .npz to write; for sec_cues a folder.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names",
    None,
    "Text file with one class name a line, background first, if they are not PASCAL VOC's.",
)
_WIDTH = flags.DEFINE_float(
    "width", 1.0, "Factor on the backbone's channels; 1 is the published network.", 0.0
)
_IMAGE_LIST = flags.DEFINE_string("image_list", None, "sec_cues: list of images and numbers.")
_GRID = flags.DEFINE_integer("grid", 41, "sec_cues: side of the network's output grid.", 1)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of a run to make from the network.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "With --run_dir: its recipe and overlays.")
_GIN_BINDINGS = flags.DEFINE_multi_string("gin_bindings", [], "With --run_dir: single settings.")


def main():
    """Run the command."""
    for name in ("source", "model"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    source = pathlib.Path(_SOURCE.value)
    if not source.is_file():
        raise UserError(f"--source={source}: no such file.")
    if _MODEL.value == "sec_cues":
        _convert_cues(source)
    else:
        _convert_weights(source)


def _convert_cues(source):
    from wsss_tf.interop.sec_cues import convert_localization_cues

    for name in ("image_list", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing, which sec_cues needs.")
    for name in ("class_names", "run_dir", "gin_file", "gin_bindings", "width"):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} means nothing for sec_cues.")
    count = convert_localization_cues(source, _IMAGE_LIST.value, _OUTPUT.value, _GRID.value)
    print(f"cues of {count} images: {_OUTPUT.value}")


def _convert_weights(source):
    _check_flags()
    import numpy as np

    from wsss_tf.interop import resnet38_names, resnet50_names
    from wsss_tf.interop.mxnet_file import is_mxnet_file, read_mxnet
    from wsss_tf.interop.torch_file import read_torch

    class_names = _class_names()
    is_resnet50 = _MODEL.value in resnet50_names.MODELS
    expected = (resnet50_names if is_resnet50 else resnet38_names).targets(
        _MODEL.value, None if class_names is None else len(class_names), _WIDTH.value
    )
    if is_mxnet_file(source):
        tensors = read_mxnet(source)
        tensors = {resnet38_names.rename_mxnet(name): value for name, value in tensors.items()}
    else:
        tensors = read_torch(source)
    if is_resnet50:
        tensors = {k: v for k, v in tensors.items() if not resnet50_names.is_ignored(k)}
    try:
        arrays, missing, unused = resnet38_names.convert(tensors, expected)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    values = sum(array.size for array in arrays.values())
    print(
        f"{source}: {len(arrays)} of {len(expected)} tensors of {_MODEL.value}, {values:,} values."
    )
    for what, names in (("missing", missing), ("not used", unused)):
        if names:
            print(f"  {what}: {', '.join(names)}")
    if _OUTPUT.value:
        with atomic_path(_OUTPUT.value) as temporary:
            np.savez(temporary, **arrays)
        print(f"weights: {_OUTPUT.value}")
    if _RUN_DIR.value:
        _make_run(source, arrays, class_names)


def _check_flags():
    if not (_OUTPUT.value or _RUN_DIR.value):
        raise UserError("give --output=FILE.npz, or --run_dir=RUN, or both.")
    if _OUTPUT.value and not _OUTPUT.value.endswith(".npz"):
        raise UserError(
            f"--output={_OUTPUT.value}: name it .npz. Arrays go by variable path there; a "
            ".weights.h5 goes by position and would be right for one very graph only."
        )
    for name in ("image_list", "grid"):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} is for --model=sec_cues.")
    if not _RUN_DIR.value:
        for name in ("gin_file", "gin_bindings"):
            if flags.FLAGS[name].present:
                raise UserError(f"--{name} is for --run_dir.")
    elif _MODEL.value in _BACKBONES:
        raise UserError(f"--run_dir needs a whole network; {_MODEL.value} is a backbone only.")
    elif not _GIN_FILE.value and _MODEL.value not in _RECIPES:
        raise UserError(f"--run_dir: give the recipe of {_MODEL.value} with --gin_file.")
    elif RunFolder(_RUN_DIR.value).config.exists():
        raise UserError(f"--run_dir={_RUN_DIR.value}: holds a run already; give a new folder.")


def _class_names():
    """Return the K class names that the network must fit; None where they do not matter."""
    if _CLASS_NAMES.value:
        from wsss_tf.evaluation.mask_folders import read_class_names

        return read_class_names(_CLASS_NAMES.value)
    if not _RUN_DIR.value:
        return None
    from wsss_tf.data.voc import CLASS_NAMES

    return CLASS_NAMES


# === A run folder ===


def _make_run(source, arrays, class_names):
    """Write a run folder that holds the recipe, the class names and the converted network."""
    from wsss_tf.runs import recipe as recipe_lib

    recipe = recipe_lib.load(_GIN_FILE.value or [_RECIPES[_MODEL.value]], _GIN_BINDINGS.value)
    foreground = len(class_names) - (class_names[0] == "background")
    num_classes = len(class_names) if recipe.cam_output is None else foreground
    net = recipe.network(num_classes=num_classes)
    _assign(net, arrays, source)
    run = RunFolder(_RUN_DIR.value)
    with atomic_path(run.network()) as temporary:
        net.save(temporary)
    run.write_class_names(class_names)
    recipe_lib.save_parsed_config(
        run, f"Converted from {source.name} with wsss_tf.convert; not trained in this folder."
    )
    print(f"run: {run.path}")


def _assign(net, arrays, source):
    """Set every weight of a network.

    Raises:
      UserError: the recipe's network is not the one that was converted.
    """
    variables = {v.path: v for v in net.variables if "seed_generator" not in v.path}
    for path, variable in variables.items():
        if path not in arrays:
            raise UserError(f"{source}: has nothing for {path}, which the recipe's network needs.")
        if tuple(variable.shape) != arrays[path].shape:
            raise UserError(
                f"{source}: {path} has the shape {arrays[path].shape}, the recipe's network needs "
                f"{tuple(variable.shape)}."
            )
        variable.assign(arrays[path])


if __name__ == "__main__":
    command.run(main)
