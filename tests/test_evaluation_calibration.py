"""The background threshold by some masks, as a function and as a command."""

import json

import numpy as np
import pytest
from as_user import ok, run, user_error
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.evaluation.calibration import choose_by_colours, choose_by_masks
from wsss_tf.evaluation.threshold_sweep import Sweep, confusions
from wsss_tf.files import png
from wsss_tf.files.cam_record import CamRecord, PictureFiles, load_record, save_record
from wsss_tf.files.run_folder import RunFolder, save_cams

NAMES = ("background", "cat", "dog")


def example(number, rim=0.25):
    """A picture with one object of 0.8, a rim of `rim` around it that is background, and noise."""
    rng = np.random.default_rng(number)
    class_id = 1 + number % 2
    maps = rng.uniform(0, 0.1, (1, 12, 16))
    maps[0, 2:10, 3:13] = rim
    maps[0, 4:8, 5:11] = 0.8
    mask = np.zeros((12, 16), np.uint8)
    mask[4:8, 5:11] = class_id
    mask[0] = 255
    return f"{number}.png", [class_id], maps, mask


def test_the_threshold_lies_between_what_is_object_and_what_is_not():
    examples = [example(number, rim=0.2 + 0.02 * number) for number in range(6)]
    chosen = choose_by_masks(examples, NAMES)
    assert (chosen.threshold, chosen.miou, chosen.num_images) == (0.3, 1.0, 6)
    assert chosen.miou_interval == (1.0, 1.0)
    # A drawing without the picture of the widest rim is content with less.
    low, high = chosen.threshold_interval
    assert 0.2 <= low < 0.3 == high
    assert chosen.missing_classes == ()
    assert choose_by_masks(examples, NAMES) == chosen


def test_the_interval_narrows_with_more_pictures():
    def width(count):
        examples = []
        for number in range(count):
            name, ids, maps, mask = example(number)
            flipped = np.random.default_rng(100 + number).uniform(size=mask.shape) < 0.1
            examples.append((name, ids, maps, np.where(flipped & (mask == 0), ids[0], mask)))
        low, high = choose_by_masks(examples, NAMES).miou_interval
        return high - low

    assert width(40) < 0.6 * width(5)


def test_a_class_that_no_mask_shows_is_named():
    chosen = choose_by_masks([example(0), example(2)], NAMES)
    assert chosen.missing_classes == ("dog",)
    assert chosen.miou == 1  # of background and cat


def test_without_a_known_pixel_nothing_is_chosen():
    name, ids, maps, mask = example(0)
    assert choose_by_masks([(name, ids, maps, np.full_like(mask, 255))], NAMES) is None
    with pytest.raises(UserError, match=r"0\.png, scored .* 7"):
        choose_by_masks([(name, ids, maps, np.full_like(mask, 7))], NAMES)


def coloured(number, threshold):
    """A picture whose object has other colours, and maps that reach `threshold` at its border."""
    rng = np.random.default_rng(number)
    distance = np.hypot(*np.mgrid[-15:15, -20:20]) / 25
    maps = np.clip(1 - distance + rng.normal(0, 0.03, distance.shape), 0, 1)
    is_object = 1 - distance > threshold
    image = np.where(is_object[..., None], (200, 120, 40), (60, 120, 180))
    return (image + rng.integers(-40, 41, image.shape)).clip(0, 255).astype(np.uint8), maps[None]


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 0.8])
def test_without_masks_the_border_of_the_colours_counts(threshold):
    examples = [
        (image, [1 + number % 2], maps)
        for number in range(6)
        for image, maps in [coloured(number, threshold)]
    ]
    chosen, count = choose_by_colours(examples)
    assert chosen == pytest.approx(threshold, abs=0.04)
    assert count == 6
    nothing = (examples[0][0], [], np.zeros((0, 30, 40)))
    assert choose_by_colours([*examples, nothing]) == (chosen, 6)
    assert choose_by_colours([nothing]) is None


def test_a_picture_of_one_colour_and_flat_maps_say_nothing():
    grey, maps = np.full((8, 9, 3), 128, np.uint8), np.full((1, 8, 9), 0.5)
    image, own = coloured(0, 0.6)
    alone = choose_by_colours([(image, [1], own)])
    with_them = choose_by_colours(
        [(image, [1], own), (grey, [1], own[:, :8, :9]), (grey, [2], maps)]
    )
    assert with_them == (alone[0], 3)


def test_confusion_matrices_of_several_histograms():
    sweeps = [Sweep(3), Sweep(3)]
    for number, sweep in enumerate(sweeps):
        sweep.update(*example(number)[1:])
    together = confusions(np.stack([sweep.histogram for sweep in sweeps]))
    assert together.shape == (2, 60, 3, 3)
    for one, sweep in zip(together, sweeps):
        np.testing.assert_array_equal(one, sweep.confusion())


@pytest.fixture
def folder(tmp_path):
    """CAMs of eight pictures, and masks of five."""
    ids = [f"p {number}" for number in range(8)]
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_class_names(NAMES)
    for number, image_id in enumerate(ids):
        _, class_ids, maps, mask = example(number)
        save_cams(folder.cams, image_id, class_ids, maps)
        Image.new("RGB", (16, 12)).save(tmp_path / f"{image_id}.png")
        if number < 5:
            png.save_mask(tmp_path / f"masks/{image_id}.png", mask)
    paths = tuple(str(tmp_path / f"{image_id}.png") for image_id in ids)
    pictures = PictureFiles("all", tuple(ids), paths)
    save_record(folder, CamRecord("all", str(folder.path), (), 0.1, None, pictures))
    return folder


def calibrate(folder, masks, *more):
    return run("calibrate", f"--run_dir={folder.path}", "--split=all", f"--masks={masks}", *more)


def test_what_was_chosen_is_kept_for_what_follows(folder):
    masks = folder.path.parent / "masks"
    result = calibrate(folder, masks)
    assert result.returncode == 0, result.stderr
    assert "threshold 0.25, by 5 masks of split 'all'; it was 0.1. Mean IoU 100.0" in result.stdout
    kept = json.loads(folder.calibration.read_text())
    assert (kept["background_threshold"], kept["miou"]) == (0.25, 1)
    assert load_record(folder, "all").background_threshold == 0.25
    for number in range(8):
        label = np.asarray(Image.open(folder.pseudo_label(f"p {number}")))
        np.testing.assert_array_equal(label > 0, example(number)[2][0] > 0.5)
    # The dense CRF follows it: its powers are those of the official ones for this threshold.
    out = ok("refine", f"--run_dir={folder.path}", "--split=all", "--crf_processes=1")
    assert "8 written" in out


def test_without_masks_the_colours_choose(folder):
    for number in range(8):
        image, maps = coloured(number, 0.6)
        save_cams(folder.cams, f"p {number}", [1], maps)
        Image.fromarray(image).save(folder.path.parent / f"p {number}.png")
    out = ok("calibrate", f"--run_dir={folder.path}", "--split=all")
    kept = json.loads(folder.calibration.read_text())
    assert kept["background_threshold"] == pytest.approx(0.6, abs=0.04)
    assert kept["chosen_by"] == "the colours of 8 pictures of split 'all'"
    assert kept["miou"] is None
    assert "--masks=FOLDER" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda masks: masks.rename(masks.with_name("moved")), ["--masks=", "no such folder"]),
        (lambda masks: [path.unlink() for path in masks.iterdir()], ["no PNG file"]),
        (
            lambda masks: [path.rename(masks / f"x{path.name}") for path in masks.iterdir()],
            ["none of its 5 PNG files", "'p 0.png'", "'xp 0.png'"],
        ),
        (
            lambda masks: png.save_mask(masks / "p 1.png", np.zeros((5, 5), np.uint8)),
            ["p 1.npz", "5x5"],
        ),
        (
            lambda masks: [
                png.save_mask(path, np.full((12, 16), 255, np.uint8)) for path in masks.iterdir()
            ],
            ["all 255"],
        ),
    ],
    ids=["no folder", "empty", "names", "size", "ignored"],
)
def test_masks_that_cannot_be_used(folder, change, words):
    masks = folder.path.parent / "masks"
    change(masks)
    user_error(calibrate(folder, masks), *words)
    assert not folder.calibration.exists()
