"""IRN's CAMs: the official numbers at both sizes, and what must hold of any picture."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_inference import _ColourNet, _picture, _source

from wsss_tf import ops
from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder
from wsss_tf.inference.multi_scale_cam import MultiScaleCam
from wsss_tf.inference.strided_cam import StridedCam
from wsss_tf.inference.write_cams import label_source
from wsss_tf.runs.infer_cams import make_maps

# Of 255, as a normalised number: where Pillow rounds a half the other way.
ONE_LEVEL = 1.001 / 255 / 0.224


class _Replay:
    """Stands for a network: gives the stored maps of each scale, for picture and mirror image."""

    def __init__(self, arrays):
        self.output = {"cam": np.zeros([1, 1, 1, 21])}
        self.arrays = arrays
        self.calls = 0

    def compute_output_shape(self, shape):
        return {"cam": (1, shape[1] // 16, shape[2] // 16, 21)}

    def __call__(self, x, training):
        assert x.shape[0] == 2
        assert tuple(x.shape[1:3]) == tuple(self.arrays["sizes"][self.calls])
        picture = self.arrays["image"]
        if self.calls:
            picture = self.arrays[f"image_{self.calls}"]
        np.testing.assert_allclose(x[0], ops.normalize_image(picture), atol=ONE_LEVEL)
        np.testing.assert_array_equal(x[1], x[0][:, ::-1])
        scores = self.arrays[f"logits_{self.calls}"]
        self.calls += 1
        return {"cam": tf.pad(scores, [[0, 0], [0, 0], [0, 0], [1, 0]])}


def test_maps_are_the_official_ones(golden):
    arrays = golden("irn/cam_scales")
    compute = StridedCam(_Replay(arrays), scales=arrays["scales"].tolist())
    outputs = compute.compute(tf.constant(arrays["image"])[None])
    present = arrays["class_keys"]
    assert present.tolist() == np.flatnonzero(arrays["label"]).tolist()
    assert compute.net.calls == 4
    cams = np.asarray(outputs["cams"])[0, :, :, present].transpose(1, 2, 0)
    np.testing.assert_allclose(cams, arrays["high_res_cam"], atol=1e-5)
    strided = np.asarray(outputs["strided_cams"])[0, :, :, present].transpose(1, 2, 0)
    np.testing.assert_allclose(strided, arrays["strided_cam"], atol=1e-5)
    logits = [arrays[f"logits_{i}"].mean(axis=(0, 1, 2)) for i in range(4)]
    expected = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    np.testing.assert_allclose(outputs["probabilities"][0], expected, atol=1e-6)


def test_scaled_pictures_are_the_official_ones(golden):
    arrays = golden("irn/cam_scales")
    for i in (1, 2, 3):
        scaled = images.resize_bicubic(arrays["image"], arrays[f"image_{i}"].shape[:2])
        difference = np.abs(scaled.numpy().astype(int) - arrays[f"image_{i}"])
        assert difference.max() <= 1
        assert difference.mean() < 0.02
    np.testing.assert_allclose(
        ops.normalize_image(arrays["image_1"]), arrays["normalized_1"], atol=1e-6
    )


class _CoarseNet(_ColourNet):
    """Class c scores where channel c of a block of 8 pixels is bright."""

    def compute_output_shape(self, shape):
        return dict.fromkeys(self.output, (1, -(-shape[1] // 8), -(-shape[2] // 8), 4))

    def __call__(self, x, training):
        return super().__call__(tf.nn.avg_pool2d(x, 8, 8, "SAME"), training)


@pytest.mark.parametrize("size", [(9, 17), (33, 48), (64, 64)])
@pytest.mark.parametrize("flip", [False, True])
def test_sizes_and_range(size, flip):
    outputs = StridedCam(_CoarseNet(), scales=(1.0, 1.5), flip=flip)(_picture(*size)[None])
    assert outputs["cams"].shape == (1, *size, 3)
    assert outputs["strided_cams"].shape == (1, -(-size[0] // 4), -(-size[1] // 4), 3)
    for maps in (outputs["cams"], outputs["strided_cams"]):
        assert np.min(maps) >= 0
        np.testing.assert_allclose(np.max(maps, axis=(1, 2)), 1, atol=1e-4)


def test_mirrored_picture_gives_mirrored_maps():
    compute = StridedCam(_CoarseNet(), scales=(1.0, 0.5))
    picture = _picture(48, 64)[None]
    plain, mirrored = compute(picture), compute(picture[:, :, ::-1])
    for name in ("cams", "strided_cams"):
        np.testing.assert_allclose(mirrored[name][:, :, ::-1], plain[name], atol=1e-5)
    np.testing.assert_allclose(plain["probabilities"], mirrored["probabilities"], atol=1e-6)


def test_both_maps_are_written_and_the_recipe_chooses(tmp_path):
    compute = make_maps(_CoarseNet(), cam_output="cam", scales=(1.0,), flip=True, merging="irn")
    assert isinstance(compute, StridedCam)
    assert isinstance(make_maps(_CoarseNet()), MultiScaleCam)
    source = _source([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert label_source(compute, source, tmp_path) == (3, 0)
    run = run_folder.RunFolder(tmp_path)
    class_ids, cams = run.read_cams("a", (10, 12))
    strided = run.read_strided_cams("a")
    assert class_ids.tolist() == [1, 3]
    assert strided.shape == (2, 3, 3)
    outputs = compute(_picture(10, 12)[None])
    for found, name in ((cams, "cams"), (strided, "strided_cams")):
        expected = outputs[name][0].numpy()[..., [0, 2]].transpose(2, 0, 1)
        np.testing.assert_allclose(found, expected, atol=1e-3)  # in float16
    assert run.read_strided_cams("c").shape == (0, 4, 3)
    label_source(make_maps(_CoarseNet()), source, tmp_path, overwrite=True)
    assert run.read_strided_cams("a") is None
    with pytest.raises(UserError, match="no output 'nope'"):
        StridedCam(_CoarseNet(), "nope")
    with pytest.raises(UserError, match="cam_merging = 'mean'; there are seam, irn"):
        make_maps(_CoarseNet(), merging="mean")
    assert Image.open(tmp_path / "pseudo_labels/a.png").size == (12, 10)
