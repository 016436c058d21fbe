"""Pseudo labels on Apache Beam: the plain command's files, whatever is the matter with some."""

import contextlib
import io
import json
import tarfile

import numpy as np
import pytest
from as_user import ROOT, ok, run, user_error
from PIL import Image
from untrained_run import untrained_run

from wsss_tf.errors import UserError


@pytest.fixture(scope="module")
def beam_labels():
    """The module, which takes a second to import, of the one worker that has this file."""
    pytest.importorskip("apache_beam", reason="skipped: apache-beam is not installed")
    from wsss_tf.inference import beam_labels

    return beam_labels


SIZES = ((12, 17), (19, 10), (9, 21))
COUNT, BAD = 120, 6
EVERY = COUNT // BAD  # of so many pictures one is bad


@pytest.fixture(scope="module")
def folder(tmp_path_factory, beam_labels):
    """Two runs, and a folder of pictures of which some cannot be read."""
    folder = tmp_path_factory.mktemp("beam")
    names = ("background", "cat", "dog")
    untrained_run(folder / "run", names, "gin/seam.gin", str(ROOT / "tests/data/tiny.gin"))
    affinity = ("gin/affinity.gin", str(ROOT / "tests/data/tiny_affinity.gin"))
    untrained_run(folder / "affinity", names, *affinity)
    rng = np.random.default_rng(0)
    for name in ("good", "all"):
        (folder / name / "sub").mkdir(parents=True)
    for i in range(COUNT):
        shape = (*SIZES[i % len(SIZES)], 3)
        name = f"sub/p{i:03}.png" if i % 7 == 0 else f"p{i:03}.jpg"
        path = folder / "all" / name
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)
        contents = path.read_bytes()
        if i % EVERY == 3:
            cut = (i // EVERY) * len(contents) // (2 * BAD)  # from an empty file to half of one
            path.write_bytes(contents[:cut])
        else:
            (folder / "good" / name).write_bytes(contents)
    return folder


def arguments(folder):
    return (
        f"--run_dir={folder / 'run'}",
        "--scales=1",
        "--label_threshold=0",
        "--crf",
        "--crf_powers=5,20",
        "--random_walk",
        f"--affinity_run={folder / 'affinity'}",
        "--walk_steps=4",
    )


@pytest.mark.large
def test_pictures_of_which_some_are_bad(folder, beam_labels):
    plain, scaled = folder / "plain", folder / "scaled"
    # Single bits depend on how many pictures run together; on the workers each runs alone.
    alone = (f"--input={folder / 'good'}", f"--output={plain}", "--batch_size=1")
    ok("infer", *arguments(folder), *alone)
    job = (
        "infer",
        *arguments(folder),
        f"--input={folder / 'all'}/**",
        f"--output={scaled}",
        "--runner=DirectRunner",
        "--images_per_archive=50",
    )
    workers = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    out = ok(*job, *workers)
    assert f"{COUNT - BAD} images labelled, {BAD} bad" in out
    result = json.loads((scaled / "labelling.json").read_text())
    assert (result["images"], result["bad_images"], result["archives"]) == (COUNT - BAD, BAD, 3)
    assert 1 <= result["networks_loaded"] <= 2  # once a worker, not once a picture
    assert set(result["seconds_by_stage"]) == {"read", "cams", "crf", "walk", "archive"}
    assert result["images_per_second"] > 0

    bad = [json.loads(line) for line in (scaled / "bad_images.jsonl").read_text().splitlines()]
    assert {one["id"] for one in bad} == {
        f"sub/p{i:03}" if i % 7 == 0 else f"p{i:03}" for i in range(3, COUNT, EVERY)
    }
    assert {one["error"] for one in bad} >= {"InvalidArgumentError: Input is empty."}
    assert all(one["error"] and one["path"].startswith(str(folder / "all")) for one in bad)

    archives = sorted(scaled.glob("labels-*.tar"))
    assert [path.name for path in archives] == [f"labels-{i:05}-of-00003.tar" for i in range(3)]
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(folder / "unpacked", filter="data")
    found = {
        name: {
            path.relative_to(folder / name).as_posix(): path.read_bytes()
            for path in (folder / name).rglob("*")
            if path.suffix in (".npz", ".png")
        }
        for name in ("plain", "unpacked")
    }
    assert len(found["plain"]) == (COUNT - BAD) * 7
    assert found["unpacked"].keys() == found["plain"].keys()
    different = [name for name, data in found["plain"].items() if found["unpacked"][name] != data]
    assert not different

    options = beam_labels.LabelOptions(num_classes=2)
    again = (None, options, [("a", "a.png", None)], str(scaled), "DirectRunner")
    with pytest.raises(UserError, match=r"an earlier job wrote here.*--overwrite"):
        beam_labels.run(*again)
    with pytest.raises(UserError, match="--direct_num_worker: Beam knows no such option"):
        beam_labels.run(*again, ["--direct_num_worker=2"], overwrite=True)
    assert len(list(scaled.glob("labels-*.tar"))) == 3  # refused before anything is removed


def test_mistakes_end_in_one_line(folder, tmp_path):
    job = ("infer", f"--run_dir={folder / 'run'}", "--runner=DirectRunner")
    user_error(run(*job, f"--input={folder / 'all'}"), "--output")
    nothing = f"--input={folder / 'run'}/**"
    user_error(run(*job, nothing, f"--output={tmp_path / 'out'}"), "no image", "matches")


def test_pictures_of_a_split_keep_their_labels(folder, tmp_path, beam_labels):
    from wsss_tf.data.folder import folder_source
    from wsss_tf.runs import infer_beam

    rows = ["image,labels", *(f"{name},dog" for name in ("a", "b"))]
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes((folder / "good/p001.jpg").read_bytes())
    (tmp_path / "image_labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "class_names.txt").write_text("background\ncat\ndog\n")
    pictures = infer_beam.pictures(folder_source(root=tmp_path), None)
    assert pictures == [(name, str(tmp_path / f"{name}.jpg"), [2]) for name in ("a", "b")]

    maps = {"method": "gradcam", "cam_output": "cam_rv", "scales": (1.0,), "flip": False}
    compute, affinity = infer_beam.load(folder / "run", "last", maps, None)
    options = beam_labels.LabelOptions(num_classes=2)
    files = beam_labels.Labeller(compute, affinity, options).files(
        "x/a", (tmp_path / "a.jpg").read_bytes(), [2], lambda stage: contextlib.nullcontext()
    )
    assert sorted(files) == ["cams/x/a.npz", "pseudo_labels/x/a.png"]
    with np.load(io.BytesIO(files["cams/x/a.npz"])) as arrays:
        assert arrays["class_ids"].tolist() == [2]
        assert arrays["cams"].shape == (1, 19, 10)


def test_large_pictures_give_the_plain_commands_files(folder, tmp_path, beam_labels):
    from wsss_tf.data.folder import pictures_source
    from wsss_tf.inference.write_cams import label_source
    from wsss_tf.inference.write_walk import walk_source
    from wsss_tf.runs import infer_beam

    picture = np.random.default_rng(1).integers(0, 255, (75, 110, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in/a.png")
    maps = {"method": "cam", "cam_output": "cam_rv", "scales": (1.0,), "flip": False}
    compute, affinity = infer_beam.load(folder / "run", "last", maps, folder / "affinity")
    options = beam_labels.LabelOptions(
        num_classes=2, label_threshold=0, walk={"steps": 4}, cam_folder="cam_stage", max_side=50
    )
    files = beam_labels.Labeller(compute, affinity, options).files(
        "a", (tmp_path / "in/a.png").read_bytes(), None, lambda stage: contextlib.nullcontext()
    )
    source = pictures_source(tmp_path / "in", ("background", "cat", "dog"))
    cam_run = tmp_path / "out/cam_stage"
    label_source(compute, source, cam_run, label_threshold=0, max_side=50)
    walk_source(affinity, source, cam_run, tmp_path / "out", steps=4, max_side=50)
    assert set(files) == {
        "cam_stage/cams/a.npz", "cam_stage/pseudo_labels/a.png", "pseudo_labels/a.png"
    }  # fmt: skip
    for name, data in files.items():
        assert data == (tmp_path / "out" / name).read_bytes(), name
    with Image.open(tmp_path / "out/pseudo_labels/a.png") as label:
        assert label.size == (110, 75)
