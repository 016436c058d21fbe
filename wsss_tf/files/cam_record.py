"""What the CAM files of a split are of, so that later stages need neither network nor recipe."""

import dataclasses
import json
import os

from wsss_tf.errors import UserError
from wsss_tf.files.pictures import load_picture
from wsss_tf.files.run_folder import RunFolder, write_json


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """Pictures of a split as files, read without TensorFlow.

    It stands for a `data.source.Source` wherever only pictures are wanted.

    Attributes:
      split, ids, paths, max_side: as of a `Source`.
    """

    split: str
    ids: tuple
    paths: tuple
    max_side: int | None = None

    def __len__(self):
        return len(self.ids)

    def load(self, position):
        """Return a picture, uint8 [h, w, 3] RGB, as the `Source` reads it.

        Raises:
          UserError: it cannot be read.
        """
        return load_picture(self.paths[position], self.max_side)


@dataclasses.dataclass(frozen=True)
class CamRecord:
    """The record that inference leaves beside the CAM files of a split.

    Attributes:
      split: its name; "all" for the pictures of a folder.
      run_dir, gin_bindings: of the run whose network gave the CAMs.
      background_threshold: that their pseudo labels were made with.
      max_side: as in `inference.write_cams.label_source`.
      pictures: `PictureFiles`; None where they are drawn, and so in no files.
    """

    split: str
    run_dir: str
    gin_bindings: tuple
    background_threshold: float
    max_side: int | None
    pictures: PictureFiles | None


def make_record(source, run_dir, gin_bindings, background_threshold, max_side):
    """Return the `CamRecord` of the CAMs of a `data.source.Source`; the others are as there."""
    pictures = None
    if source.paths is not None:
        paths = tuple(map(os.path.abspath, source.paths))  # found from any folder
        pictures = PictureFiles(source.split, tuple(source.ids), paths, source.max_side)
    return CamRecord(
        source.split,
        os.path.abspath(run_dir),
        tuple(gin_bindings),
        background_threshold,
        max_side,
        pictures,
    )


def save_record(folder, record):
    """Write a `CamRecord` beside the CAM files of a run folder."""
    value = dataclasses.asdict(record)
    if record.pictures is not None:
        value["pictures"] = {
            "max_side": record.pictures.max_side,
            "paths": dict(zip(record.pictures.ids, record.pictures.paths)),
        }
    write_json(RunFolder(folder).cam_record(record.split), value)


def load_record(folder, split):
    """Return the `CamRecord` of a split; None where there is none.

    Raises:
      UserError: the file is not one.
    """
    path = RunFolder(folder).cam_record(split)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        pictures = value.pop("pictures")
        if pictures is not None:
            paths = pictures["paths"]
            pictures = PictureFiles(
                split, tuple(paths), tuple(paths.values()), pictures["max_side"]
            )
        value["gin_bindings"] = tuple(value["gin_bindings"])
        return CamRecord(**value, pictures=pictures)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is not the record of CAM files ({error!r}); delete it and infer again."
        ) from error
