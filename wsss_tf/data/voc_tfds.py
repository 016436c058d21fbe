"""VOC 2012 as a builder of tensorflow-datasets, which can write its records."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from wsss_tf.data import voc, voc_archives
from wsss_tf.files import images
from wsss_tf.masks import IGNORE

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
    MANUAL_DOWNLOAD_INSTRUCTIONS = voc_archives.MANUAL_INSTRUCTIONS

    def __init__(self, *, devkit=None, sbd=None, **options):
        super().__init__(**options)
        self._devkit, self._sbd = devkit, sbd
        self._original_state.update(devkit=devkit, sbd=sbd)  # for pickling

    @tfds.core.utils.classproperty
    @classmethod
    def url_infos(cls):
        """Known check sums, by URL."""
        return voc_archives.URL_INFOS

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "id": tfds.features.Text(),
                    "labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(names=voc.CLASS_NAMES[1:])
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
        if self._devkit is None:
            folder, sbd = voc.acquire_folders(dl_manager, self._sbd)
        else:
            folder, sbd = voc.find_folders(self._devkit, self._sbd)
        splits = [split for split in voc.SPLITS if voc.split_list(folder, split).is_file()]
        if sbd is not None and "trainaug" not in splits:
            splits.append("trainaug")
        return {split: self._generate_examples(split, folder, sbd) for split in splits}

    def _generate_examples(self, split, folder, sbd):
        ids, image_paths, mask_paths, labels = voc.index(split, folder, sbd)
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
