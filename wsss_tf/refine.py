"""Refine the CAMs of a run with the dense CRF: crf_low/, crf_high/ and their labels.

  python -m wsss_tf.refine --run_dir=RUN --split=train

after wsss_tf.infer. Files that are already there and newer than their CAMs are kept, so an
interrupted command can be run again. TensorFlow is not loaded where the pictures are files.
"""

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.files.run_folder import RunFolder

command_flags.define_cams()
command_flags.define_crf()
command_flags.define_any_crf()
flags.adopt_module_key_flags(command_flags)  # for --help


def main():
    """Run the command."""
    command_flags.require("run_dir", "split")
    from wsss_tf.runs.refine import refine

    values = flags.FLAGS
    command.hold(RunFolder(values.run_dir).writing(values.split))
    cams = command_flags.open_cams()
    options = command_flags.crf_options(cams.background_threshold)
    refine(cams, values.crf_processes, values.overwrite, **options)


if __name__ == "__main__":
    command.run(main)
