"""The archives of VOC 2012 and of SBD: found, extracted or downloaded by TFDS."""

import contextlib
import pathlib
import urllib.error
import urllib.request

import tensorflow_datasets as tfds

from wsss_tf.errors import UserError

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz"
)
URL_INFOS = {
    VOC_URL: tfds.download.checksums.UrlInfo(
        size=1_999_639_040,
        checksum="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        filename="VOCtrainval_11-May-2012.tar",
    )
}  # No SHA-256 of benchmark.tgz is published; gzip's own check finds a broken download.
MANUAL_INSTRUCTIONS = (
    f"Put {pathlib.Path(VOC_URL).name} and benchmark.tgz (SBD), or the folders VOCdevkit and "
    "benchmark_RELEASE extracted from them, into the manual folder."
)


def download_manager(download_dir=None):
    """Return a `tfds.download.DownloadManager` for the two archives.

    Args:
      download_dir: with the folder "manual" for what was put there by hand; None for that of TFDS,
        ~/tensorflow_datasets/downloads.
    """
    download_dir = pathlib.Path(download_dir or tfds.core.constants.DATA_DIR + "/downloads")
    download_dir = download_dir.expanduser()
    return tfds.download.DownloadManager(
        download_dir=download_dir,
        manual_dir=download_dir / "manual",
        manual_dir_instructions=MANUAL_INSTRUCTIONS,
        url_infos=URL_INFOS,
        dataset_name="voc_segmentation",
    )


def acquire_voc(archives):
    """Return the folder VOCdevkit: put there by hand, extracted, or downloaded (2 GB).

    Args:
      archives: `tfds.download.DownloadManager`.

    Raises:
      UserError: it is not there and cannot be downloaded.
    """
    return _acquire(archives, "VOCdevkit", VOC_URL, "devkit")


def acquire_sbd(archives):
    """Return SBD's folder benchmark_RELEASE (1.4 GB), as `acquire_voc` does."""
    return _acquire(archives, "benchmark_RELEASE", SBD_URL, "sbd")


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
