"""The stage that exports a network as a SavedModel."""

from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages.values import check_scales, comma


def export_stage(name="export", run="segmentation", scales=(1.0,), flip=False, crf=False):
    """Return the stage that exports a network.

    Args:
      name: of the stage and its folder.
      run: name of the stage that trains the network.
      scales, flip, crf: what the SavedModel computes, as `export` takes them.
    """
    check_scales("export_stage.scales", scales)

    def resolve(context):
        context.trained_by("export_stage.run", run)
        flags = (f"--scales={comma(scales)}", "--flip" if flip else "--noflip")
        flags += ("--crf",) if crf else ()
        folder = context.run_dir / name
        command = (
            "export",
            f"--run_dir={context.run_dir / run}",
            f"--output={folder}",
            "--version=1",
            *flags,
        )
        stage = Stage(
            name=name,
            steps=(command,),
            inputs={"flags": flags},
            after=(run,),
            outputs=(f"{name}/1", f"{name}/.1.*"),
            proof=f"{name}/1/saved_model.pb",
            is_resumable=False,
        )
        return Planned(stage, made={"SavedModel": folder})

    return Description(name, resolve)
