"""Spread the CAMs of a run by a random walk over the affinities of another: pseudo_labels/.

  python -m wsss_tf.walk --run_dir=RUN --affinity_run=RUN2 --split=train

after wsss_tf.infer in RUN and the training of gin/affinity.gin or gin/irn.gin in RUN2. Labels that
are already there and newer than their CAMs are kept, so an interrupted command can be run again.
"""

from absl import flags

from wsss_tf import command, command_flags
from wsss_tf.files.run_folder import RunFolder

command_flags.define_cams()
command_flags.define_walk()
command_flags.define_any_crf()
flags.adopt_module_key_flags(command_flags)  # for --help
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write pseudo_labels/ into; default: that of --affinity_run."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures of equal size run together.", 1)


def main():
    """Run the command."""
    command_flags.require("run_dir", "split", "affinity_run")
    command_flags.refuse_without(
        "walk_crf", ["crf_scale", "crf_library", "walk_crf_iterations", "walk_crf_unary_weight"]
    )
    from wsss_tf.runs import infer_walk

    values = flags.FLAGS
    output = _OUTPUT.value or values.affinity_run
    infer_walk.check_folders(values.run_dir, values.affinity_run, output)
    command.hold(RunFolder(values.run_dir).reading(values.split))
    command.hold(RunFolder(output).writing(values.split, make=True))
    cams = command_flags.open_cams()
    command_flags.walk_options(cams.background_threshold)  # what cannot be, before TensorFlow
    affinity = infer_walk.load_affinity(values.affinity_run)
    options = command_flags.walk_options(cams.background_threshold, settings=affinity.settings)
    infer_walk.walk(cams, affinity, output, _BATCH_SIZE.value, values.overwrite, **options)


if __name__ == "__main__":
    command.run(main)
