"""The CRF stage: its input, the files it leaves, processes, resuming, and bad CAM files."""

import os

import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.data.source import Source
from wsss_tf.errors import UserError
from wsss_tf.files import images, png, run_folder
from wsss_tf.inference.cam_crf import crf_label, crf_probs, refine
from wsss_tf.inference.dense_crf import CAM_CRF, dense_crf
from wsss_tf.inference.process_pool import map_in_processes
from wsss_tf.inference.write_crf import crf_source

SIZES = [(14, 22), (17, 9), (14, 22)]
CLASS_IDS = [[1, 3], [2], []]


def picture(index):
    rng = np.random.default_rng(index)
    image = rng.integers(0, 60, (*SIZES[index], 3))
    image[:8, 2:7] += 150
    return image.astype(np.uint8)


def cams(index):
    rng = np.random.default_rng(10 + index)
    maps = 0.3 * rng.random((len(CLASS_IDS[index]), *SIZES[index]))
    maps[:1, 1:7, 3:7] += 0.6
    return maps


@pytest.fixture
def run_dir(tmp_path):
    for index, image_id in enumerate(source().ids):
        run_folder.save_cams(tmp_path / "cams", image_id, CLASS_IDS[index], cams(index))
    return tmp_path


def source():
    def read(index):
        cases = [lambda i=i: tf.constant(picture(i)) for i in range(3)]
        image = tf.switch_case(tf.cast(index, tf.int32), cases)
        image.set_shape([None, None, 3])
        return {"image": image}

    names = ("background", "red", "green", "blue")
    return Source("test", "all", names, ("a", "sub/b", "c"), np.ones((3, 3)), read, False)


def files(run_dir):
    return {
        str(path.relative_to(run_dir)): path.read_bytes() for path in sorted(run_dir.rglob("*.png"))
    }


@pytest.mark.parametrize("power", [4, 24])
def test_input_is_the_official_one(golden, power):
    arrays = golden("cam_inference")
    maps = arrays["norm_cam"].transpose(2, 0, 1)[arrays["cam_keys"]]
    probs = crf_probs(np.maximum(maps, 0), power)  # as files hold them
    expected = arrays[f"crf_probs_alpha{power}"]
    # What is outside of [0, 1] there is clipped by the CRF.
    np.testing.assert_allclose(probs, np.clip(expected, 0, 1), atol=1e-5)


def test_files_hold_the_marginals_of_the_classes_present(run_dir):
    assert crf_source(source(), run_dir, processes=1) == (3, 0)
    for index, image_id in enumerate(source().ids):
        stored = cams(index).astype(np.float16).astype(np.float32)
        for name, power in (("crf_low", 4), ("crf_high", 24)):
            class_ids, probs = png.load_probabilities(run_dir / f"{name}/{image_id}.png")
            assert class_ids.tolist() == [0, *CLASS_IDS[index]]
            background = (1 - stored.max(0, initial=0)) ** power
            expected = np.concatenate([background[None], stored]).transpose(1, 2, 0)
            expected = dense_crf(expected, picture(index))
            np.testing.assert_allclose(probs, expected, atol=1e-5)
            label = images.load_mask(run_dir / f"{name}_labels/{image_id}.png")
            np.testing.assert_array_equal(label, class_ids[expected.argmax(-1)])
            again = crf_label(CLASS_IDS[index], stored, picture(index), power)
            assert again.dtype == np.uint8
            np.testing.assert_array_equal(label, again)
    low, high = (
        images.load_mask(run_dir / f"{name}_labels/a.png") for name in ("crf_low", "crf_high")
    )
    assert 0 < (low > 0).sum() < (high > 0).sum()  # a higher power leaves less background
    assert not images.load_mask(run_dir / "crf_low_labels/c.png").any()


def test_two_processes_write_the_same_bytes(run_dir):
    crf_source(source(), run_dir, processes=1)
    one = files(run_dir)
    assert len(one) == 12
    assert crf_source(source(), run_dir, processes=2, overwrite=True) == (3, 0)
    assert files(run_dir) == one


def test_stage_goes_on_where_it_stopped(run_dir):
    crf_source(source(), run_dir, processes=1)
    complete = files(run_dir)
    assert crf_source(source(), run_dir) == (0, 3)
    (run_dir / "crf_high/sub/b.png").unlink()
    (run_dir / "crf_low_labels/c.png").unlink()
    assert crf_source(source(), run_dir, processes=1) == (2, 1)
    assert files(run_dir) == complete
    # New CAMs make the files out of date.
    run_folder.save_cams(run_dir / "cams", "a", [1, 3], cams(0)[::-1])
    os.utime(run_dir / "cams/a.npz", (2e9, 2e9))
    assert crf_source(source(), run_dir, processes=1) == (1, 2)
    assert files(run_dir)["crf_low/a.png"] != complete["crf_low/a.png"]


def test_cam_files_that_do_not_serve(run_dir):
    path = run_dir / "cams/sub/b.npz"
    run_folder.save_cams(run_dir / "cams", "sub/b", [2], np.zeros((1, 9, 17)))
    with pytest.raises(UserError, match=r"b\.npz: its CAMs are 9x17, the image is 17x9"):
        crf_source(source(), run_dir, processes=2)
    run_folder.save_cams(run_dir / "cams", "sub/b", [2], np.full((1, 17, 9), np.nan))
    with pytest.raises(UserError, match=r"b\.npz: .* no numbers"):
        crf_source(source(), run_dir, processes=1)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"b\.npz: cannot be read as a CAM file"):
        crf_source(source(), run_dir, processes=1)
    path.unlink()
    with pytest.raises(UserError, match=r"1 of 3 images of split 'all'.*b\.npz"):
        crf_source(source(), run_dir)


def test_parameters_reach_the_crf(run_dir):
    refine(run_dir, "a", picture(0), CAM_CRF)
    blurred = png.load_probabilities(run_dir / "crf_low/a.png")[1]
    refine(run_dir, "a", picture(0), CAM_CRF.scaled(30), powers=(4, 24))
    assert np.abs(png.load_probabilities(run_dir / "crf_low/a.png")[1] - blurred).max() > 0.1


def test_powers_reach_the_crf(run_dir):
    crf_source(source(), run_dir, processes=1)
    first = files(run_dir)
    crf_source(source(), run_dir, processes=1, powers=(24, 30), overwrite=True)
    second = files(run_dir)
    assert second["crf_low/a.png"] == first["crf_high/a.png"]
    assert second["crf_high/a.png"] != first["crf_high/a.png"]


def test_pool_keeps_order_and_reads_little_ahead():
    taken = []

    def arguments():
        for i in range(12):
            taken.append(i)
            yield (i, 3)

    results = map_in_processes(pow, arguments(), processes=2)
    assert next(results) == 0
    assert len(taken) <= 5
    assert list(results) == [i**3 for i in range(1, 12)]


def test_killed_worker_is_named():
    with pytest.raises(UserError, match="a worker process of 2 ended"):
        list(map_in_processes(os._exit, [(1,), (1,)], processes=2))


def test_error_of_a_worker_comes_back():
    with pytest.raises(ZeroDivisionError):
        list(map_in_processes(divmod, [(1, 1), (1, 0), (1, 1)], processes=2))
