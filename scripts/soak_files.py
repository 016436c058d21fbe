"""What scripts/soak.py compares in folders: is all whole, the same, and nothing left over?"""

import io
import json
import pathlib
import zipfile

import h5py
import numpy as np
from PIL import Image


def contents(folder):
    """Return {name: what must be the same} of a folder's files; times and event files are not."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = set(name.split("/"))
        if not path.is_file() or parts & {".locks", "tensorboard", "stages"}:
            continue
        if path.suffix == ".keras":
            found[name] = _keras_weights(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays.files}
        elif path.suffix in (".png", ".csv", ".txt") or path.name.startswith("metrics"):
            found[name] = path.read_bytes()
    return found


def _keras_weights(path):
    """Return {place: bytes} of the weights of a network."""
    found = {}

    def note(place, item):
        if isinstance(item, h5py.Dataset):
            found[place] = item[()].tobytes()

    with zipfile.ZipFile(path) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r") as file:
        file.visititems(note)
    return found


def half_files(folder):
    """Return the files of a folder that are not whole; hidden ones may be."""
    bad = []
    for path in pathlib.Path(folder).rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        try:
            if path.suffix in (".png", ".jpg"):
                with Image.open(path) as picture:
                    picture.load()
            elif path.suffix == ".npz":
                with np.load(path) as arrays:
                    dict(arrays)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        raise ValueError("a check sum")
            elif path.suffix in (".gin", ".html") and not path.stat().st_size:
                raise ValueError("empty")
        except Exception as error:  # whatever is wrong with it
            bad.append(f"{path}: {error}")
    return bad


def differences(one, other):
    """Return the names of what differs between two folders, and print some."""
    one, other = contents(one), contents(other)
    wrong = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    if wrong:
        print(f"different: {sorted(wrong)[:5]}", flush=True)
    return wrong


def left_overs(folder):
    """Return what killed processes have left that a whole run should have removed."""
    found = [*folder.rglob(".wsss_tf-*"), *folder.rglob("step-*_temp"), *folder.rglob(".1.*")]
    if found:
        print(f"left over: {found[:5]}", flush=True)
    return found
