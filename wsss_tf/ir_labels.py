"""Write what IRN learns from: masks where two dense CRFs are sure of the CAMs, as RUN/ir_labels.

  python -m wsss_tf.ir_labels --run_dir=RUN --split=train

after wsss_tf.infer. A mask is a class where a CRF says so whose seeds are above the high threshold,
0 where one says so whose seeds are below the low threshold, 255 elsewhere. Files that are already
there and newer than their CAMs are kept, so an interrupted command can be run again. TensorFlow is
not loaded where the pictures are files.
"""

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.files.run_folder import RunFolder

command_flags.define_cams()
command_flags.define_ir_labels()
command_flags.define_any_crf()
flags.adopt_module_key_flags(command_flags)  # for --help


def main():
    """Run the command."""
    command_flags.require("run_dir", "split")
    from wsss_tf.runs.ir_labels import write_ir_labels

    values = flags.FLAGS
    command.hold(RunFolder(values.run_dir).writing(values.split))
    cams = command_flags.open_cams()
    options = command_flags.ir_label_options(cams.background_threshold)
    write_ir_labels(cams, values.crf_processes, values.overwrite, **options)


if __name__ == "__main__":
    command.run(main)
