"""Choose the background threshold of a run's class activation maps, by some masks or by none.

  python -m wsss_tf.calibrate --run_dir=RUN --split=train --masks=FOLDER
  python -m wsss_tf.calibrate --run_dir=RUN --split=train

after wsss_tf.infer. FOLDER holds index masks (PNG) of some of the split's pictures, named as these;
twenty are good. Without masks it is the threshold whose foreground tells most of a pixel's colour,
which mostly is better than five masks. What was chosen goes into RUN/calibration.json, which
refine, walk, export and further calls of infer follow where no --background_threshold is given.
"""

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.files.run_folder import RunFolder

command_flags.define_cam_files()
_MASKS = flags.DEFINE_string(
    "masks",
    None,
    "Folder of index masks, PNG, of some of the pictures, named as these. Default: by colours.",
)
command_flags.define_data()
flags.adopt_module_key_flags(command_flags)  # for --help


def main():
    """Run the command."""
    command_flags.require("run_dir", "split")
    from wsss_tf.runs.calibrate import calibrate
    from wsss_tf.runs.cam_run import open_cam_run

    values = flags.FLAGS
    command.hold(RunFolder(values.run_dir).writing(values.split))
    cams = open_cam_run(values.run_dir, values.split, command_flags.gin_bindings())
    calibrate(cams, _MASKS.value)


if __name__ == "__main__":
    command.run(main)
