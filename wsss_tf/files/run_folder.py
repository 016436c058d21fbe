"""The files of a run and how they are written: atomically, and without pickle.

RUN/config.gin  checkpoints/  tensorboard/  cams/<id>.npz  pseudo_labels/<id>.png
RUN/predictions/<id>.png  metrics.json  report.html  metrics_<split>.json  report_<split>.html
RUN/crf_low/<id>.png  crf_high/<id>.png                  (infer --crf)
RUN/crf_low_labels/<id>.png  crf_high_labels/<id>.png    (infer --crf)

A CAM file holds `class_ids` int32 [P], the mask values of the classes present, and `cams` float16
[P, h, w]. crf_low and crf_high hold the dense CRF's marginals, with a low and a high power of the
background score: a grey PNG of 16 bits in which P + 1 maps of h rows lie one below the other,
background first and then the classes in the order of `class_ids`, 65535 for 1 (a text chunk
"class_ids" names the mask values). TensorFlow decodes that inside a graph, with no Python. The
folders `.._labels` and `pseudo_labels` hold palette PNGs of mask values, which
`wsss_tf.evaluate --predictions` scores.
"""

import contextlib
import json
import os
import pathlib
import uuid

import numpy as np


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`, renamed to it when the block ends without an error.

    A killed process leaves the old file or none, never half a new one. Missing folders are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: savers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write `text` to `path` atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write `value` to `path` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


CRF_NAMES = ("crf_low", "crf_high")


def crf_path(run_dir, name, image_id):
    """Return the path of an image's CRF marginals; `name` is one of CRF_NAMES."""
    return pathlib.Path(run_dir) / name / f"{image_id}.png"


def crf_label_path(run_dir, name, image_id):
    """Return the path of the mask that the marginals of `crf_path` give."""
    return pathlib.Path(run_dir) / f"{name}_labels" / f"{image_id}.png"


def cam_path(folder, image_id):
    """Return the path of an image's CAM file below `folder`; an id may hold slashes."""
    return pathlib.Path(folder) / f"{image_id}.npz"


def save_cams(folder, image_id, class_ids, cams):
    """Write the CAMs of one image.

    Args:
      folder: the run's `cams` folder.
      image_id: string.
      class_ids: int [P], mask values (1..C) of the classes present, ascending.
      cams: [P, h, w] in [0, 1], stored as float16.

    Raises:
      ValueError: the two do not have the same length.
    """
    class_ids = np.asarray(class_ids, np.int32)
    cams = np.asarray(cams, np.float16)
    if cams.ndim != 3 or class_ids.shape != cams.shape[:1]:
        raise ValueError(
            f"class_ids {class_ids.shape} and cams {cams.shape} do not belong together."
        )
    with atomic_path(cam_path(folder, image_id)) as temporary:
        np.savez_compressed(temporary, class_ids=class_ids, cams=cams)


def load_cams(folder, image_id):
    """Return `(class_ids int32 [P], cams float16 [P, h, w])` as `save_cams` wrote them."""
    with np.load(cam_path(folder, image_id), allow_pickle=False) as file:
        return file["class_ids"], file["cams"]
