import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from as_user import ENVIRONMENT, script_ok
from parameters import few_of

from wsss_tf import ops


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def test_normalize_image_agrees_with_the_official_code(golden):
    data = golden("normalize_image")
    close(ops.normalize_image(data["img"]), data["out"])
    close(ops.normalize_image(data["img"].astype(np.float32)), data["out"])


@pytest.mark.parametrize("align_corners", [True, False], ids=["align_corners", "half_pixel"])
@pytest.mark.parametrize("size", [(13, 20), (4, 5), (14, 18), (7, 9)], ids="{0[0]}x{0[1]}".format)
def test_resize_bilinear_agrees_with_the_official_code(golden, size, align_corners):
    data = golden("resize_bilinear")
    expected = data[f"ac{align_corners:d}_{size[0]}x{size[1]}"]
    close(ops.resize_bilinear(data["x"], size, align_corners), expected)


@pytest.mark.parametrize(
    ("source", "target", "atol"),
    # 448 noise pixels in a row: source coordinates differ in their last float32 digit.
    [("sf_x", "sf03_ac1", 1e-5), ("sf448_x", "sf448_ac1", 1e-4)],
    ids=["50x64", "448x20"],
)
def test_resize_bilinear_by_a_scale_factor_agrees_with_the_official_code(
    golden, source, target, atol
):
    data = golden("resize_bilinear")
    expected = data[target]
    close(ops.resize_bilinear(data[source], expected.shape[1:3], True), expected, atol)


@pytest.mark.parametrize("align_corners", [True, False], ids=["align_corners", "half_pixel"])
def test_resize_bilinear_to_the_same_size_is_the_identity(align_corners):
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 3)).astype(np.float32)
    close(ops.resize_bilinear(x, (5, 8), align_corners), x, atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False], ids=["align_corners", "half_pixel"])
def test_resize_bilinear_takes_sizes_known_only_in_the_graph(align_corners):
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 3)).astype(np.float32)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([], "int32")],
    )
    def double(x, factor):
        size = tf.shape(x)[1] * factor, tf.shape(x)[2] * factor
        return ops.resize_bilinear(x, size, align_corners)

    close(double(x, 2), np.asarray(ops.resize_bilinear(x, (10, 16), align_corners)), atol=0)


@pytest.mark.parametrize("size", [(13, 20), (4, 5), (1, 9), (7, 1)], ids="{0[0]}x{0[1]}".format)
def test_align_corners_is_the_same_on_other_backends(size):
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    y = ops._interpolate_axis(ops._interpolate_axis(x, size[0], 1), size[1], 2)
    close(y, ops.resize_bilinear(x, size, align_corners=True), atol=2e-6)


def test_max_norm_agrees_with_the_official_code(golden):
    data = golden("max_norm")
    p = tf.constant(data["p"])
    with tf.GradientTape() as tape:
        tape.watch(p)
        out = ops.max_norm(p)
        loss = tf.reduce_sum(out * data["upstream"])
    close(out, data["out"])
    close(tape.gradient(loss, p), data["grad_p"])


def test_suppress_non_maxima_agrees_with_the_official_code(golden):
    data = golden("max_onehot")
    np.testing.assert_array_equal(ops.suppress_non_maxima(data["x"]), data["out"])


def test_normalize_cam_agrees_with_the_official_code(golden):
    data = golden("cam_normalise_nms")
    close(ops.normalize_cam(data["cam_low"]), data["cam_d_norm"])


def test_normalize_cam_stops_the_gradient_and_ignores_channel_0(golden):
    scores = tf.constant(golden("cam_normalise_nms")["cam_low"])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        maps = ops.normalize_cam(scores)
    assert tape.gradient(maps, scores) is None
    other = np.concatenate([100 + scores[..., :1], scores[..., 1:]], axis=-1)
    np.testing.assert_array_equal(ops.normalize_cam(other), maps)


def test_with_background():
    scores = np.array([[[[9.0, 0.2, 0.7], [9.0, 0.0, 0.0]]]], np.float32)
    close(ops.with_background(scores), [[[[0.3, 0.2, 0.7], [1, 0, 0]]]], atol=1e-7)


@pytest.mark.parametrize("function", [ops.max_norm, ops.normalize_cam])
def test_normalised_maps_stay_in_range_and_follow_the_order_of_images(function):
    scores = np.random.default_rng(0).normal(size=(3, 5, 7, 4)).astype(np.float32)
    scores[0, ..., 1] = -1  # nowhere positive
    scores[1, ..., 2] = 3  # the same everywhere
    maps = np.asarray(function(scores))
    assert maps.min() >= 0
    assert maps.max() <= 1
    np.testing.assert_array_equal(function(scores[::-1]), maps[::-1])
    np.testing.assert_array_equal(function(scores[:, :, ::-1]), maps[:, :, ::-1])


def test_normalize_cam_follows_the_order_of_classes():
    scores = np.random.default_rng(0).normal(size=(2, 5, 7, 4)).astype(np.float32)
    order = [0, 3, 1, 2]
    np.testing.assert_array_equal(
        ops.normalize_cam(scores[..., order]), np.asarray(ops.normalize_cam(scores))[..., order]
    )


_CONVOLVE = """
import numpy as np, tensorflow as tf
from wsss_tf import ops
rng = np.random.default_rng(0)
print(ops._tensorflow_has_dilated_gradient("float32"))
for size, dilation, padding in [((13, 13), 12, "same"), ((9, 14), 3, "valid")]:
    x = tf.constant(rng.normal(size=(2, *size, 16)), "float32")
    kernel = tf.constant(rng.normal(size=(3, 3, 16, 32)), "float32")
    weights = tf.constant(rng.normal(size=(2, *size, 32)), "float32")
    gaps = tf.constant(np.eye(2 * dilation + 1)[::dilation], "float32")  # where the taps are

    def spread(kernel):  # an ordinary kernel with zeros between the taps
        return tf.einsum("abdf,ai,bj->ijdf", kernel, gaps, gaps)

    found = []
    for convolve in (
        lambda x, k: ops.dilated_conv(x, k, padding, (dilation, dilation)),
        lambda x, k: tf.nn.conv2d(x, spread(k), 1, padding.upper()),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = tf.function(convolve, autograph=False)(x, kernel)
            loss = tf.reduce_sum(y * weights[:, : y.shape[1], : y.shape[2]])
        found.append([y, *tape.gradient(loss, [x, kernel])])
    print(*(float(tf.reduce_max(abs(a - b))) for a, b in zip(*found)))
if not ops._tensorflow_has_dilated_gradient("float32"):  # else oneDNN wants such CPUs
    found = []
    for cast in ("float32", "bfloat16"):
        half = [tf.cast(v[..., :16] / 8, cast) for v in (x, kernel)]
        with tf.GradientTape() as tape:
            tape.watch(half)
            y = ops.dilated_conv(*half, "same", (2, 2))
        found.append([tf.cast(v, "float32") for v in (y, *tape.gradient(y, half))])
    print(*(float(tf.reduce_max(abs(a - b)) / tf.reduce_max(abs(a))) / 500 for a, b in zip(*found)))
"""


@pytest.mark.parametrize("onednn", few_of(["0", "1"], "1"))
def test_dilated_conv_is_the_convolution_with_a_spread_kernel(onednn, tmp_path):
    (tmp_path / "convolve.py").write_text(_CONVOLVE)
    if onednn == "1":  # as the commands have it
        out = script_ok(tmp_path / "convolve")
    else:
        environment = {**ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": onednn}
        line = [sys.executable, tmp_path / "convolve.py"]
        result = subprocess.run(line, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        out = result.stdout
    is_direct, *errors = out.splitlines()
    if onednn == "1" and is_direct == "False":
        pytest.skip("TensorFlow has no oneDNN here")
    assert is_direct == str(onednn == "1")
    errors = [float(error) for line in errors for error in line.split()]
    assert len(errors) == (6 if onednn == "1" else 9)
    assert max(errors) < 1e-4
