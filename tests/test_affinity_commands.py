"""From CAMs over the CRF and AffinityNet to pseudo labels, as a user runs it."""

import json
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from as_user import ENVIRONMENT, ROOT, command, ok, run, start, user_error
from PIL import Image
from scores_by_hand import masks_of, mean_iou
from untrained_run import untrained_run

from wsss_tf.data.folder import pictures_source
from wsss_tf.data.shapes import shapes_source
from wsss_tf.files import images, png, run_folder
from wsss_tf.files.cam_record import make_record, save_record
from wsss_tf.inference.write_crf import crf_source
from wsss_tf.runs import refine

AFFINITY_FILES = ("gin/affinity.gin", str(ROOT / "tests/data/tiny_affinity.gin"))
AFFINITY = tuple(f"--gin_file={path}" for path in AFFINITY_FILES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, seam_run):
    """A folder with a finished CAM run, its CRF maps, and AffinityNet as it is before training."""
    folder = tmp_path_factory.mktemp("runs")
    cam_run, affinity_run = folder / "cam", folder / "affinity"
    shutil.copytree(seam_run, cam_run)
    out = ok("infer", f"--run_dir={cam_run}", "--split=train", "--scales=1", "--crf")
    assert "dense CRF: 12 written, 0 kept" in out
    class_names = run_folder.RunFolder(cam_run).read_class_names()
    untrained_run(affinity_run, class_names, *AFFINITY_FILES)
    return folder


def test_crf_files_agree_with_the_cams(folder):
    cam_run = folder / "cam"
    for i in range(12):
        image_id = f"shapes_train_{i:05}"
        class_ids, cams = run_folder.load_cams(cam_run / "cams", image_id)
        for name in ("crf_low", "crf_high"):
            ids, probs = png.load_probabilities(cam_run / name / f"{image_id}.png")
            assert ids.tolist() == [0, *class_ids]
            assert probs.shape[:2] == cams.shape[1:]
            np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-3)
            label = images.load_mask(cam_run / f"{name}_labels" / f"{image_id}.png")
            np.testing.assert_array_equal(label, ids[probs.argmax(-1)])


def contents(*folders):
    """Return {name: bytes} of the PNGs below folders, each without its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*.png"))
    }


def crf_files(folder):
    return {
        f"{name}/{path}": data
        for name in ("crf_low", "crf_high", "crf_low_labels", "crf_high_labels")
        for path, data in contents(folder / name).items()
    }


def test_refine_gives_the_files_of_infer(folder):
    """Of drawn pictures, which need the recipe."""
    cam = (f"--run_dir={folder / 'cam'}", "--split=train")
    before = crf_files(folder / "cam")
    assert len(before) == 48
    assert "dense CRF: 0 written, 12 kept" in ok("refine", *cam)
    assert "dense CRF: 12 written, 0 kept" in ok("refine", *cam, "--overwrite")
    assert crf_files(folder / "cam") == before


def test_random_walk_and_its_score(folder):
    arguments = (
        f"--run_dir={folder / 'cam'}",
        "--split=train",
        "--scales=1",
        "--random_walk",
        f"--affinity_run={folder / 'affinity'}",
        "--walk_steps=4",
    )
    before = {p: p.read_bytes() for p in (folder / "cam/pseudo_labels").iterdir()}
    assert "random walk: 12 written, 0 kept" in ok("infer", *arguments)
    labels = sorted((folder / "affinity/pseudo_labels").iterdir())
    assert [p.name for p in labels] == [f"shapes_train_{i:05}.png" for i in range(12)]
    assert {p: p.read_bytes() for p in (folder / "cam/pseudo_labels").iterdir()} == before
    for path in labels:
        class_ids, cams = run_folder.load_cams(folder / "cam/cams", path.stem)
        label = images.load_mask(path)
        assert label.shape == cams.shape[1:]
        assert set(np.unique(label)) <= {0, *class_ids}
    labels[3].unlink()
    assert "random walk: 1 written, 11 kept" in ok("infer", *arguments, "--walk_crf")
    before = contents(folder / "affinity/pseudo_labels")
    before.pop(labels[3].name)  # of --walk_crf
    arguments = [argument for argument in arguments if argument.startswith(("--run", "--split"))]
    affinity = (f"--affinity_run={folder / 'affinity'}", "--walk_steps=4")
    out = ok("walk", *arguments, *affinity, f"--output={folder / 'walked'}")
    assert "random walk: 12 written, 0 kept" in out
    after = contents(folder / "walked/pseudo_labels")
    assert after.keys() - before.keys() == {labels[3].name}
    assert before.items() <= after.items()

    source = shapes_source("train", num_train=12, num_val=6, image_size=48)
    masks = masks_of(source)
    for image_id, mask in zip(source.ids, masks):
        images.save_mask(folder / f"masks/{image_id}.png", mask)
    ok(
        "evaluate",
        f"--predictions={folder / 'affinity/pseudo_labels'}",
        f"--masks={folder / 'masks'}",
        f"--class_names={folder / 'cam/class_names.txt'}",
        f"--output={folder / 'metrics.json'}",
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_images"] == 12
    found = [images.load_mask(path) for path in labels]
    assert metrics["miou"] == pytest.approx(mean_iou(masks, found, 5), abs=1e-9)


@pytest.mark.large
def test_random_walk_of_a_folder_of_pictures(folder, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    Image.fromarray(rng.integers(0, 255, (37, 45, 3), dtype=np.uint8)).save(tmp_path / "in/a.png")
    Image.fromarray(rng.integers(0, 255, (1, 30, 3), dtype=np.uint8)).save(tmp_path / "in/b.png")
    Image.fromarray(rng.integers(0, 255, (90, 67, 3), dtype=np.uint8)).save(tmp_path / "in/c.png")
    ok(
        "infer",
        f"--run_dir={folder / 'cam'}",
        f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}",
        "--label_threshold=0",
        "--scales=1",
        "--max_side=48",
        "--crf",
        "--random_walk",
        f"--affinity_run={folder / 'affinity'}",
    )
    assert images.load_mask(tmp_path / "out/pseudo_labels/a.png").shape == (37, 45)
    assert images.load_mask(tmp_path / "out/pseudo_labels/b.png").shape == (1, 30)
    assert images.load_mask(tmp_path / "out/pseudo_labels/c.png").shape == (90, 67)
    assert (tmp_path / "out/cam_stage/cams/a.npz").is_file()
    ids, probs = png.load_probabilities(tmp_path / "out/cam_stage/crf_high/c.png")
    assert probs.shape == (90, 67, len(ids))

    # The same from the CAMs alone, of which the record beside them tells all that is needed.
    shutil.copytree(tmp_path / "out/cam_stage/cams", tmp_path / "again/cams")
    cams = (f"--run_dir={tmp_path / 'again'}", "--split=all")
    ok("refine", *cams)
    assert crf_files(tmp_path / "again") == crf_files(tmp_path / "out/cam_stage")
    walked = tmp_path / "walked"
    ok("walk", *cams, f"--affinity_run={folder / 'affinity'}", f"--output={walked}")
    labels = contents(tmp_path / "out/pseudo_labels")
    assert len(labels) == 3
    assert contents(walked / "pseudo_labels") == labels


def children(pid):
    """Return the ids of the processes below one, Linux only."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(child)]
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.large
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_killed_crf_stage_goes_on(folder, tmp_path):
    arguments = (
        f"--run_dir={folder / 'cam'}",
        "--split=train",
        f"--output={tmp_path}",
        "--scales=1",
        "--noflip",
        "--gin_bindings=shapes_source.num_train=24",
        "--gin_bindings=shapes_source.image_size=128",
        "--crf",
        "--crf_processes=2",
    )
    done = kill_at_first_map(tmp_path, start("infer", *arguments))
    out = ok("infer", *arguments)
    assert f"dense CRF: {24 - done} written, {done} kept" in out
    check_maps(tmp_path, 24)


@pytest.mark.large
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_killed_refine_goes_on_without_tensorflow(tmp_path):
    stub = tmp_path / "stub/tensorflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('TensorFlow is not wanted here')")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{stub.parent}:{ENVIRONMENT['PYTHONPATH']}"}
    run_dir, source = tmp_path / "run", cams_of_files(tmp_path)
    arguments = (f"--run_dir={run_dir}", "--split=all", "--crf_processes=2")
    line, nowhere = command("refine", *arguments), subprocess.DEVNULL
    process = subprocess.Popen(line, env=environment, stdout=nowhere, stderr=nowhere)
    done = kill_at_first_map(run_dir, process)
    result = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert f"dense CRF: {24 - done} written, {done} kept" in result.stdout, result.stderr
    check_maps(run_dir, 24)
    # What infer --crf writes, whose pictures TensorFlow reads.
    found = crf_files(run_dir)
    options = refine.crf_options(background_threshold=0.4)
    assert crf_source(source, run_dir, overwrite=True, processes=2, **options) == (24, 0)
    assert crf_files(run_dir) == found


def cams_of_files(folder):
    """Write pictures of several kinds, and CAM files as inference leaves them."""
    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(24):
        picture = Image.fromarray(rng.integers(0, 255, (80, 96, 3), dtype=np.uint8))
        if i % 3 == 0:
            picture.save(folder / f"in/{i:02}.jpg", exif=turned)
        else:
            picture.convert("P" if i % 3 == 1 else "L").save(folder / f"in/{i:02}.png")
    source = pictures_source(folder / "in", ("background", "x", "y"))
    for i in range(24):
        size = (96, 80) if i % 3 == 0 else (80, 96)
        run_folder.save_cams(folder / "run/cams", f"{i:02}", [1, 2], rng.random((2, *size)))
    save_record(folder / "run", make_record(source, folder, (), 0.4, None))
    return source


def kill_at_first_map(folder, process):
    """Kill a command as soon as the CRF has refined a picture; return how many it has refined."""
    deadline = time.monotonic() + 300
    while not any(folder.glob("crf_high/[!.]*.png")):  # hidden ones are not yet whole
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(map(is_alive, workers)):  # they do not outlive their parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = {path.stem for path in folder.glob("crf_high/[!.]*.png")}
    assert 0 < len(done) < 24
    return len(done)


def check_maps(folder, count):
    for path in folder.glob("crf_*/[!.]*.png"):
        if not path.parent.name.endswith("_labels"):
            png.load_probabilities(path)
    assert len(list(folder.glob("crf_high/[!.]*.png"))) == count


def test_mistakes_end_in_one_line(folder, tmp_path):
    cam = f"--run_dir={folder / 'cam'}"
    user_error(run("infer", cam, "--split=train", "--random_walk"), "--affinity_run")
    walk = ("infer", cam, "--split=train", "--random_walk")
    user_error(run(*walk, f"--affinity_run={tmp_path}"), str(tmp_path), "no config.gin")
    user_error(run(*walk, f"--affinity_run={folder / 'cam'}"), "holds the labels of the CAMs")
    result = run(*walk, f"--affinity_run={folder / 'cam'}", f"--output={tmp_path}")
    user_error(result, "is no run of gin/affinity.gin")
    binding = f"--gin_bindings=with_crf_maps.cam_run='{folder / 'cam'}'"
    stride = "--gin_bindings=affinity_augmentation.stride=16"
    result = run("train", *AFFINITY, binding, stride, f"--run_dir={tmp_path / 'a'}")
    user_error(result, "affinity_augmentation.stride = 8")
    binding = f"--gin_bindings=with_crf_maps.cam_run='{tmp_path}'"
    result = run("train", *AFFINITY, binding, f"--run_dir={tmp_path / 'a'}")
    user_error(result, "24 of 24 files", "wsss_tf.refine")
    result = run("infer", cam, "--split=val", "--crf", "--crf_processes=0")
    user_error(result, "crf_processes")
    user_error(run("infer", cam, "--split=val", "--crf", "--crf_powers=9"), "--crf_powers=9", "two")
    user_error(run("infer", cam, "--split=val", "--crf_powers=3,9"), "without --crf")
    result = run("infer", cam, "--split=val", "--walk_steps=3")
    user_error(result, "--walk_steps means nothing without --random_walk")
    walk = ("walk", cam, "--split=train")
    user_error(run(*walk), "--affinity_run is missing")
    user_error(run(*walk, f"--affinity_run={tmp_path}"), str(tmp_path), "no config.gin")
    result = run(*walk, f"--affinity_run={folder / 'cam'}")
    user_error(result, "holds the labels of the CAMs")
    user_error(run("refine", cam), "--split is missing")
    user_error(run("refine", f"--run_dir={tmp_path}", "--split=all"), "no CAMs", "wsss_tf.infer")
