"""Pseudo labels of any number of pictures, on a runner of Apache Beam."""

import functools
import json

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import CAM_STAGE
from wsss_tf.runs import infer_cams, infer_walk


def check(runner, runner_options, output):
    """Check what is asked for before anything is loaded.

    Args:
      runner: name of a Beam runner; None for none.
      runner_options: strings that came behind the flags.
      output: folder; None for none.

    Raises:
      UserError: options of a runner without one, no `output`, or Apache Beam is not installed.
    """
    if runner_options and not (runner and runner_options[0].startswith("--")):
        raise UserError(
            f"unexpected argument {runner_options[0]!r}; after -- come options of a --runner."
        )
    if not runner:
        return
    if not output:
        raise UserError("--runner needs --output: the folder for the archives.")
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--runner needs Apache Beam, which is not installed: pip install '.[beam]', in an "
            "environment of its own if you like (it needs protobuf below 7)."
        ) from error


def pictures(source, pattern):
    """Return the pictures of a split, or of a file pattern.

    Args:
      source: `data.source.Source`, or None.
      pattern: a folder, or a pattern of any file system that Beam knows, such as
        "gs://bucket/pictures/**.jpg"; only files that end as pictures do count.

    Returns:
      List of (id, path, class_ids or None): an id is the path behind the part of the pattern
      without wildcards, without suffix; class_ids are mask values where the split has labels.

    Raises:
      UserError: no file, two of one id, or a split that does not lie in files as it is read.
    """
    from wsss_tf.inference import beam_labels

    if source is None:
        return [(*picture, None) for picture in beam_labels.match_pictures(pattern)]
    if source.paths is None:
        raise UserError(f"{source.name}: is not made of files, which --runner needs.")
    if source.max_side is not None:
        raise UserError(
            "--runner reads pictures at their own size; give the size that they are read at as "
            "None: --gin_bindings=folder_source.max_side=None."
        )
    labelled = bool(source.labels.any())
    class_ids = [(row.nonzero()[0] + 1).tolist() if labelled else None for row in source.labels]
    return list(zip(source.ids, source.paths, class_ids))


def load(run_dir, checkpoint, maps, affinity_run):
    """Return the networks of a job; a worker calls this once.

    Args:
      run_dir, checkpoint: as `trained_network.load_network` takes them.
      maps: as `infer_cams.map_options` gives.
      affinity_run: run folder of AffinityNet, or None.

    Returns:
      (function of pictures to maps, `PictureAffinity` or None).
    """
    # Sets up TensorFlow as in a command, before it is imported; a worker is none.
    import wsss_tf.command  # noqa: F401
    from wsss_tf.runs.trained_network import load_network

    net = load_network(run_dir, checkpoint, for_inference=True)
    affinity = None if affinity_run is None else infer_walk.load_affinity(affinity_run)
    return infer_cams.make_maps(net, **maps), affinity


def infer_on_beam(
    networks,
    pictures,
    output,
    runner,
    runner_options=(),
    images_per_archive=500,
    overwrite=False,
    **options,
):
    """Label pictures on the runner, with CRF and random walk if wanted, and say what came of it.

    Args:
      networks: arguments of `load`.
      pictures: as the function of that name gives.
      output: folder, of any file system that Beam knows.
      runner: name of a Beam runner.
      runner_options: strings such as "--direct_num_workers=2".
      images_per_archive: so many pictures share an archive.
      overwrite: remove the archives of an earlier job first.
      **options: of `beam_labels.LabelOptions`.

    Raises:
      UserError: a wrong option, archives of an earlier job, networks that cannot be used, or not
        one good picture.
    """
    from wsss_tf.inference import beam_labels

    load(*networks)  # what is wrong with them is said here, and not by a worker
    cam_folder = "" if options.get("walk") is None else CAM_STAGE
    result = beam_labels.run(
        functools.partial(load, *networks),
        beam_labels.LabelOptions(cam_folder=cam_folder, **options),
        pictures,
        output,
        runner,
        runner_options,
        images_per_archive=images_per_archive,
        overwrite=overwrite,
    )
    print(json.dumps(result, indent=2))
    bad = result["bad_images"]
    print(f"{result['images']} images labelled, {bad} bad: {output}")
    if bad:
        print(f"their names and errors: {beam_labels.join(output, beam_labels.BAD_IMAGES)}")
    if bad == len(pictures):
        raise UserError(f"not one of {bad} pictures could be labelled; see {output}.")
