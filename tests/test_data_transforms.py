import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from wsss_tf import ops
from wsss_tf.data import pillow_arithmetic, transforms


def picture(height=61, width=94, seed=0):
    """Smooth colour fields with noise on them: saturated, grey, dark and bright parts."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = generator.normal(0, 6, (height, width, 3))
    values = np.clip(np.array(smooth) + noise, 0, 255).astype(np.uint8)
    values[:8, :8] = values[:8, :8, :1]  # grey
    values[-5:, -5:] = 0
    values[-5:, :5] = 255
    return values


def in_graph(transform, example):
    """Return a function of a seed that runs as tf.data does, once and for all traced.

    The transforms must not depend on static sizes.
    """
    element = {key: tf.convert_to_tensor(value) for key, value in example.items()}
    shapes = {"image": [None, None, 3], "mask": [None, None]}
    signature = {
        key: tf.TensorSpec(shapes.get(key, value.shape), value.dtype)
        for key, value in element.items()
    }
    run = tf.function(
        transform, autograph=False, input_signature=[signature, tf.TensorSpec([2], tf.int32)]
    )
    return lambda seed: {k: v.numpy() for k, v in run(element, tf.constant(seed)).items()}


def apply_in_graph(transform, example, seed):
    return in_graph(transform, example)(seed)


# === Sizes ===


def test_resizes_in_a_graph():
    image = picture()
    expected = pillow_arithmetic.resized_bicubic(image, np.int32([85, 131]))
    resize = transforms.random_long_side(131, 131)
    np.testing.assert_array_equal(
        apply_in_graph(resize, {"image": image}, [1, 2])["image"], expected
    )


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [((375, 500), 448, (336, 448)), ((500, 375), 767, (767, 575)), ((5, 2), 1, (1, 1))],
)
def test_short_side_rounds_half_to_even(size, long_side, expected):
    transform = transforms.random_long_side(long_side, long_side)
    resized = transform({"image": tf.zeros([*size, 3], tf.uint8)}, [0, 0])["image"]
    assert tuple(resized.shape[:2]) == expected


# === Random decisions ===


def test_long_side_covers_the_closed_range():
    transform = tf.function(transforms.random_long_side(20, 24), autograph=False)
    image = tf.zeros([30, 50, 3], tf.uint8)
    sides = [transform({"image": image}, tf.constant([0, i]))["image"].shape[1] for i in range(80)]
    assert set(sides) == {20, 21, 22, 23, 24}


def test_crop_offsets_are_uniform_over_both_ends():
    crop = tf.function(transforms.random_crop(4), autograph=False)
    image = np.zeros((3, 6, 1), np.float32) + np.arange(1.0, 7.0, dtype=np.float32)[:, None]
    image = np.concatenate([image, image, image], -1) + 10 * np.arange(1, 4)[:, None, None]
    seen = []
    for i in range(200):
        cut = crop({"image": tf.constant(image, tf.float32)}, tf.constant([3, i]))["image"].numpy()[
            ..., 0
        ]
        rows = np.flatnonzero(cut[:, 0])
        assert len(rows) == 3  # the whole height is kept, one row of zeros is added
        np.testing.assert_array_equal(cut[rows], image[:, int(cut[rows[0], 0]) - 11 :, 0][:, :4])
        seen.append((int(rows[0]), int(cut[rows[0], 0]) - 11))
    places, counts = np.unique(seen, axis=0, return_counts=True)
    assert [tuple(place) for place in places] == [(r, c) for r in (0, 1) for c in (0, 1, 2)]
    assert counts.min() > 15


def test_mask_follows_the_image():
    """The mask is made of the image, so what was done to one can be seen in the other."""
    mask = (np.indices((40, 60)).sum(0) // 7 % 5).astype(np.uint8)
    image = np.stack([mask * 40] * 3, -1)
    transform = transforms.compose(
        transforms.random_long_side(45, 80), transforms.random_flip, transforms.random_crop(64)
    )
    run = in_graph(transform, {"image": image, "mask": mask})
    for i in range(6):
        result = run([5, i])
        outside = result["mask"] == 255
        assert outside.any()
        assert not result["image"][outside].any()
        inside = ~outside & (result["image"][..., 0] % 40 == 0)  # off the edges between classes
        assert inside.mean() > 0.1
        close = np.abs(result["image"][..., 0] / 40.0 - result["mask"]) < 0.5
        assert close[~outside].mean() > 0.85
        assert (result["image"][..., 0] // 40 == result["mask"])[inside].mean() > 0.97


def test_flip_is_a_fair_coin():
    image = tf.constant(picture()[20:23, 20:25])
    flip = tf.function(transforms.random_flip, autograph=False)
    flipped = 0
    for i in range(100):
        result = flip({"image": image}, tf.constant([9, i]))["image"].numpy()
        if not np.array_equal(result, image):
            np.testing.assert_array_equal(result, image[:, ::-1])
            flipped += 1
    assert 35 <= flipped <= 65


def recorded_jitter(monkeypatch, count):
    """Return operations and amounts, [count, 4] each, in the order in which they were applied."""
    calls = []

    def record(image, operations, amounts):
        calls.append((operations, amounts))
        return image

    monkeypatch.setattr(pillow_arithmetic, "changed_colors", record)
    jitter = in_graph(transforms.color_jitter(0.3, 0.1), {"image": picture(2, 3)})
    for i in range(count):
        jitter([1, i])
    return [np.array(column) for column in zip(*calls)]


def test_jitter_applies_the_four_operations_in_every_order(monkeypatch):
    operations, _ = recorded_jitter(monkeypatch, 300)
    assert len(np.unique(operations, axis=0)) == 24
    assert (np.sort(operations) == range(4)).all()


def test_jitter_amounts_fill_their_ranges(monkeypatch):
    operations, amounts = recorded_jitter(monkeypatch, 100)
    for operation in range(4):
        low, high = (-0.1, 0.1) if operation == pillow_arithmetic.HUE else (0.7, 1.3)
        found = np.sort(amounts[operations == operation])
        assert low <= found[0] < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < found[-1] <= high + 1e-6


def test_jitter_changes_colors_in_a_graph():
    image = picture()
    result = apply_in_graph(transforms.color_jitter(0.0, 0.5), {"image": image}, [3, 4])["image"]
    hue = np.int32([pillow_arithmetic.HUE])
    turned = [
        pillow_arithmetic.changed_colors(image, hue, np.float32([steps / 254.9]))
        for steps in range(-127, 128)
    ]
    assert sum(np.array_equal(result, other) for other in turned) == 1
    assert not np.array_equal(result, image)


# === The whole ===


def test_seam_augmentation():
    example = {
        "id": "a",
        "image": picture(),
        "labels": np.float32([0, 1]),
        "mask": np.ones((61, 94), np.uint8),
    }
    augment = transforms.seam_augmentation(60, 120, crop_size=72)
    run = in_graph(augment, example)
    result = run([1, 1])
    assert result["image"].shape == (72, 72, 3)
    assert result["image"].dtype == np.float32
    assert result["id"] == b"a"
    np.testing.assert_array_equal(result["labels"], example["labels"])
    np.testing.assert_array_equal(result["mask"] == 255, ~result["image"].any(-1))
    again = apply_in_graph(augment, example, [1, 1])
    np.testing.assert_array_equal(again["image"], result["image"])
    eager = augment({key: tf.constant(value) for key, value in example.items()}, [1, 1])
    # Eager and graph mode may fuse the normalisation differently.
    np.testing.assert_allclose(eager["image"], result["image"], atol=1e-6)
    other = run([1, 2])
    assert not np.array_equal(other["image"], result["image"])
    without_mask = {key: value for key, value in example.items() if key != "mask"}
    assert set(apply_in_graph(augment, without_mask, [1, 1])) == {"id", "image", "labels"}


def test_nothing_random_left_is_only_normalised():
    image = picture(48, 48)
    augment = transforms.seam_augmentation(48, 48, crop_size=48, jitter=0, hue=0, flip=False)
    result = apply_in_graph(augment, {"image": image}, [0, 7])["image"]
    np.testing.assert_allclose(result, ops.normalize_image(image), atol=1e-6)


def test_augments_inside_a_dataset():
    augment = transforms.seam_augmentation(30, 60, crop_size=40)

    @tf.autograph.experimental.do_not_convert
    def example(i):
        return augment({"image": tf.constant(picture())}, tf.stack([0, tf.cast(i, tf.int32)]))

    dataset = tf.data.Dataset.range(4).map(example)
    assert dataset.element_spec["image"].shape == (40, 40, 3)
    values = [element["image"].numpy() for element in dataset]
    assert np.isfinite(values).all()
    assert np.std([value.mean() for value in values]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_long_side": 9, "max_long_side": 8}, "long side from 9 to 8"),
        ({"min_long_side": 0}, "long side from 0"),
        ({"crop_size": 0}, "crop_size = 0"),
        ({"jitter": 1.5}, "jitter = 1.5"),
        ({"hue": 0.6}, "hue = 0.6"),
    ],
)
def test_wrong_arguments_are_found_when_the_pipeline_is_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        transforms.seam_augmentation(**arguments)
