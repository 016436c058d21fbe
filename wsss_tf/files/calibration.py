"""What `wsss_tf.calibrate` has chosen for a run's class activation maps, and by what."""

import dataclasses
import json

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder, write_json


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A background threshold that was chosen.

    Attributes:
      background_threshold: in [0, 1).
      chosen_by: in words, such as "5 masks of split 'train'".
      miou, miou_interval, threshold_interval: as of `evaluation.calibration.ChosenByMasks`; None
        where there were no masks.
    """

    background_threshold: float
    chosen_by: str
    miou: float | None = None
    miou_interval: tuple | None = None
    threshold_interval: tuple | None = None


def save_calibration(folder, calibration):
    """Write a `Calibration` into a run folder."""
    write_json(RunFolder(folder).calibration, dataclasses.asdict(calibration))


def load_calibration(folder):
    """Return the `Calibration` of a run folder; None where there is none.

    Raises:
      UserError: the file is not one.
    """
    path = RunFolder(folder).calibration
    if not path.is_file():
        return None
    try:
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is not what wsss_tf.calibrate wrote ({error}); delete it.") from (
            error
        )
