"""The stage that makes SEC's localisation cues."""

from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages import values


def cues_stage(
    name="cues",
    foreground="foreground",
    background="background",
    grid=None,
    foreground_share=0.2,
    background_share=0.1,
):
    """Return the stage that makes cues from the two classifiers of the paper.

    Args:
      name: of the stage and its folder.
      foreground, background: names of the stages that train the classifiers.
      grid: side of the grid of the network that learns from the cues; None for that of the
        foreground network.
      foreground_share, background_share: as `wsss_tf.cues` takes them.
    """
    if grid is not None:
        values.check_count("cues_stage.grid", grid, 1)
    values.check_share("cues_stage.foreground_share", foreground_share)
    values.check_share("cues_stage.background_share", background_share)

    def resolve(context):
        for setting, run in (("foreground", foreground), ("background", background)):
            context.trained_by(f"cues_stage.{setting}", run)
        flags = (
            f"--foreground_share={foreground_share:g}",
            f"--background_share={background_share:g}",
            *([] if grid is None else [f"--grid={grid}"]),
        )
        folder = context.run_dir / name
        command = (
            "cues",
            f"--foreground_run={context.run_dir / foreground}",
            f"--background_run={context.run_dir / background}",
            f"--split={context.train.split}",
            f"--output={folder}",
            *flags,
        )
        stage = Stage(
            name=name,
            steps=(command,),
            inputs={"flags": flags},
            after=(foreground, background),
            outputs=(name,),
            proof=name,
        )
        return Planned(stage, shown={"localisation cues": folder})

    return Description(name, resolve)
