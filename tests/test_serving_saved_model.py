"""What a SavedModel answers, in this process and in a C program."""

import io
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from as_user import ROOT
from PIL import Image
from tiny_export import (
    BACKGROUND_THRESHOLD,
    CLASS_NAMES,
    LABEL_THRESHOLD,
    cam_compute,
    encoded,
    mask_predictor,
    picture,
    save_cams,
    save_masks,
)

from wsss_tf.errors import UserError
from wsss_tf.evaluation.threshold_sweep import label_pixels
from wsss_tf.files import images
from wsss_tf.files.png import palette
from wsss_tf.inference.dense_crf import CrfParameters, dense_crf
from wsss_tf.inference.graph_crf import RefinedByCrf
from wsss_tf.serving.versions import latest_version, new_version

# The last is as thin as no camera's: a damaged header says so.
PICTURES = [picture(40, 52), picture(30, 21, seed=1), picture(57, 33, seed=2), picture(3, 1600)]


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """(predictor, folder of its SavedModel)."""
    predictor, path = mask_predictor(), tmp_path_factory.mktemp("masks") / "model"
    save_masks(predictor, path)
    return predictor, path


@pytest.fixture(scope="module")
def cams(tmp_path_factory):
    """(function of pictures to CAMs, folder of its SavedModel)."""
    compute, path = cam_compute(), tmp_path_factory.mktemp("cams") / "model"
    save_cams(compute, path)
    return compute, path


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """(predictor with a dense CRF behind it, folder of its SavedModel)."""
    predictor = RefinedByCrf(mask_predictor(), CrfParameters(iterations=5, unary_weight=0.5))
    path = tmp_path_factory.mktemp("refined") / "model"
    save_masks(predictor, path)
    return predictor, path


def _expected_mask(kind, compute, image):
    """What `infer` would write for a picture."""
    if kind == "masks":
        return np.argmax(compute(image[None])[0], axis=-1)
    if kind == "refined":
        probabilities = compute.compute(image[None])[0]
        return dense_crf(probabilities, image, compute.parameters).argmax(axis=-1)
    outputs = compute(image[None])
    classes = np.flatnonzero(outputs["probabilities"][0] > LABEL_THRESHOLD)
    maps = outputs["cams"][0].numpy().transpose(2, 0, 1)[classes].astype(np.float16)
    return label_pixels(classes + 1, maps, BACKGROUND_THRESHOLD)


@pytest.mark.parametrize("kind", ["masks", "cams"])
def test_masks_are_those_of_infer(kind, request):
    compute, path = request.getfixturevalue(kind)
    model = tf.saved_model.load(path)
    contents = [encoded(image) for image in PICTURES]
    out = model.signatures["serving_default"](image_bytes=tf.constant(contents))
    shapes = {name: (x.shape.as_list(), x.dtype.name) for name, x in out.items()}
    assert shapes == {
        "mask_bytes": ([4], "string"),
        "classes": ([4], "string"),
        "pixels": ([4, 5], "int32"),
        "scores": ([4, 5], "float32"),
    }
    seen = set()
    for row, image in enumerate(PICTURES):
        expected = _expected_mask(kind, compute, image)
        png = Image.open(io.BytesIO(out["mask_bytes"][row].numpy()))
        assert png.mode == "P"
        np.testing.assert_array_equal(np.array(png), expected)
        np.testing.assert_array_equal(np.array(png.convert("RGB")), palette()[expected])
        np.testing.assert_array_equal(out["pixels"][row], np.bincount(expected.flat, minlength=5))
        names = out["classes"][row].numpy().decode("utf-8").split("\n")
        assert names == [CLASS_NAMES[value] for value in np.unique(expected)]
        seen |= set(np.unique(expected))
        if kind == "masks":
            scores = compute(image[None])[0].numpy().max((0, 1))
        else:
            scores = compute(image[None])["probabilities"][0].numpy()
            scores = [1 - scores.max(), *scores]
        np.testing.assert_allclose(out["scores"][row], scores, atol=1e-5)
    assert len(seen) > 2
    empty = model.signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    assert [x.shape[0] for x in empty.values()] == [0] * 4


@pytest.mark.parametrize("kind", ["masks", "cams"])
def test_float_signatures(kind, request):
    compute, path = request.getfixturevalue(kind)
    model = tf.saved_model.load(path)
    batch = np.stack([picture(24, 35, seed) for seed in (5, 6)])
    # Values out of range and between two are brought to 8 bits.
    floats = tf.where(batch == 255, 300.0, tf.cast(batch, tf.float32) + 0.3)
    out = model.signatures["probabilities"](images=floats)
    assert list(out) == ["probabilities"]
    if kind == "masks":
        assert set(model.signatures) == {"serving_default", "probabilities"}
        np.testing.assert_allclose(out["probabilities"], compute(batch), atol=1e-5)
        return
    here = compute(batch)
    np.testing.assert_allclose(out["probabilities"], here["probabilities"], atol=1e-5)
    out = model.signatures["cam"](images=floats)
    np.testing.assert_allclose(out["cams"], here["cams"], atol=1e-4)
    np.testing.assert_allclose(out["probabilities"], here["probabilities"], atol=1e-5)


def test_assets(masks):
    _, path = masks
    names = (path / "assets/class_names.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(names) == CLASS_NAMES
    np.testing.assert_array_equal(np.loadtxt(path / "assets/palette.txt"), palette()[:5])


def _png_header(height, width):
    """A PNG file of that size which holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check_sum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check_sum


_PNG, _JPEG = encoded(PICTURES[0]), encoded(PICTURES[0], "JPEG")
BAD = {
    "empty": (b"", "neither a JPEG nor a PNG"),
    "text": (b"no picture", "neither a JPEG nor a PNG"),
    "gif": (b"GIF89a" + bytes(40), "neither a JPEG nor a PNG"),
    "png cut": (_PNG[:200], ""),
    "png start": (_PNG[:20], ""),
    "jpeg cut": (_JPEG[:-400], ""),
    "jpeg start": (_JPEG[:3], ""),
    "large png": (_png_header(71, 71), "5041"),
    "huge png": (_png_header(2**31 - 1, 2**31 - 1), "takes 1 to"),
    "negative png": (_png_header(2**31 + 5, 4), "takes 1 to"),
    "large jpeg": (encoded(picture(100, 51), "JPEG"), "5100"),
}


def test_bad_bytes_are_refused_and_change_nothing(masks):
    ask = tf.saved_model.load(masks[1]).signatures["serving_default"]
    before = ask(image_bytes=tf.constant([_JPEG]))
    for contents, words in BAD.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match=words or None):
            ask(image_bytes=tf.constant([_JPEG, contents]))
    for name, value in ask(image_bytes=tf.constant([_JPEG])).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.large
@pytest.mark.skipif(shutil.which("cc") is None, reason="skipped: no C compiler")
def test_a_c_program_makes_the_same_masks(masks, cams, refined, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts/serve")
    from compare_with_infer import build_loader, run_loader

    program = build_loader(tmp_path)
    paths = []
    for number, image in enumerate(PICTURES):
        paths.append(tmp_path / f"picture{number}")
        paths[-1].write_bytes(encoded(image))
    bad = tmp_path / "bad"
    bad.write_bytes(b"no picture")
    for kind, (compute, model) in (("masks", masks), ("cams", cams), ("refined", refined)):
        result = run_loader(program, model, [*paths, bad], tmp_path / kind)
        assert result.returncode == 3  # InvalidArgument, after all the others were written
        assert f"error: {bad}: code 3" in result.stderr
        for number, image in enumerate(PICTURES):
            mask = images.load_mask(tmp_path / kind / f"{number}.png")
            expected = _expected_mask(kind, compute, image)
            # Sums on a lattice have other orders here and there.
            allowed = 0.001 * mask.size if kind == "refined" else 0
            assert (mask != expected).sum() <= allowed
            if kind == "refined":
                changed = mask != _expected_mask("masks", compute.compute, image)
                assert changed.mean() > 0.02  # the CRF is in it


def test_warmup_requests_run(masks, tmp_path):
    pytest.importorskip("tensorflow_serving", reason="skipped: no tensorflow-serving-api")
    from tensorflow_serving.apis import prediction_log_pb2

    from wsss_tf.serving.warmup import FILE, write_warmup_requests

    write_warmup_requests(tmp_path, [(20, 31), (33, 16)])
    model = tf.saved_model.load(masks[1])
    shapes = []
    for record in tf.data.TFRecordDataset(str(tmp_path / FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
        out = model.signatures[request.model_spec.signature_name](**inputs)
        shapes.append(images.decode_mask(out["mask_bytes"][0]).shape.as_list())
    assert shapes == [[20, 31], [33, 16]]


# === Versions ===


def _write(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"model")


def test_versions_count_up_and_appear_whole(tmp_path):
    folder = tmp_path / "models"
    for number in (1, 2):
        with new_version(folder) as version:
            _write(version.path)
            assert latest_version(folder) == number - 1
        assert version.published == folder / str(number)
    with new_version(folder, 10) as version:
        _write(version.path)
    with new_version(folder) as version:
        _write(version.path)
        # Somebody else takes the number meanwhile.
        (folder / "11").mkdir()
        (folder / "11/saved_model.pb").write_bytes(b"other")
    assert version.published == folder / "12"
    assert (folder / "11/saved_model.pb").read_bytes() == b"other"
    assert {path.name for path in folder.glob("[!.]*")} == {"1", "2", "10", "11", "12"}


def test_an_export_that_fails_leaves_no_version(tmp_path):
    def export():
        with new_version(tmp_path / "models") as version:
            _write(version.path)
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        export()
    assert list((tmp_path / "models").glob("[!.]*")) == []


@pytest.mark.parametrize("case", ["taken", "file", "model"])
def test_refused_folders(case, tmp_path):
    folder, words = tmp_path / "models", "versions are never changed"
    if case == "taken":
        (folder / "3").mkdir(parents=True)
    elif case == "file":
        folder.write_text("")
        words = "is a file"
    else:
        _write(folder)
        words = "is itself a SavedModel"
    with pytest.raises(UserError, match=words), new_version(folder, 3):
        pytest.fail("not reached")
    assert not pathlib.Path(folder / "3/saved_model.pb").exists()
