"""Golden arrays of CPNet and SANet in layers: names, values, and how near is near enough."""

import numpy as np

_NAMES = {"moving_mean": "mean", "moving_variance": "var"}


def near(actual, expected, tolerance, floor=1e-9):
    """Assert max|actual - expected| <= tolerance * max|expected|, as the golden files' README."""
    expected = np.asarray(expected)
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    worst = np.abs(actual - expected).max()
    assert worst <= max(tolerance * np.abs(expected).max(), floor)


def golden_name(path, drop=()):
    """Return the golden name of a variable: sa1/conv1/conv/kernel is sa1.conv1.kernel there.

    Args:
      path: variable path.
      drop: layer names that the golden files leave out.
    """
    *layers, name = [part for part in path.split("/") if part not in (*drop, "conv")]
    if layers[-1] == "prior_bn":
        layers[-1:] = ["prior_conv", "bn"]
    if layers[-1] in ("t1", "t2", "p1", "p2") and name == "kernel":
        name = "depthwise_kernel"
    return ".".join([*layers, _NAMES.get(name, name)])


def assign(variables, data, drop=()):
    """Set variables to the golden arrays of their names, all of them."""
    for variable in variables:
        if "seed_generator" not in variable.path:
            variable.assign(data[golden_name(variable.path, drop)])


def check_gradients(gradients, data, tolerance=2e-4, drop=()):
    """Compare {variable path: gradient} with every weight gradient in a golden file."""
    own = {golden_name(path, drop): gradient for path, gradient in gradients.items()}
    names = [name for name in data if name.startswith("d_") and not name.startswith("d_feat")]
    assert names
    for name in names:
        near(own[name.removeprefix("d_")], data[name], tolerance)
