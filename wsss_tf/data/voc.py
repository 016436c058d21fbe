"""PASCAL VOC 2012 segmentation with the SBD masks ("trainaug").

Two users share one index of ids, labels and files. `VocSegmentation`, a TFDS builder, acquires the
archives (download, check sum, extraction) and can write ordinary TFDS records for `tfds.load`.
`voc_source` is what training uses: it reads the extracted files at random positions in the graph,
because records can only be read in sequence, and the pipeline asks for examples by position.
"""

import contextlib
import pathlib
import urllib.error
import urllib.request
from xml.etree import ElementTree

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
import tqdm
from absl import logging
from PIL import Image

from wsss_tf.data.folder import labels_from_masks, read_id_list
from wsss_tf.data.source import file_source
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.picture_files import find_files
from wsss_tf.masks import IGNORE

CLASS_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SPLITS = ("train", "val", "trainval", "trainaug", "test")

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz"
)
_URL_INFOS = {
    VOC_URL: tfds.download.checksums.UrlInfo(
        size=1_999_639_040,
        checksum="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        filename="VOCtrainval_11-May-2012.tar",
    )
}  # No SHA-256 of benchmark.tgz is published; gzip's own check finds a broken download.

# SciPy has an error of its own beside those of a struct that is not as it should be.
_BROKEN_MAT = (
    scipy.io.matlab.MatReadError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
)

_DESCRIPTION = """
PASCAL VOC 2012 semantic segmentation: 20 object classes and background, with the additional masks
of the Semantic Boundaries Dataset (SBD).

Splits: train (1464), val (1449), trainval (2913), trainaug (10582), and test (1456, without labels
and masks) where its image list was added by hand; the test archive needs registration. trainaug is
(SBD train + SBD val + VOC train) minus VOC val. Quote the quality of CAMs on train, not trainaug.

Oddities: VOC marks object boundaries as 255 (ignored), SBD does not. SBD's masks are drawn less
exactly; images of VOC train keep VOC's own. Image labels are those of the detection annotations,
objects marked difficult included, and do not always agree with the masks. Where there are no
annotations they are read from the masks.

The images come from Flickr, under its terms of use; the annotations are for research.
"""
_CITATION = """
@article{everingham2015pascal,
  author = {Everingham, M. and Eslami, S. M. A. and Van Gool, L. and Williams, C. K. I. and Winn, J.
            and Zisserman, A.},
  title = {The {PASCAL} Visual Object Classes Challenge: A Retrospective},
  journal = {International Journal of Computer Vision},
  volume = {111}, number = {1}, pages = {98--136}, year = {2015},
}
@inproceedings{hariharan2011semantic,
  author = {Hariharan, B. and Arbelaez, P. and Bourdev, L. and Maji, S. and Malik, J.},
  title = {Semantic Contours from Inverse Detectors},
  booktitle = {International Conference on Computer Vision},
  year = {2011},
}
"""


def voc_source(split, devkit=None, sbd=None, sbd_masks=None, download_dir=None):
    """Return a split of VOC 2012, read from extracted files.

    Args:
      split: "train", "val", "trainval", "trainaug" or "test".
      devkit: a VOCdevkit folder, or VOC2012 inside it. None: the archives are taken from
        `download_dir`/manual, or downloaded there (2 GB; 1.4 GB more for trainaug).
      sbd: a benchmark_RELEASE folder, or dataset inside it; for trainaug without
        SegmentationClassAug in the devkit.
      sbd_masks: folder for SBD's masks as PNG, into which its .mat files are converted once
        (a minute or two; may be interrupted); None for cls_png beside them.
      download_dir: None for that of TFDS, ~/tensorflow_datasets/downloads.

    Returns:
      `data.source.Source`. trainaug takes its list from ImageSets/Segmentation/trainaug.txt, else
      from SBD's lists. The masks of its images outside VOC train are those in SegmentationClassAug,
      else SBD's; without either they are 255 everywhere, with a warning. test has neither masks nor
      labels.

    Raises:
      UserError: unknown split; missing or broken files; no data, and none to be downloaded.
    """
    if split not in SPLITS:
        raise UserError(f"voc: no split {split!r}; there is {', '.join(SPLITS)}.")
    if devkit is None:
        download_dir = pathlib.Path(download_dir or tfds.core.constants.DATA_DIR + "/downloads")
        download_dir = download_dir.expanduser()
        archives = tfds.download.DownloadManager(
            download_dir=download_dir,
            manual_dir=download_dir / "manual",
            manual_dir_instructions=VocSegmentation.MANUAL_DOWNLOAD_INSTRUCTIONS,
            url_infos=_URL_INFOS,
            dataset_name="voc_segmentation",
        )
        devkit = _acquire(archives, "VOCdevkit", VOC_URL, "devkit")
        if split == "trainaug" and sbd is None and not _has_all_masks(_voc_folder(devkit)):
            sbd = _acquire(archives, "benchmark_RELEASE", SBD_URL, "sbd")
    voc = _voc_folder(devkit)
    sbd = None if sbd is None else _sbd_folder(sbd)
    ids, image_paths, mask_paths, labels = _index(split, voc, sbd, sbd_masks)
    return file_source("voc", split, CLASS_NAMES, ids, labels, image_paths, mask_paths)


class VocSegmentation(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of VOC 2012 segmentation with trainaug; importing this module registers it.

        builder = VocSegmentation()                       # downloads; or devkit="…/VOCdevkit"
        builder.download_and_prepare()
        dataset = tfds.load("voc_segmentation", split="train")

    Features: image uint8 [h, w, 3]; id; labels, the indices of the classes present (0 is the first
    foreground class); mask uint8 [h, w, 1] of 0..20 and 255, all 255 where there is none.

    Args:
      devkit, sbd: existing folders, as in `voc_source`; None to download, or to take
        VOCdevkit, benchmark_RELEASE, or the archives from TFDS' manual folder.
      **options: of `tfds.core.GeneratorBasedBuilder`, such as data_dir.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {pathlib.Path(VOC_URL).name} and benchmark.tgz (SBD), or the folders VOCdevkit and "
        "benchmark_RELEASE extracted from them, into the manual folder."
    )

    def __init__(self, *, devkit=None, sbd=None, **options):
        super().__init__(**options)
        self._devkit, self._sbd = devkit, sbd
        self._original_state.update(devkit=devkit, sbd=sbd)  # for pickling

    @tfds.core.utils.classproperty
    @classmethod
    def url_infos(cls):
        """Known check sums, by URL."""
        return _URL_INFOS

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "id": tfds.features.Text(),
                    "labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(names=CLASS_NAMES[1:])
                    ),
                    "mask": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png", use_colormap=True
                    ),
                }
            ),
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
            citation=_CITATION,
            license="Images: Flickr terms of use. Annotations: research.",
        )

    def _split_generators(self, dl_manager):
        devkit, sbd = self._devkit, self._sbd
        if devkit is None:
            devkit = _acquire(dl_manager, "VOCdevkit", VOC_URL, "devkit")
            if sbd is None and not _has_all_masks(_voc_folder(devkit)):
                sbd = _acquire(dl_manager, "benchmark_RELEASE", SBD_URL, "sbd")
        voc = _voc_folder(devkit)
        sbd = None if sbd is None else _sbd_folder(sbd)
        splits = [split for split in SPLITS if _split_list(voc, split).is_file()]
        if sbd is not None and "trainaug" not in splits:
            splits.append("trainaug")
        return {split: self._generate_examples(split, voc, sbd) for split in splits}

    def _generate_examples(self, split, voc, sbd):
        ids, image_paths, mask_paths, labels = _index(split, voc, sbd)
        for image_id, image_path, mask_path, row in zip(ids, image_paths, mask_paths, labels):
            if mask_path:
                mask = images.load_mask(mask_path)
            else:
                with Image.open(image_path) as picture:
                    mask = np.full(picture.size[::-1], IGNORE, np.uint8)
            yield (
                image_id,
                {
                    "image": image_path,
                    "id": image_id,
                    "labels": np.flatnonzero(row).tolist(),
                    "mask": mask[:, :, None],
                },
            )


# === Acquiring ===


def _acquire(archives, folder, url, argument):
    """Return a folder from TFDS' manual folder, or extract or download its archive.

    Args:
      archives: `tfds.download.DownloadManager`.
      folder: name of the folder inside the archive.
      url: of the archive.
      argument: of `voc_source`, for the message.
    """
    try:
        manual = pathlib.Path(archives.manual_dir)
    except AssertionError:  # TFDS' way to say that it does not exist or is empty
        manual = None
    try:
        if manual is not None:
            if (manual / folder).is_dir():
                return manual / folder
            if (archive := manual / pathlib.Path(url).name).is_file():
                return pathlib.Path(archives.extract(archive))
        # TFDS extracts into a folder that it renames at the end, so what is there is whole.
        for extracted in pathlib.Path(archives.download_dir).glob(f"extracted/*/{folder}"):
            return extracted
        _check_connection(url)
        return pathlib.Path(archives.download_and_extract(url))
    except (
        OSError,  # of the connection, too
        tfds.download.DownloadError,
        tfds.download.download_manager.NonMatchingChecksumError,
        tfds.download.extractor.ExtractError,
    ) as error:
        raise UserError(
            f"voc: cannot get {url} ({type(error).__name__}). Either bind voc_source.{argument} to "
            f"an existing {folder} folder, or run with a network so that it is downloaded (or put "
            f"{pathlib.Path(url).name} into TFDS' manual folder, {archives.download_dir}/manual)."
        ) from error


def _check_connection(url):
    """Raise OSError if the server cannot be reached: TFDS alone would try for minutes."""
    # A server that answers is there; what it says is for TFDS to report.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20).close()


def _voc_folder(devkit):
    """Return the folder that holds JPEGImages: the given one, or VOC2012 below it."""
    devkit = pathlib.Path(devkit).expanduser()
    for folder in (devkit, devkit / "VOC2012", devkit / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"voc_source.devkit = {str(devkit)!r}: no VOC2012/JPEGImages in it.")


def _sbd_folder(sbd):
    """Return the folder that holds cls: the given one, or dataset below it."""
    sbd = pathlib.Path(sbd).expanduser()
    for folder in (sbd, sbd / "dataset", sbd / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir():
            return folder
    raise UserError(f"voc_source.sbd = {str(sbd)!r}: no dataset/cls in it.")


def _split_list(voc, split):
    return voc / "ImageSets" / "Segmentation" / f"{split}.txt"


def _has_all_masks(voc):
    return _split_list(voc, "trainaug").is_file() and (voc / "SegmentationClassAug").is_dir()


# === Index ===


def _index(split, voc, sbd, sbd_masks=None):
    """Return ids, image paths, mask paths ("" where there is none), labels [n, 20] of a split."""
    ids = _ids(split, voc, sbd)
    image_files = find_files(voc / "JPEGImages", (".jpg",))
    if missing := [image_id for image_id in ids if image_id not in image_files]:
        raise UserError(
            f"voc: {len(missing)} of {len(ids)} images of split {split!r} are not in "
            f"{voc / 'JPEGImages'}, the first is {missing[0]!r}."
        )
    image_paths = [image_files[image_id] for image_id in ids]
    if split == "test":
        return ids, image_paths, [""] * len(ids), np.zeros([len(ids), len(CLASS_NAMES) - 1])
    mask_paths = _mask_paths(split, voc, sbd, ids, sbd_masks)
    return ids, image_paths, mask_paths, _labels(voc, ids, mask_paths)


def _ids(split, voc, sbd):
    path = _split_list(voc, split)
    if path.is_file():
        return read_id_list(path)
    if split != "trainaug":
        raise UserError(f"voc: split {split!r} needs the list {path}.")
    if sbd is None:
        raise UserError(
            f"voc: trainaug needs the list {path}, or SBD: bind voc_source.sbd to an existing "
            "benchmark_RELEASE folder."
        )
    lists = [sbd / "train.txt", sbd / "val.txt", *(_split_list(voc, s) for s in ("train", "val"))]
    for path in lists:
        if not path.is_file():
            raise UserError(f"voc: trainaug needs the list {path}.")
    sbd_train, sbd_val, voc_train, voc_val = [set(read_id_list(path)) for path in lists]
    return sorted((sbd_train | sbd_val | voc_train) - voc_val)


def _mask_paths(split, voc, sbd, ids, sbd_masks):
    own = find_files(voc / "SegmentationClass", (".png",))
    if split != "trainaug":
        missing = [image_id for image_id in ids if image_id not in own]
        if own and missing:
            raise UserError(
                f"voc: {len(missing)} of {len(ids)} masks of split {split!r} are not in "
                f"{voc / 'SegmentationClass'}, the first is {missing[0]!r}."
            )
        return [own.get(image_id, "") for image_id in ids]

    # VOC's own masks are more exact than SBD's, and its train split keeps them.
    train_list = _split_list(voc, "train")
    keep = set(read_id_list(train_list)) if train_list.is_file() else set()
    own = {image_id: path for image_id, path in own.items() if image_id in keep}
    others = [image_id for image_id in ids if image_id not in own]
    prepared = find_files(voc / "SegmentationClassAug", (".png",))
    if sbd is not None and not prepared:
        prepared = _convert_sbd(sbd, others, sbd_masks)
    if missing := [image_id for image_id in others if image_id not in prepared]:
        logging.warning(
            "voc: %d of %d images of trainaug have no mask (neither SegmentationClassAug nor "
            "voc_source.sbd has them). Weak training does not need them; supervised training does.",
            len(missing),
            len(ids),
        )
    return [own.get(image_id) or prepared.get(image_id, "") for image_id in ids]


def _convert_sbd(sbd, ids, folder):
    """Write SBD's masks as PNGs, those that are not there yet, and return {id: path}."""
    folder = pathlib.Path(folder).expanduser() if folder else sbd / "cls_png"
    paths = {image_id: str(folder / f"{image_id}.png") for image_id in ids}
    done = find_files(folder, (".png",))
    to_convert = [image_id for image_id in ids if image_id not in done]
    for image_id in tqdm.tqdm(to_convert, "converting SBD masks", leave=False, delay=1):
        source = sbd / "cls" / f"{image_id}.mat"
        try:
            mask = scipy.io.loadmat(source)["GTcls"]["Segmentation"][0, 0]
        except _BROKEN_MAT as error:
            raise UserError(f"{source}: cannot be read as an SBD mask: {error}") from error
        try:
            images.save_mask(paths[image_id], mask)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); bind voc_source.sbd_masks to a "
                "folder for SBD's masks as PNG."
            ) from error
    return paths


def _labels(voc, ids, mask_paths):
    """Return labels [n, 20]: from the annotations, else from the masks."""
    if (voc / "Annotations").is_dir():
        return np.stack([_annotated_labels(voc / "Annotations" / f"{i}.xml") for i in ids])
    if "" in mask_paths:
        without = ids[mask_paths.index("")]
        raise UserError(
            f"voc: no labels for image {without!r}: neither the folder {voc / 'Annotations'} nor a "
            "mask of it is there."
        )
    return labels_from_masks(mask_paths, CLASS_NAMES)[0]


def _annotated_labels(path):
    """Return float32 [20]; objects count whether or not they are marked difficult."""
    labels = np.zeros([len(CLASS_NAMES) - 1], np.float32)
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
        for name in (thing.findtext("name").strip() for thing in objects):
            labels[CLASS_NAMES.index(name, 1) - 1] = 1
    except (OSError, ElementTree.ParseError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a VOC annotation: {error}") from error
    return labels
