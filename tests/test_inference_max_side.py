"""Large pictures at a limited size: what is small stays as it is, what is large comes back."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_inference_random_walk import COMPUTE, picture_of_two_regions, right_half
from tiny_export import mask_predictor
from tiny_network import tiny_network

from wsss_tf import ops
from wsss_tf.data.source import Source, file_source, reduced_source
from wsss_tf.errors import UserError
from wsss_tf.files import images, png, run_folder
from wsss_tf.inference import cam_crf, picture_batches
from wsss_tf.inference.limited_side import limited
from wsss_tf.inference.map_sizes import resize_maps, strongest_at
from wsss_tf.inference.multi_scale_cam import MultiScaleCam
from wsss_tf.inference.write_cams import label_source
from wsss_tf.inference.write_masks import predict_source
from wsss_tf.inference.write_walk import walk_source
from wsss_tf.runs.recipe import Recipe

LIMIT = 48
SIZES = [(40, 48), (100, 64), (33, 130)]
REDUCED = [(40, 48), (48, 31), (12, 48)]  # 64 * 48 / 100 = 30.72, 33 * 48 / 130 = 12.18


def picture(index):
    height, width = SIZES[index]
    small = np.random.default_rng(index).integers(0, 256, (height // 9, width // 9, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def reduced(index):
    size = REDUCED[index][::-1]
    return np.asarray(Image.fromarray(picture(index)).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def source(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(picture(i)).save(path)
    names = ("background", "x", "y")
    return file_source("test", "all", names, ("a", "sub/b", "c"), np.ones((3, 2)), paths)


def maps(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


# === Pictures and maps ===


def test_pictures_are_reduced_as_pillow_does():
    for index in range(3):
        found = images.limit_side(picture(index), LIMIT)
        np.testing.assert_array_equal(found, reduced(index))
    batch = np.stack([picture(1), picture(1)[::-1]])
    assert images.limit_side(batch, LIMIT).shape == (2, 48, 31, 3)
    assert images.limit_side(np.zeros((1, 200, 3), np.uint8), 20).shape == (1, 20, 3)
    assert images.limit_side(picture(2), None).shape == (33, 130, 3)


def test_maps_are_enlarged_as_tensorflow_does():
    small = maps(3, 12, 17)
    found = resize_maps(small, (40, 95))
    expected = ops.resize_bilinear(small[..., None], (40, 95), align_corners=False)[..., 0]
    np.testing.assert_allclose(found, expected, atol=5e-6)  # positions in float32 and float64
    assert found.dtype == np.float32
    assert resize_maps(small, (12, 17)) is small
    assert resize_maps(small[:0], (5, 6)).shape == (0, 5, 6)
    assert resize_maps(small.astype(np.float16), (5, 6)).dtype == np.float32
    constant = resize_maps(np.full((1, 40, 30), 0.3), (7, 11))
    np.testing.assert_allclose(constant, 0.3, atol=1e-6)


def test_strongest_at_another_size_is_the_argmax_there():
    scores = maps(9, 14, 5)
    enlarged = resize_maps(scores.transpose(2, 0, 1), (50, 41))
    np.testing.assert_array_equal(strongest_at(scores, (50, 41)), enlarged.argmax(0))
    np.testing.assert_array_equal(strongest_at(scores, (9, 14)), scores.argmax(-1))
    assert not strongest_at(np.zeros((2, 3, 4)), (5, 6)).any()  # of equal ones the first


# === What is written ===


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def test_cams_of_large_pictures_are_those_of_the_reduced_ones(source, tmp_path):
    compute = MultiScaleCam(tiny_network(2), scales=(0.5, 1.0))
    label_source(compute, source, tmp_path / "limited", max_side=LIMIT)
    label_source(compute, source, tmp_path / "plain")
    # In a graph, as a SavedModel has it.
    spec = tf.TensorSpec([None, None, None, 3], tf.uint8)
    served = tf.function(limited(compute, LIMIT), autograph=False, input_signature=[spec])
    for index, image_id in enumerate(source.ids):
        class_ids, cams = run_folder.load_cams(tmp_path / "limited/cams", image_id)
        small = compute(reduced(index)[None])["cams"].numpy()
        expected = ops.resize_bilinear(small, SIZES[index], align_corners=False).numpy()[0]
        assert class_ids.tolist() == [1, 2]
        np.testing.assert_allclose(cams.transpose(1, 2, 0), expected, atol=1e-3)
        assert expected.std() > 0.05
        label = images.load_mask(tmp_path / f"limited/pseudo_labels/{image_id}.png")
        assert label.shape == SIZES[index]
        outputs = served(picture(index)[None])
        np.testing.assert_allclose(outputs["cams"][0], expected, atol=1e-5)
        assert outputs["probabilities"].shape == (1, 2)
    plain, found = contents(tmp_path / "plain"), contents(tmp_path / "limited")
    assert found.keys() == plain.keys()
    same = {path.stem for path in found if found[path] == plain[path]}
    assert same == {"a"}


def test_masks_of_large_pictures_are_decided_at_their_own_size(source, tmp_path):
    keras.utils.set_random_seed(0)
    predict = mask_predictor()  # whose masks hold several classes
    seen = []

    def roll(probabilities, _):
        return np.roll(probabilities, 1, axis=-1)

    def postprocess(probabilities, image):
        seen.append(image)
        return roll(probabilities, image)

    predict_source(predict, source, tmp_path / "plain", roll)
    predict_source(predict, source, tmp_path / "limited", postprocess, max_side=LIMIT)
    sizes = picture_batches.sizes_of(source, [0, 1, 2], LIMIT)
    seen = dict(zip(picture_batches.in_order_of_size([0, 1, 2], sizes), seen, strict=True))
    for index, image_id in enumerate(source.ids):
        np.testing.assert_array_equal(seen[index], reduced(index))
        small = predict(reduced(index)[None]).numpy()
        large = ops.resize_bilinear(small, SIZES[index], align_corners=False).numpy()[0]
        expected = np.roll(large, 1, axis=-1).argmax(-1)
        found = images.load_mask(tmp_path / f"limited/predictions/{image_id}.png")
        assert (found == expected).mean() > 0.999
        plain = images.load_mask(tmp_path / f"plain/predictions/{image_id}.png")
        assert (index == 0) == np.array_equal(found, plain)


def test_walk_of_large_pictures_is_that_of_the_reduced_ones(tmp_path):
    sizes = [(64, 96), (150, 220)]

    def read(index):
        cases = [lambda s=s: tf.constant(picture_of_two_regions(s, 0)) for s in sizes]
        image = tf.switch_case(tf.cast(index, tf.int32), cases)
        return {"image": tf.ensure_shape(image, [None, None, 3])}

    names = ("background", "x", "y")
    drawn = Source("test", "all", names, ("small", "large"), np.ones((2, 2)), read, False)
    for image_id, size in zip(drawn.ids, sizes):
        run_folder.save_cams(tmp_path / "cams", image_id, [2], 0.9 * right_half(*size)[None])
    for name, max_side in (("limited", 96), ("plain", None)):
        walk_source(COMPUTE, drawn, tmp_path, tmp_path / name, steps=4, max_side=max_side)
    small, large = (
        images.load_mask(tmp_path / f"limited/pseudo_labels/{i}.png") for i in drawn.ids
    )
    np.testing.assert_array_equal(
        small, images.load_mask(tmp_path / "plain/pseudo_labels/small.png")
    )
    assert large.shape == (150, 220)
    assert ((large == 2) == right_half(150, 220)).mean() > 0.95


def test_crf_on_a_reduced_picture_writes_maps_of_the_own_size(tmp_path, monkeypatch):
    shapes = []

    def stand_in(several, image, parameters):
        shapes.extend((probs.shape, image.shape) for probs in several)
        return [probs / probs.sum(-1, keepdims=True) for probs in several]

    monkeypatch.setattr(cam_crf, "dense_crfs", stand_in)
    cams = maps(2, *SIZES[1])
    run_folder.save_cams(tmp_path / "cams", "b", [1, 3], cams)
    cam_crf.refine(tmp_path, "b", reduced(1), size=SIZES[1])
    assert shapes == 2 * [((48, 31, 3), (48, 31, 3))]
    ids, probs = png.load_probabilities(tmp_path / "crf_low/b.png")
    assert ids.tolist() == [0, 1, 3]
    assert probs.shape == (*SIZES[1], 3)
    label = images.load_mask(tmp_path / "crf_low_labels/b.png")
    assert (label == ids[probs.argmax(-1)]).mean() > 0.999  # 16 bits may make two scores equal
    with pytest.raises(UserError, match=r"are 100x64, the image is 48x31"):
        cam_crf.refine(tmp_path, "b", reduced(1))


# === Work ===


def test_batches_are_of_reduced_pictures(source, monkeypatch):
    batches = list(picture_batches.batches_of_equal_size(source, [0, 1, 2], 8, LIMIT))
    found = [(p.position, p.image.shape[:2], p.size) for batch in batches for p in batch]
    assert found == list(zip(range(3), REDUCED, SIZES))
    assert list(picture_batches.batches_of_equal_size(source, [], 8)) == []


def test_sizes_are_those_of_the_files_where_these_tell(source):
    sizes = picture_batches.sizes_of(source, [0, 2])
    assert sizes == {0: (48, 40), 2: (130, 33)}
    limited = picture_batches.sizes_of(source, [0, 1, 2], LIMIT)
    expected = [48, 40], [30.72, 48], [48, 12.18]
    np.testing.assert_allclose([limited[i] for i in range(3)], expected, rtol=1e-3)
    assert picture_batches.sizes_of(reduced_source(source, LIMIT), [0, 1, 2]) == limited
    full = picture_batches.sizes_of(source, [0, 1, 2])
    assert picture_batches.in_order_of_size([2, 1, 0], full) == [0, 1, 2]
    assert picture_batches.in_order_of_size([0, 1, 2], limited) == [1, 2, 0]
    open(source.paths[1], "w").close()
    assert picture_batches.sizes_of(source, [0, 1]) is None
    assert picture_batches.in_order_of_size([1, 0], None) == [1, 0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_counts_pixels_on_a_terminal_only(source, monkeypatch, terminal):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with picture_batches.progress(
        source, [0, 1, 2], "CAMs", picture_batches.sizes_of(source, [0, 1, 2])
    ) as done:
        for position in range(3):
            done(position)
    text = stream.getvalue()
    assert ("CAMs of all" in text) == terminal
    assert ("/12.6k" in text and "px/s" in text) == terminal


def test_the_time_it_takes_is_said_once_the_rate_is_known(source, monkeypatch, capsys):
    clock = iter([100, 110, 120, 130])  # 20 s for two pictures behind the first; nine are left
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    drawn = dataclasses.replace(source, paths=None)
    with picture_batches.progress(
        drawn, [*range(12)], "CAMs", picture_batches.sizes_of(drawn, [*range(12)])
    ) as done:
        for position in range(4):
            done(position)
    assert capsys.readouterr().out == "CAMs of all: about 2 minutes to go.\n"


def test_large_pictures_are_warned_of(source, monkeypatch, capsys):
    monkeypatch.setattr(picture_batches, "_LARGE", 2000)
    with picture_batches.progress(
        source, [0, 1, 2], "CAMs", picture_batches.sizes_of(source, [0, 1, 2])
    ):
        assert "2 pictures of up to 0 megapixels" in capsys.readouterr().err
    with picture_batches.progress(
        source,
        [0, 1, 2],
        "CAMs",
        picture_batches.sizes_of(source, [0, 1, 2], max_side=40),
        max_side=40,
    ):
        assert capsys.readouterr().err == ""


def test_limit_of_a_recipe():
    def recipe(max_side):
        return Recipe(None, None, None, None, None, max_side=max_side)

    assert recipe(None).side_limit(None) is None
    assert recipe(640).side_limit(None) == 640
    assert recipe(640).side_limit(0) is None
    assert recipe(640).side_limit(320) == 320
    for wrong in (0, -3, "640", 640.0):
        with pytest.raises(UserError, match=r"Recipe\.max_side"):
            recipe(wrong)
