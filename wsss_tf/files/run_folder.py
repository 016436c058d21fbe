"""The files of a run and how they are written: atomically, and without pickle.

RUN/config.gin  config.json  class_names.txt  checkpoints/  tensorboard/
RUN/checked_images.json  bad_images.json
RUN/cams/<id>.npz  cams/<split>.json  pseudo_labels/<id>.png  predictions/<id>.png
RUN/found_labels.csv  overlays/<id>.jpg
RUN/crf_low/<id>.png  crf_high/<id>.png  crf_low_labels/<id>.png  crf_high_labels/<id>.png
RUN/ir_labels/<id>.png
RUN/metrics.json  report.html  metrics_<split>.json  report_<split>.html  curves.png
RUN/calibration.json

`RunFolder` is the one place that knows these names. A CAM file holds `class_ids` int32 [P], the
mask values of the classes present, and `cams` float16 [P, h, w], perhaps also `strided_cams`, those
on a coarser grid; `cams/<split>.json` says what they are of, see `files.cam_record`. crf_low and
crf_high (of `wsss_tf.refine`) hold the dense CRF's marginals, with a low and a high power of the
background score: a grey PNG of 16 bits in which P + 1 maps of h rows lie one below the other,
background first and then the classes in the order of `class_ids`, 65535 for 1 (a text chunk
"class_ids" names the mask values). TensorFlow decodes that inside a graph, with no Python. The
folders `.._labels` and `pseudo_labels` hold palette PNGs of mask values, which `wsss_tf.evaluate
--predictions` scores; `ir_labels` (of `wsss_tf.ir_labels`) too, 255 where IRN is to learn nothing.
"""

import contextlib
import functools
import json
import os
import pathlib

import numpy as np

from wsss_tf.errors import UserError, is_no_room, warn
from wsss_tf.files.left_overs import (
    being_written,
    remove_abandoned,
    remove_files,
    temporary_name,
)
from wsss_tf.files.lock import TRAINING, at_work, holder
from wsss_tf.files.npz import read_npz
from wsss_tf.files.text import check_one_line, read_text

# A process looks through a folder before it writes its first file there; few have many folders.
_remove_abandoned_once = functools.lru_cache(maxsize=1000)(remove_abandoned)


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`, renamed to it when the block ends without an error.

    A killed process leaves the old file or none, never half a new one. What it leaves under a
    temporary name is removed by the next that writes into that folder. Missing folders are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_once(os.path.abspath(path.parent))
    temporary = path.with_name(temporary_name(path.name))
    try:
        with being_written(temporary):
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        if is_no_room(error):
            error.filename = error.filename or str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # which would hide the error that led here
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write `text` to `path` atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write `value` to `path` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path, kind=dict):
    """Return what a JSON file of the package's own holds: a `kind`.

    Raises:
      UserError: it is damaged.
    """
    try:
        value = json.loads(pathlib.Path(path).read_bytes())
        if not isinstance(value, kind):
            raise ValueError(f"it holds a {type(value).__name__}")
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete it.") from error


CRF_NAMES = ("crf_low", "crf_high")
CAM_STAGE = "cam_stage"


class RunFolder(os.PathLike):
    """The folder of a run: where each of its files lies.

    Args:
      path: the folder, a path or another `RunFolder`; it need not be there.

    What is done for each image lies under its id, which may hold slashes.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __fspath__(self):
        return str(self.path)

    def __repr__(self):
        return f"RunFolder({str(self.path)!r})"

    # === Training ===

    @property
    def config(self):
        """The configuration that it was trained with, gin."""
        return self.path / "config.gin"

    @property
    def plain_config(self):
        """The same as plain values, JSON: what inference, scores and export need of it."""
        return self.path / "config.json"

    @property
    def class_names(self):
        """The K class names in mask order, one a line."""
        return self.path / "class_names.txt"

    @property
    def checkpoints(self):
        """Folder of what training goes on from, and of the networks."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self):
        """Folder of TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def checked_images(self):
        """Size and times of the pictures found good, JSON."""
        return self.path / "checked_images.json"

    @property
    def bad_images(self):
        """The pictures left out, JSON: a list of [id, reason]."""
        return self.path / "bad_images.json"

    def network(self, checkpoint="last"):
        """Return the path of the trained network, of checkpoint "last" or "best"."""
        return network_path(self.checkpoints, checkpoint)

    # === Inference ===

    @property
    def cams(self):
        """Folder of the CAM files."""
        return self.path / "cams"

    @property
    def pseudo_labels(self):
        """Folder of the masks that the CAMs, or the random walk, give."""
        return self.path / "pseudo_labels"

    @property
    def found_labels(self):
        """The classes found in pictures that came without labels, as image_labels.csv."""
        return self.path / "found_labels.csv"

    @property
    def overlays(self):
        """Folder of the pictures with their masks' colours over them."""
        return self.path / "overlays"

    @property
    def predictions(self):
        """Folder of the masks that a network predicts."""
        return self.path / "predictions"

    def cam(self, image_id):
        """Return the path of an image's CAM file."""
        return cam_path(self.cams, image_id)

    def cam_record(self, split):
        """Return the path of the record of what the CAMs of a split are of, JSON."""
        return self.cams / f"{split}.json"

    def pseudo_label(self, image_id):
        """Return the path of an image's pseudo label."""
        return mask_path(self.pseudo_labels, image_id)

    def prediction(self, image_id):
        """Return the path of an image's predicted mask."""
        return mask_path(self.predictions, image_id)

    def overlay(self, image_id):
        """Return the path of an image with its mask's colours over it."""
        return self.overlays / f"{image_id}.jpg"

    def crf(self, name, image_id):
        """Return the path of an image's CRF marginals; `name` is one of CRF_NAMES."""
        return self.crf_maps(name) / f"{image_id}.png"

    def crf_maps(self, name):
        """Return the folder of the CRF marginals of a name, one of CRF_NAMES."""
        return self.path / name

    def crf_labels(self, name):
        """Return the folder of the masks that the marginals of a name give."""
        return self.path / f"{name}_labels"

    def crf_label(self, name, image_id):
        """Return the path of the mask that the marginals of `crf` give."""
        return mask_path(self.crf_labels(name), image_id)

    @property
    def ir_labels(self):
        """Folder of what IRN learns from: masks where two CRFs are sure, 255 elsewhere."""
        return self.path / "ir_labels"

    def ir_label(self, image_id):
        """Return the path of an image's label for IRN."""
        return mask_path(self.ir_labels, image_id)

    @property
    def cam_stage(self):
        """`RunFolder` of the CAMs' own files, where this one is for the random walk's labels."""
        return RunFolder(self.path / CAM_STAGE)

    # === Scores ===

    def metrics(self, split=None):
        """Return the path of a split's scores, JSON; None for those of the split scored last."""
        return self.path / f"metrics{_ending(split)}.json"

    def report(self, split=None):
        """Return the path of the page that shows them."""
        return self.path / f"report{_ending(split)}.html"

    @property
    def calibration(self):
        """The background threshold that was chosen, and by what, JSON."""
        return self.path / "calibration.json"

    @property
    def curves(self):
        """Scores of CAMs over the background threshold, a picture."""
        return self.path / "curves.png"

    # === Work ===

    def training(self):
        """Return a context in which nobody else trains in this folder, which is made."""
        self._make()
        return self._at_work(TRAINING)

    def writing(self, split, make=False):
        """Return one in which nobody else writes or reads what belongs to a split's pictures.

        Args:
          split: its name.
          make: make the folder if it is not there.
        """
        if make:
            self._make()
        return self._at_work(f"labels of {split}")

    def reading(self, split):
        """Return one in which nobody writes it; others may read it too."""
        return self._at_work(f"labels of {split}", is_shared=True)

    def _make(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_no_room(error):
                raise
            raise UserError(f"{self.path}: is no folder and cannot be made: {error}") from error

    def _at_work(self, on, is_shared=False):
        if not self.path.is_dir():  # what comes next says so
            return contextlib.nullcontext()
        return at_work(self.path, on, str(self.path), is_shared, self.remove_left_overs)

    def warn_of_training(self):
        """Say so where the run is still trained, and its network about to be used as it is."""
        who = holder(self.path, TRAINING)
        if who is not None:
            warn(f"{self.path}: is being trained by {who}; its network is used as it is now.")

    def remove_left_overs(self):
        """Remove what killed processes have left, but for checkpoints, which training sees to."""
        remove_files(self.path, earlier=False)
        for folder in (
            self.cams,
            self.pseudo_labels,
            self.predictions,
            self.overlays,
            self.ir_labels,
            *map(self.crf_maps, CRF_NAMES),
            *map(self.crf_labels, CRF_NAMES),
        ):
            remove_files(folder, below=True)

    # === Reading ===

    def read_class_names(self):
        """Return the K class names that the run was trained with, in mask order.

        Raises:
          UserError: there are none, or the file is not UTF-8.
        """
        if not self.class_names.is_file():
            raise UserError(f"{self.class_names}: missing; it is written when training starts.")
        return tuple(read_text(self.class_names).splitlines())

    def write_class_names(self, class_names):
        """Write the class names that a run is trained with.

        Raises:
          UserError: one would not be one name when it is read again.
        """
        for name in class_names:
            check_one_line(name, self.class_names)
        write_text(self.class_names, "\n".join(class_names) + "\n")

    def read_bad_images(self):
        """Return {id: reason} of the pictures left out; empty where none were.

        Raises:
          UserError: the file is damaged.
        """
        if not self.bad_images.is_file():
            return {}
        try:
            return {str(image_id): str(why) for image_id, why in read_json(self.bad_images, list)}
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.bad_images}: not a list of [id, reason]: {error}; delete it."
            ) from error

    def require_cams(self, image_ids, split):
        """Check that images have CAM files.

        Args:
          image_ids: of a split, or of what is used of it.
          split: its name.

        Raises:
          UserError: some have none; how many, and the first.
        """
        missing = [image_id for image_id in image_ids if not self.cam(image_id).is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(image_ids)} images of split {split!r} have no CAM file "
                f"(the first: {self.cam(missing[0])}); first run: "
                f"python -m wsss_tf.infer --run_dir={self.path} --split={split}"
            )

    def read_class_ids(self, image_id):
        """Return the mask values, int32 [P], of the classes that an image's CAM file has maps of.

        Raises:
          UserError: the file is missing or broken.
        """
        with self._broken_cam(image_id):
            class_ids = read_npz(self.cam(image_id), ["class_ids"])["class_ids"]
            _check_class_ids(class_ids)
            return class_ids

    def read_cams(self, image_id, size=None):
        """Return (class_ids int32 [P], cams float16 [P, h, w]) of an image.

        Args:
          image_id: string.
          size: (h, w) that they must have; None for any.

        Raises:
          UserError: the file is missing, broken, or of an image of another size.
        """
        with self._broken_cam(image_id):
            class_ids, cams = load_cams(self.cams, image_id)
        if size is not None and cams.shape[1:] != tuple(size):
            raise UserError(
                f"{self.cam(image_id)}: its CAMs are {'x'.join(map(str, cams.shape[1:]))}, the "
                f"image is {'x'.join(map(str, size))} (height x width); infer with --overwrite."
            )
        return class_ids, cams

    def read_strided_cams(self, image_id):
        """Return the maps on a grid of their own, float16 [P, h, w], that a CAM file may also have.

        None where it has none.

        Raises:
          UserError: the file is missing or broken.
        """
        with self._broken_cam(image_id):
            name = "strided_cams"
            arrays = read_npz(self.cam(image_id), ["class_ids"], optional=[name])
            if name in arrays:
                _check_maps(arrays["class_ids"], arrays[name])
            return arrays.get(name)

    @contextlib.contextmanager
    def _broken_cam(self, image_id):
        """Name the CAM file that cannot be read."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.cam(image_id)}: cannot be read as a CAM file: {error}; delete it and infer "
                "again."
            ) from error


def _ending(split):
    return "" if split is None else f"_{split}"


def network_path(folder, checkpoint):
    """Return the path of a trained network, "last" or "best", in a folder of checkpoints."""
    return pathlib.Path(folder) / f"{checkpoint}.keras"


def mask_path(folder, image_id):
    """Return the path of an image's mask below a folder of such."""
    return pathlib.Path(folder) / f"{image_id}.png"


def cam_path(folder, image_id):
    """Return the path of an image's CAM file below a folder of such."""
    return pathlib.Path(folder) / f"{image_id}.npz"


def save_cams(folder, image_id, class_ids, cams, strided_cams=None):
    """Write the CAMs of one image.

    Args:
      folder: the run's `cams` folder.
      image_id: string.
      class_ids: int [P], mask values (1..C) of the classes present, ascending.
      cams: [P, h, w] in [0, 1], stored as float16.
      strided_cams: likewise, on the grid that a random walk runs on, where they were made for it;
        None where they were not.

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
        more = {} if strided_cams is None else {"strided_cams": np.float16(strided_cams)}
        np.savez_compressed(temporary, class_ids=class_ids, cams=cams, **more)


def load_cams(folder, image_id):
    """Return `(class_ids int32 [P], cams float16 [P, h, w])` as `save_cams` wrote them.

    Raises:
      OSError, ValueError: the file cannot be read, or is damaged.
    """
    arrays = read_npz(cam_path(folder, image_id), ["class_ids", "cams"])
    class_ids, cams = arrays["class_ids"], arrays["cams"]
    _check_maps(class_ids, cams)
    return class_ids, cams


def _check_maps(class_ids, cams):
    _check_class_ids(class_ids)
    if cams.ndim != 3 or cams.dtype != np.float16 or len(cams) != len(class_ids):
        raise ValueError(
            f"maps {cams.shape} of {cams.dtype} do not belong to {len(class_ids)} classes"
        )
    if not np.isfinite(cams).all():
        raise ValueError("its maps have values that are no numbers")


def _check_class_ids(class_ids):
    if class_ids.ndim != 1 or class_ids.dtype != np.int32:
        raise ValueError(f"class_ids are {class_ids.shape} of {class_ids.dtype}")
    if class_ids.size and not (class_ids[0] > 0 and (np.diff(class_ids) > 0).all()):
        raise ValueError("class_ids are not ascending from 1")
