import numpy as np
import pytest
import tensorflow as tf

from wsss_tf.training.affine import Affine

CENTRE = np.full((2, 4), 0.5, np.float32)  # no rotation, no shift
RANDOM = np.random.default_rng(1).random((2, 4)).astype(np.float32)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def image(height=7, width=7):
    """Return [2, height, width, 3], no pixel like another and none zero."""
    return (1 + np.random.default_rng(0).random((2, height, width, 3))).astype(np.float32)


def moves(angle=0.5, down=0.5, right=0.5):
    """Return random numbers of two examples: 0 for the largest negative move, 1 for positive."""
    return np.tile(np.float32([angle, down, right, 0.3]), (2, 1))


def test_nothing_asked_for_is_the_identity():
    np.testing.assert_array_equal(Affine(rescale=1)(image(), RANDOM), image())


def test_no_rotation_and_no_shift_drawn_is_the_identity():
    close(Affine(rescale=1, rotation=20, translation=15)(image(6, 9), CENTRE), image(6, 9))


@pytest.mark.parametrize(
    ("rescale", "size", "expected"),
    [
        (0.3, (448, 448), (134, 134)),
        (0.3, (40, 50), (12, 15)),
        (0.3, (10, 19), (3, 5)),
        (0.5, (7, 8), (3, 4)),
        (0.7, (90, 91), (62, 63)),  # 90 * 0.7 is 62.99.. in Python and in PyTorch
    ],
)
def test_rescaled_sizes_are_rounded_down(rescale, size, expected):
    affine = Affine(rescale)
    assert affine.size(*size) == expected
    assert [int(n) for n in affine.size(*map(tf.constant, size))] == list(expected)
    assert affine(np.zeros((1, *size, 2), np.float32), CENTRE[:1]).shape == (1, *expected, 2)


def test_rescale_keeps_the_corners():
    y = np.asarray(Affine(0.3)(image(20, 30), RANDOM))
    corners = np.ix_([0, 1], [0, -1], [0, -1])
    close(y[corners], image(20, 30)[corners])


def test_flip_mirrors_left_and_right():
    np.testing.assert_array_equal(
        Affine(rescale=1, flip=True)(image(5, 8), RANDOM), image(5, 8)[:, :, ::-1]
    )


@pytest.mark.parametrize(("angle", "quarter_turns"), [(1, 1), (0, -1)], ids=["left", "right"])
def test_a_quarter_turn(angle, quarter_turns):
    # Counterclockwise for a positive angle, as `np.rot90`.
    y = Affine(rescale=1, rotation=90)(image(), moves(angle=angle))
    close(y, np.rot90(image(), quarter_turns, axes=(1, 2)))


def test_rotation_of_an_oblong_image_is_about_its_centre():
    y = np.asarray(Affine(rescale=1, rotation=90)(image(5, 9), moves(angle=1)))
    close(y[:, :, 2:7], np.rot90(image(5, 9)[:, :, 2:7], axes=(1, 2)))
    close(y[:, :, [0, 1, 7, 8]], np.zeros((2, 5, 4, 3)))


def test_translation_brings_zeros_in():
    x = image(6, 9)
    # The largest shift is 4 pixels: here 2 down and 4 to the left.
    y = Affine(rescale=1, translation=4)(x, moves(down=0.75, right=0))
    expected = np.zeros_like(x)
    expected[:, 2:, :-4] = x[:, :-2, 4:]
    close(y, expected)


def test_order_is_flip_then_rotation_then_translation():
    y = Affine(rescale=1, flip=True, rotation=90, translation=2)(image(), moves(1, 1, 0.5))
    turned = np.rot90(image()[:, :, ::-1], axes=(1, 2))
    close(y[:, 2:], turned[:, :-2])
    close(y[:, :2], np.zeros((2, 2, 7, 3)))


EVERYTHING = Affine(rescale=0.5, flip=True, rotation=20, translation=3)


def test_image_and_map_are_transformed_alike():
    x = image(12, 17)
    as_map = 3 * x[..., :1] - x[..., 1:2]
    y = np.asarray(EVERYTHING(x, RANDOM))
    close(EVERYTHING(as_map, RANDOM), 3 * y[..., :1] - y[..., 1:2])


def test_examples_are_transformed_by_their_own_numbers():
    x = np.repeat(image(12, 17)[:1], 2, axis=0)
    both = np.asarray(EVERYTHING(x, RANDOM))
    assert np.abs(both[0] - both[1]).max() > 0.1
    close(EVERYTHING(x[1:], RANDOM[1:]), both[1:], atol=1e-6)
    close(EVERYTHING(x, RANDOM[::-1]), both[::-1], atol=1e-6)


def test_gradient_reaches_what_stays_in_the_picture():
    x = tf.constant(image(6, 9))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Affine(rescale=1, translation=4)(x, moves(down=0.75, right=0))
    gradient = np.asarray(tape.gradient(y, x))
    expected = np.zeros_like(gradient)
    expected[:, :-2, 4:] = 1
    close(gradient, expected)


def test_sizes_known_only_in_the_graph():
    x = image(12, 17)
    unknown = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 4])]
    graph = tf.function(EVERYTHING.__call__, autograph=False, input_signature=unknown)
    close(graph(x, RANDOM), EVERYTHING(x, RANDOM), atol=1e-6)
