"""The stage that chooses the background threshold of class activation maps."""

import dataclasses
import hashlib
import pathlib

from wsss_tf.data.fingerprint import file_fingerprint
from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage


def calibrate_stage(name="calibrate", maps="cams", masks=None):
    """Return the stage that chooses the threshold of maps, which stages after it follow.

    Nothing is done where the threshold is set, by `cams_stage.background_threshold`.

    Args:
      name: of the stage, which later stages name as the one that gives the maps.
      maps: name of the stage that writes the maps.
      masks: folder of index masks of some of the pictures, as `calibrate` takes it; None to choose
        by the pictures' colours.
    """

    def resolve(context):
        of = context.maps_of("calibrate_stage.maps", maps)
        if of.threshold_is_set:
            return Planned(None, maps=of)
        by = () if masks is None else (f"--masks={masks}",)
        proof = str(RunFolder(of.run.name).calibration)
        stage = Stage(
            name=name,
            steps=(("calibrate", *of.on_split, *by),),
            inputs={
                "data": context.train_data,
                "masks": None if masks is None else _fingerprint(masks),
            },
            after=(of.stage,),
            outputs=(proof,),
            proof=proof,
        )
        chosen = dataclasses.replace(of, stage=name, background_threshold=None)
        return Planned(stage, maps=chosen)

    return Description(name, resolve)


def _fingerprint(masks):
    folder = pathlib.Path(masks)
    if not folder.is_dir():
        raise UserError(f"calibrate_stage.masks = {masks!r}: no such folder.")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        digest.update(f"{path.relative_to(folder)} {file_fingerprint(path)}\n".encode())
    return digest.hexdigest()[:16]
