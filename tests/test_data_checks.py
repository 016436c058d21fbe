import dataclasses
import io
import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from parameters import few_of
from PIL import Image

from wsss_tf.data import checks
from wsss_tf.data.source import Source, file_source, loader
from wsss_tf.errors import UserError
from wsss_tf.files import images

GOOD = np.ones((8, 13), np.int64)


def saved_as(form):
    """Return what turns a JPEG into another format."""

    def convert(contents):
        picture, file = Image.open(io.BytesIO(contents)), io.BytesIO()
        picture.save(file, form)
        return file.getvalue()

    return convert


def cut(contents):
    return contents[: len(contents) // 2]


# What is done to the image file, the mask, the mask file; and the reason that must be given.
FAULTS = {
    "empty": (lambda contents: b"", GOOD, None, "the file is empty"),
    "cut": (cut, GOOD, None, "not a JPEG or PNG, or damaged"),
    "text": (lambda contents: b"<html>" * 20, GOOD, None, "not a JPEG or PNG, or damaged"),
    "webp": (saved_as("WEBP"), GOOD, None, "it is WebP inside"),
    "tiff": (saved_as("TIFF"), GOOD, None, "it is TIFF inside"),
    "bmp": (saved_as("BMP"), GOOD, None, "it is BMP inside"),
    "size": (None, GOOD.T, None, "its mask is 13 x 8, the image 8 x 13"),
    "value": (None, 7 * GOOD, None, "its mask has the value 7, but there are 3 classes"),
    "cut_mask": (None, GOOD, cut, "its mask cannot be decoded"),
    "no_mask": (None, GOOD, lambda contents: b"<html>" * 20, "palette or 8-bit grey PNG"),
}


@pytest.fixture
def make_source(tmp_path):
    """Write images named after what is wrong with them; all others are good."""

    def make(*names, with_masks=True):
        for name in names:
            damage_image, mask, damage_mask, _ = FAULTS.get(name, (None, GOOD, None, None))
            noise = np.random.default_rng(0).integers(0, 256, (8, 13, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
            images.save_mask(tmp_path / f"{name}.png", mask)
            for suffix, damage in ((".jpg", damage_image), (".png", damage_mask)):
                path = tmp_path / (name + suffix)
                if damage:
                    path.write_bytes(damage(path.read_bytes()))
        return file_source(
            name="folder",
            split="train",
            class_names=("background", "a", "b"),
            ids=names,
            labels=[[float(not name.startswith("unlabelled")), 0] for name in names],
            image_paths=[tmp_path / f"{name}.jpg" for name in names],
            mask_paths=[tmp_path / f"{name}.png" for name in names] if with_masks else None,
        )

    return make


def test_every_fault_is_found_and_named(make_source):
    source = make_source("one", *FAULTS, "two")
    good, bad = checks.check(source, skip_bad_images=True)
    assert good.ids == ("one", "two")
    assert [image_id for image_id, _ in bad] == list(FAULTS)
    for image_id, reason in bad:
        assert FAULTS[image_id][-1] in reason
        assert "\n" not in reason
        assert "node" not in reason
    assert good.load(tf.constant(1))["id"] == b"two"


@pytest.mark.parametrize("name", few_of(FAULTS, "cut", "size", "no_mask"))
def test_bad_image_stops_with_its_path(make_source, name, tmp_path):
    source = make_source("one", name)
    with pytest.raises(UserError) as error:
        checks.check(source)
    message = str(error.value)
    assert FAULTS[name][-1] in message
    assert f"image '{name}' ({tmp_path / name}.jpg)" in message
    assert "Recipe.skip_bad_images=True" in message
    assert "\n" not in message


def test_good_source_comes_back_as_it_is(make_source):
    source = make_source("one", "two")
    assert checks.check(source, require_labels=True) == (source, [])


def test_ignored_pixels_are_no_fault(make_source, tmp_path):
    source = make_source("one")
    images.save_mask(tmp_path / "one.png", np.resize([0, 1, 2, 255], (8, 13)))
    assert checks.check(source) == (source, [])


def test_broken_mask_does_not_matter_without_masks(make_source):
    source = make_source("one", "cut_mask", "no_mask", "size", "value").without_masks()
    assert checks.check(source) == (source, [])


def test_missing_file(make_source, tmp_path):
    source = make_source("one", "two")
    (tmp_path / "two.jpg").unlink()
    assert checks.check(source, True)[1] == [("two", "there is no such file")]


def test_missing_label(make_source):
    source = make_source("one", "unlabelled")
    assert checks.check(source) == (source, [])
    with pytest.raises(UserError, match=r"image 'unlabelled' .* it has no label"):
        checks.check(source, require_labels=True)
    good, bad = checks.check(source, skip_bad_images=True, require_labels=True)
    assert (good.ids, bad) == (("one",), [("unlabelled", "it has no label")])


def test_a_negative_needs_no_label(make_source):
    source = dataclasses.replace(make_source("one", "unlabelled"), negative=(False, True))
    assert checks.check(source, require_labels=True) == (source, [])


def test_nothing_good(make_source):
    with pytest.raises(UserError, match=r"all 2 images .* 'empty': the file is empty"):
        checks.check(make_source("empty", "cut"), skip_bad_images=True)


def test_stops_at_the_first_bad_image(make_source, monkeypatch):
    """Thousands of good images behind a bad one are not decoded before the error."""
    decoded = []

    def fault_finder(source):
        def find_fault(position):
            decoded.append(position)
            return "broken" if position == 1 else None

        return find_fault

    monkeypatch.setattr(checks, "_fault_finder", fault_finder)
    source = make_source("a", "b").select([0, 1] * 500)
    with pytest.raises(UserError, match=r"'b' .*broken"):
        checks.check(source)
    assert len(decoded) < 200


def test_bad_images_close_behind_the_first_are_named_with_it(make_source):
    with pytest.raises(UserError) as error:
        checks.check(make_source("one", "cut", "two", "empty"))
    text = str(error.value)
    assert "image 'cut' (" in text
    assert "; 'empty': the file is empty; replace or remove it" in text


# === The memory of files found good ===


def test_cache_spares_decoding_until_a_file_changes(make_source, tmp_path, monkeypatch):
    source = make_source("one", "two", "cut", with_masks=False)
    cache = tmp_path / "run" / "checked.json"
    good, _ = checks.check(source, skip_bad_images=True, cache=cache)
    known = json.loads(cache.read_text())
    assert set(known) == set(good.paths)

    decoded = []
    original = checks._fault_finder

    def fault_finder(source):
        find_fault = original(source)
        return lambda position: decoded.append(source.ids[position]) or find_fault(position)

    monkeypatch.setattr(checks, "_fault_finder", fault_finder)
    assert checks.check(source, True, cache)[0].ids == ("one", "two")
    assert decoded == ["cut"]  # bad files are tried again: they may have been mended
    assert checks.check(good, False, cache) == (good, [])
    assert decoded == ["cut"]

    (tmp_path / "two.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="'two'"):
        checks.check(good, False, cache)
    os.utime(tmp_path / "one.jpg", ns=(1, 1))
    (tmp_path / "two.jpg").write_bytes((tmp_path / "one.jpg").read_bytes())
    decoded.clear()
    assert checks.check(good, False, cache) == (good, [])
    assert sorted(decoded) == ["one", "two"]


def test_cached_image_still_needs_a_label(make_source, tmp_path):
    source = make_source("one", "unlabelled", with_masks=False)
    checks.check(source, cache=tmp_path / "checked.json")
    with pytest.raises(UserError, match="no label"):
        checks.check(source, cache=tmp_path / "checked.json", require_labels=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}'])
def test_damaged_cache_is_replaced(make_source, tmp_path, text):
    source = make_source("one", with_masks=False)
    cache = tmp_path / "checked.json"
    cache.write_text(text)
    assert checks.check(source, cache=cache) == (source, [])
    assert str(tmp_path / "one.jpg") in json.loads(cache.read_text())


def test_masks_are_always_decoded(make_source, tmp_path):
    source = make_source("one")
    checks.check(source, cache=tmp_path / "checked.json")
    images.save_mask(tmp_path / "one.png", 7 * GOOD)
    with pytest.raises(UserError, match="value 7"):
        checks.check(source, cache=tmp_path / "checked.json")


def test_source_in_memory_is_not_read():
    def read(index):
        raise AssertionError("was read")

    source = Source(
        "made", "train", ("background", "a"), ("x", "y"), np.float32([[1], [0]]), read, False
    )
    assert checks.check(source) == (source, [])
    good, bad = checks.check(source, skip_bad_images=True, require_labels=True)
    assert (good.ids, bad) == (("x",), [("y", "it has no label")])


def test_a_file_that_was_replaced_by_one_of_its_size_and_time_is_decoded_again(
    make_source, tmp_path
):
    source, cache = make_source("one", "two", with_masks=False), tmp_path / "cache.json"
    checks.check(source, cache=cache)
    path = tmp_path / "two.jpg"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    with pytest.raises(UserError, match="'two'"):
        checks.check(source, cache=cache)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_not_utf8_is_named_or_skipped(make_source, tmp_path):
    good = tmp_path / "one.jpg"
    make_source("one", with_masks=False)
    name = os.fsdecode(b"caf\xe9")
    odd = tmp_path / f"{name}.jpg"
    odd.write_bytes(good.read_bytes())
    both = file_source(
        "folder", "all", ("background", "cat"), ("one", name), [[1], [1]], (good, odd)
    )
    with pytest.raises(UserError, match=r"its name is not UTF-8 \(caf\\udce9\); rename it"):
        checks.check(both)
    source, bad = checks.check(both, skip_bad_images=True)
    assert source.ids == ("one",)
    assert [image_id for image_id, _ in bad] == [name]
    assert loader(source)(0)["image"].ndim == 3
    with pytest.raises(UserError, match="all 1 images"):
        checks.check(both.select([1]), skip_bad_images=True)
