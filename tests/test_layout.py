"""Imports inside the package point one way only, and TensorFlow and gin stay where they belong."""

import ast
import functools
import os
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "wsss_tf"

# What each part may import of the package, besides itself.
ALLOWED = {
    "bounded_map": set(),
    "compiled": set(),
    "errors": set(),
    "files": {"errors"},
    "masks": set(),
    "ops": set(),
    "layers": {"ops"},
    "losses": {"ops", "masks"},
    "backbones": {"ops", "layers"},
    "models": {"ops", "layers", "backbones"},
    "training": {"ops", "layers", "losses", "models", "files", "errors"},
    "data": {"ops", "masks", "files", "bounded_map", "compiled", "errors"},
    "evaluation": {"ops", "masks", "files", "errors"},
    "inference": {"ops", "masks", "models", "evaluation", "files", "errors"}
    | {"bounded_map", "compiled"},
    "serving": {"ops", "models", "inference", "files", "errors"},
    "interop": {"backbones", "models", "masks", "files", "errors"},
}
# These are on top of everything; nothing above may import them.
ENTRY_POINTS = {
    "calibrate", "command", "command_flags", "command_server", "convert", "cues", "evaluate",
    "export", "infer", "ir_labels", "labels", "pipeline", "pipelines", "refine", "runs",
    "serving.client", "train", "walk",
}  # fmt: skip
WITHOUT_TENSORFLOW = {"ops", "layers", "losses", "backbones", "models"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part(path):
    """Return the name under the package that a file belongs to; "" for the package itself."""
    inside = path.relative_to(PACKAGE)
    if inside.as_posix() == "serving/client.py":  # the one command that is not at the top
        return "serving.client"
    return inside.parts[0].removesuffix(".py").replace("__init__", "")


def imports(node):
    """Yield (dotted name, enclosing function or None) of every import below a syntax node."""

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, "relative import"
                yield from ((f"{child.module}.{alias.name}", function) for alias in child.names)
            is_function = isinstance(child, ast.FunctionDef)
            yield from walk(child, child.name if is_function else function)

    return walk(node, None)


@functools.cache
def all_imports():
    """Return (part, file, dotted name in parts, enclosing function) of every import; made once."""
    return [
        (part(path), path.relative_to(PACKAGE).as_posix(), name.split("."), function)
        for path in modules()
        for name, function in imports(ast.parse(path.read_text()))
    ]


def test_every_part_of_the_package_has_its_place():
    assert {part(path) for path in modules()} <= {"", *ALLOWED, *ENTRY_POINTS}


@pytest.mark.parametrize("name", ALLOWED)
def test_imports_point_one_way(name):
    wrong = [
        f"{file} imports {'.'.join(imported)}"
        for importer, file, imported, _ in all_imports()
        if importer == name and imported[0] == "wsss_tf"
        if imported[1] not in {name, *ALLOWED[name]}
    ]
    assert not wrong


def test_networks_are_free_of_tensorflow():
    found = {
        (file, function)
        for importer, file, imported, function in all_imports()
        if importer in WITHOUT_TENSORFLOW and imported[0] in ("tensorflow", "tf")
    }
    assert found == {
        ("ops.py", "resize_bilinear"),
        ("ops.py", "dilated_conv"),
        ("ops.py", "_tensorflow_has_dilated_gradient"),
    }


START_WITHOUT_TENSORFLOW = (
    "command_server",
    "files.cam_record",
    "files.pictures",
    "files.png",
    "files.run_folder",
    "inference.dense_crf",
    "inference.cam_crf",
    "inference.ir_labels",
    "inference.write_crf",
    "interop.annotations.read",
    "interop.annotations.write",
    "ir_labels",
    "labels",
    "pipelines.records",
    "refine",
    "runs.cam_run",
    "runs.ir_labels",
    "runs.refine",
    "serving.client",
    "serving.rest",
)
# Those that have loaded it, or cannot be imported, each in a fork that has imported nothing else of
# the package, but what many of them take from elsewhere.
_LOADED = """
import importlib, os, sys
import absl.app, numpy, PIL.Image, requests, tqdm
for name in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(f"wsss_tf.{name}")
        os._exit(bool({"tensorflow", "keras"} & sys.modules.keys()))
    if os.wait()[1]:
        print(name, flush=True)
"""


def test_these_start_without_tensorflow():
    result = subprocess.run(
        [sys.executable, "-c", _LOADED, *START_WITHOUT_TENSORFLOW],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_gin_stays_at_the_edge():
    files = {file for _, file, name, _ in all_imports() if name[0] == "gin"}
    assert files == {"runs/recipe.py", "runs/plain_config.py"}


def test_no_function_is_translated_by_autograph():
    """Translation takes seconds of each command's start, and nothing here needs it."""
    wrong = []
    for path in modules():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        untouched = {
            node.name
            for node in nodes
            if isinstance(node, ast.FunctionDef)
            and "tf.autograph.experimental.do_not_convert" in map(ast.unparse, node.decorator_list)
        }
        for node in nodes:
            called, given = "", {}
            if isinstance(node, ast.Call):
                # To write out each call that there is takes a second.
                of_name = getattr(node.func, "attr", "") == "function"
                called = ast.unparse(node.func) if of_name else ""
                given = {word.arg: word.value for word in node.keywords}
            bare = isinstance(node, ast.FunctionDef) and "tf.function" in map(
                ast.unparse, node.decorator_list
            )
            autograph = called == "tf.function" and not (
                "autograph" in given and ast.unparse(given["autograph"]) == "False"
            )
            mapped = "num_parallel_calls" in given and ast.unparse(node.args[0]) not in untouched
            if bare or autograph or mapped:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not wrong
