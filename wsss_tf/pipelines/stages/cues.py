"""The stages that make SEC's localisation cues."""

from wsss_tf.files.run_folder import RunFolder
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
        runs = (
            f"--foreground_run={context.run_dir / foreground}",
            f"--background_run={context.run_dir / background}",
            f"--split={context.train.split}",
        )
        return _planned(context, name, runs, flags, after=(foreground, background))

    return Description(name, resolve)


def map_cues_stage(
    name="cues",
    maps="cams",
    recipe=(),
    grid=None,
    foreground_share=None,
    background_threshold=None,
):
    """Return the stage that makes cues from the class activation maps of an earlier stage.

    Args:
      name: of the stage and its folder.
      maps: name of the stage that writes the maps, or chooses their threshold.
      recipe: gin files of the network that learns from the cues, which tell its grid.
      grid: the side of its grid, in their place.
      foreground_share, background_threshold: as `wsss_tf.cues` takes them; None for what follows
        the threshold of the maps.
    """
    if grid is None:
        values.check_files("map_cues_stage.recipe", recipe)
    else:
        values.check_count("map_cues_stage.grid", grid, 1)
        of_recipe = ("map_cues_stage.recipe", recipe or None)
        values.check_one_of(of_recipe, ("map_cues_stage.grid", grid))
    if foreground_share is not None:
        values.check_share("map_cues_stage.foreground_share", foreground_share)
    values.check_threshold("map_cues_stage.background_threshold", background_threshold)

    def resolve(context):
        of = context.maps_of("map_cues_stage.maps", maps)
        chosen = {
            "foreground_share": foreground_share,
            "background_threshold": background_threshold,
            # Where it is chosen later, the command finds it in the run.
            "maps_threshold": of.background_threshold,
            "grid": grid,
        }
        flags = tuple(f"--{flag}={value:g}" for flag, value in chosen.items() if value is not None)
        if grid is None:
            flags += tuple(f"--gin_file={path}" for path in (*recipe, *context.overlays))
        return _planned(context, name, (f"--cams={RunFolder(of.run).cams}",), flags, (of.stage,))

    return Description(name, resolve)


def _planned(context, name, of, flags, after):
    """Return what `python -m wsss_tf.cues` makes in a folder of the stage's name."""
    folder = context.run_dir / name
    stage = Stage(
        name=name,
        steps=(("cues", *of, f"--output={folder}", *flags),),
        inputs={"flags": flags},
        after=after,
        outputs=(name,),
        proof=name,
    )
    return Planned(stage, shown={"localisation cues": folder})
