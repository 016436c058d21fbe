"""Pseudo labels of any number of pictures as an Apache Beam pipeline.

A job writes into its output folder
  labels-00000-of-00002.tar    what the plain command writes, under the same names: `tar -xf` of
                               all archives into one folder gives its files byte for byte, those
                               of --batch_size=1: in larger batches single bits may be others
  bad_images.jsonl             {"id", "path", "error"} a line, for what could not be labelled
  pictures.jsonl               {"id", "path", "class_ids", "archive", "position"} of all pictures
  labelling.json               numbers of images, images a second, seconds by stage

Millions of single files are slow to list, copy and read back on any of the file systems that such
jobs use; an archive holds some hundred pictures, in the order of `pictures.jsonl`. Which archive a
picture is in follows from its position alone, so a job that is run again writes the same archives.
An archive gets its name when it is whole.

Every picture runs through the networks by itself: no batch whose make-up would depend on how the
runner deals out the work.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import posixpath
import re
import tarfile
import tempfile
import time
import uuid
from collections.abc import Mapping

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from wsss_tf.errors import UserError, last_line
from wsss_tf.files.picture_files import SUFFIXES
from wsss_tf.files.run_folder import RunFolder

BAD_IMAGES, PICTURES, RESULT = "bad_images.jsonl", "pictures.jsonl", "labelling.json"
_NAMESPACE = "wsss_tf"
STAGES = ("read", "cams", "crf", "walk", "archive")


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """What to do with a picture.

    Attributes:
      num_classes: C, foreground classes of the network.
      background_threshold, label_threshold: as in `write_cams.label_source`.
      crf: `powers` and `parameters` of `cam_crf.refine`; None for no CRF.
      walk: keyword arguments of `random_walk.label_by_walk`; None for no random walk.
      cam_folder: below the output, for the files of the maps where the walk's labels are beside.
      max_side: as in `write_cams.label_source`, `write_crf.crf_source` and
        `write_walk.walk_source`.
    """

    num_classes: int
    background_threshold: float = 0.26
    label_threshold: float = 0.5
    crf: Mapping | None = None
    walk: Mapping | None = None
    cam_folder: str = ""
    max_side: int | None = None


class Labeller:
    """The networks of a worker, and what they do to one picture.

    Args:
      compute: `multi_scale_cam.MultiScaleCam` or `grad_cam.GradCam`.
      affinity: `random_walk.PictureAffinity`; None for no random walk.
      options: `LabelOptions`.
    """

    def __init__(self, compute, affinity, options):
        import tensorflow as tf

        from wsss_tf.files import images

        self.compute = compute
        self.affinity = affinity
        self.options = options
        self.is_counted = False

        # A graph: by single operations decoding takes longer than all the rest.
        @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
        def decode(contents):
            image = images.decode_image(contents)
            return images.limit_side(image, options.max_side), tf.shape(image)[:2]

        self._decode = decode

    def files(self, image_id, contents, class_ids, timer):
        """Return what the plain command writes for one picture, {path: bytes}.

        Args:
          image_id: string, may hold slashes.
          contents: bytes of a JPEG or PNG.
          class_ids: mask values of the classes present; None to take those that are probable.
          timer: function of a stage's name to a context manager around its work.

        Raises:
          tf.errors.OpError: it is no picture.
        """
        from wsss_tf.inference import cam_crf, write_cams
        from wsss_tf.inference.picture_batches import Picture

        options = self.options
        with timer("read"):
            image, size = (x.numpy() for x in self._decode(contents))
            picture = Picture(0, image, tuple(size.tolist()))
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder)
            cam_output = output / options.cam_folder
            with timer("cams"):
                labels = self._labels(class_ids)
                [ids], [maps], [strided] = write_cams.present_maps(
                    self.compute, [picture], labels, options.label_threshold
                )
                write_cams.write_labels(
                    cam_output, image_id, ids, maps, options.background_threshold, strided
                )
            if options.crf is not None:
                with timer("crf"):
                    cam_crf.refine(cam_output, image_id, image, size=picture.size, **options.crf)
            if options.walk is not None:
                with timer("walk"):
                    self._walk(output, image_id, image, ids, maps, strided)
            paths = sorted(path for path in output.rglob("*") if path.is_file())
            return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}

    def _labels(self, class_ids):
        if class_ids is None:
            return None
        labels = np.zeros([1, self.options.num_classes], np.float32)
        labels[0, np.asarray(class_ids, np.int64) - 1] = 1
        return labels

    def _walk(self, output, image_id, image, class_ids, maps, strided):
        from wsss_tf.files import images
        from wsss_tf.inference.random_walk import label_by_walk

        [graph] = self.affinity(image[None])
        mask = label_by_walk(
            image, class_ids, maps, graph, strided_cams=strided, **self.options.walk
        )
        images.save_mask(RunFolder(output).pseudo_label(image_id), mask)


class _LabelPictures(beam.DoFn):
    """Lines of `pictures.jsonl` to (archive, (position, {path: bytes})); bad ones go to "bad"."""

    def __init__(self, load, options):
        self._load = load
        self._options = options
        self._shared = Shared()
        self._images = Metrics.counter(_NAMESPACE, "images")
        self._bad_images = Metrics.counter(_NAMESPACE, "bad_images")
        self._networks = Metrics.counter(_NAMESPACE, "networks_loaded")
        self._clock = {stage: _stage_counter(stage) for stage in STAGES}

    def setup(self):
        """Load the networks, once for all threads of a worker process."""
        self._labeller = self._shared.acquire(lambda: Labeller(*self._load(), self._options))

    def process(self, line):
        picture = json.loads(line)
        if not self._labeller.is_counted:  # what is counted outside of `process` is lost
            self._labeller.is_counted = True
            self._networks.inc()
        try:
            with self._time("read"):
                contents = _read(picture["path"])
            files = self._labeller.files(
                picture["id"], contents, picture["class_ids"], timer=self._time
            )
        except Exception as error:  # whatever is the matter with one picture, the others go on
            self._bad_images.inc()
            bad = {"id": picture["id"], "path": picture["path"], "error": _one_line(error)}
            yield beam.pvalue.TaggedOutput("bad", json.dumps(bad))
            return
        self._images.inc()
        yield picture["archive"], (picture["position"], files)

    @contextlib.contextmanager
    def _time(self, stage):
        start = time.monotonic_ns()
        yield
        self._clock[stage].inc((time.monotonic_ns() - start) // 1000)


class _WriteArchive(beam.DoFn):
    """(archive, pictures) to a tar file, of the same bytes every time."""

    def __init__(self, output, count):
        self._output = output
        self._count = count
        self._clock = _stage_counter("archive")

    def process(self, element):
        start = time.monotonic_ns()
        number, pictures = element
        path = join(self._output, f"labels-{number:05}-of-{self._count:05}.tar")
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.part"
        with (
            FileSystems.create(temporary, "application/x-tar", CompressionTypes.UNCOMPRESSED) as f,
            tarfile.open(fileobj=f, mode="w|") as archive,
        ):
            for _, files in sorted(pictures, key=lambda picture: picture[0]):
                for name, contents in files.items():
                    member = tarfile.TarInfo(name)  # of the year 1970, of user 0
                    member.size = len(contents)
                    archive.addfile(member, io.BytesIO(contents))
        if FileSystems.exists(path):
            FileSystems.delete([path])
        FileSystems.rename([temporary], [path])
        self._clock.inc((time.monotonic_ns() - start) // 1000)
        yield path


def run(
    load,
    options,
    pictures,
    output,
    runner,
    runner_options=(),
    images_per_archive=500,
    overwrite=False,
):
    """Label pictures; see the module for what is written.

    Args:
      load: function without arguments that workers can import, to (compute, affinity or None).
      options: `LabelOptions`.
      pictures: list of (id, path, class_ids or None).
      output: folder, of any file system that Beam knows.
      runner: name of a Beam runner.
      runner_options: strings such as "--direct_num_workers=2".
      images_per_archive: so many pictures share an archive.
      overwrite: remove an earlier job's files instead of refusing.

    Returns:
      What labelling.json holds: {"images", "bad_images", "archives", "networks_loaded", "seconds",
      "images_per_second", "seconds_by_stage"}; the last are sums over all workers.

    Raises:
      UserError: a wrong option, or archives of an earlier job.
    """
    count = -(-len(pictures) // images_per_archive)
    pipeline_options = _pipeline_options(runner, runner_options)
    _clear(output, overwrite)
    lines = [
        json.dumps(
            {
                "id": image_id,
                "path": str(path),
                "class_ids": class_ids,
                "archive": position // images_per_archive,
                "position": position,
            }
        )
        for position, (image_id, path, class_ids) in enumerate(pictures)
    ]
    _write_text(join(output, PICTURES), lines)
    start = time.monotonic()
    pipeline = beam.Pipeline(options=pipeline_options)
    labelled = (
        pipeline
        | "Pictures" >> beam.io.ReadFromText(join(output, PICTURES))
        # Without it all pictures of the list would stay in the one worker that reads it.
        | "Deal" >> beam.Reshuffle()
        | "Label" >> beam.ParDo(_LabelPictures(load, options)).with_outputs("bad", main="files")
    )
    _ = (
        labelled.files
        | "ByArchive" >> beam.GroupByKey()
        | "Archive" >> beam.ParDo(_WriteArchive(output, count))
    )
    stem, suffix = posixpath.splitext(BAD_IMAGES)
    _ = labelled.bad | "BadImages" >> beam.io.WriteToText(
        join(output, stem), suffix, num_shards=1, shard_name_template=""
    )
    job = pipeline.run()
    job.wait_until_finish()
    result = _result(job, count, time.monotonic() - start)
    _write_text(join(output, RESULT), [json.dumps(result, indent=2)])
    return result


def match_pictures(pattern):
    """Return the (id, path) of the pictures that match a pattern, sorted.

    Args:
      pattern: a folder, or a pattern with "*" (not over "/"), "**" or "?".

    Raises:
      UserError: there is none, or two have the same id.
    """
    wildcard = re.search(r"[*?\[]", pattern)
    if wildcard is None:
        root = pattern.rstrip("/") + "/"
        pattern = f"{root}**"
    else:
        root = pattern[: pattern.rfind("/", 0, wildcard.start()) + 1]
    try:
        [found] = FileSystems.match([pattern])
    except Exception as error:  # each file system has its own
        raise UserError(f"--input={pattern}: cannot be read: {_one_line(error)}") from error
    paths = sorted(file.path for file in found.metadata_list)
    paths = [path for path in paths if path.lower().endswith(SUFFIXES)]
    if not paths:
        raise UserError(f"--input={pattern}: no image ({', '.join(SUFFIXES)}) matches.")
    by_id = {}
    for path in paths:
        image_id = posixpath.splitext(path[len(root) :])[0]
        if image_id in by_id:
            raise UserError(f"{by_id[image_id]} and {path} have the same name; rename one.")
        by_id[image_id] = path
    return sorted(by_id.items())


def join(folder, name):
    """Return the path of a file in a folder of any file system."""
    return FileSystems.join(str(folder), name)


def _pipeline_options(runner, runner_options):
    if runner == "DirectRunner":
        # By that name Beam first tries a runner which it downloads, and which has other options.
        runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    arguments = [f"--runner={runner}", *runner_options]
    try:
        options = PipelineOptions(arguments)
        known = options.get_all_options()
    except SystemExit as error:  # of argparse, which has printed why
        raise UserError(f"runner options {' '.join(runner_options)}: not understood.") from error
    names = [option.split("=")[0] for option in runner_options if option.startswith("--")]
    if unknown := [name for name in names if name.removeprefix("--") not in known]:
        raise UserError(f"runner option {unknown[0]}: Beam knows no such option.")
    return options


def _clear(output, overwrite):
    """Remove what an earlier job left, or refuse to go on beside it."""
    names = ("labels-*-of-*", BAD_IMAGES, RESULT)
    found = [
        file.path
        for result in FileSystems.match([join(output, name) for name in names])
        for file in result.metadata_list
    ]
    if found and not overwrite:
        raise UserError(
            f"{found[0]}: an earlier job wrote here; choose another --output, or --overwrite."
        )
    if found:
        FileSystems.delete(found)
    if not FileSystems.exists(str(output)):
        FileSystems.mkdirs(str(output))


def _result(job, archives, seconds):
    counters = {}
    for counter in job.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]:
        value = counter.committed if counter.committed is not None else counter.attempted
        counters[counter.key.metric.name] = counters.get(counter.key.metric.name, 0) + value
    images = counters.get("images", 0)
    return {
        "images": images,
        "bad_images": counters.get("bad_images", 0),
        "archives": archives,
        "networks_loaded": counters.get("networks_loaded", 0),
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 2),
        "seconds_by_stage": {
            stage: round(counters[f"microseconds_{stage}"] / 1e6, 2)
            for stage in STAGES
            if f"microseconds_{stage}" in counters
        },
    }


def _stage_counter(stage):
    return Metrics.counter(_NAMESPACE, f"microseconds_{stage}")


def _read(path):
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def _write_text(path, lines):
    if FileSystems.exists(path):
        FileSystems.delete([path])
    with FileSystems.create(path, "text/plain", CompressionTypes.UNCOMPRESSED) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _one_line(error):
    """Return an error's kind and what it says."""
    return f"{type(error).__name__}: {last_line(str(error))}"
