import collections
import functools

import keras
import numpy as np
import pytest

from wsss_tf.backbones.resnet38 import resnet38
from wsss_tf.models.seam import seam_network
from wsss_tf.training.optimizer import (
    CaffeSGD,
    GroupedAdam,
    GroupedSGD,
    PolynomialSchedule,
    poly_adam,
    poly_sgd,
    role_rules,
    step_sgd,
)

NEW_LAYERS = ("fc8", "f8_3", "f8_4", "f9")


def test_agrees_with_the_official_optimizer(golden):
    data = golden("poly_sgd")
    schedule = PolynomialSchedule(
        float(data["base_lr"]), int(data["max_step"]), float(data["power"])
    )
    names = ["a", "b", "c"]
    rules = list(zip(names, data["lr_mult"].tolist(), data["weight_decay"].tolist()))
    optimizer = GroupedSGD(schedule, momentum=float(data["momentum"]), rules=rules)
    variables = [keras.Variable(p, name=name) for p, name in zip(data["p0"], names)]
    for gradients, params, lrs in zip(data["grads"], data["params"], data["lrs"]):
        np.testing.assert_allclose(
            float(optimizer.learning_rate) * data["lr_mult"], lrs, rtol=0, atol=1e-6
        )
        optimizer.apply_gradients(zip(map(keras.ops.convert_to_tensor, gradients), variables))
        np.testing.assert_allclose(np.stack(variables), params, rtol=0, atol=1e-6)
    assert int(optimizer.iterations) == len(data["grads"])


# With float64 variables too the rate is a float32 number.
@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-8), ("float32", 1e-6)])
def test_caffe_sgd_agrees_with_the_reference(golden, dtype, atol):
    data = golden("sec/solver")
    names = ["kernel", "bias", "fc8_kernel", "fc8_bias"]
    rules = [
        (name, rate, 5e-4 * decay)
        for name, rate, decay in zip(names, data["lr_mult"], data["decay_mult"])
    ]
    schedule = keras.optimizers.schedules.ExponentialDecay(
        float(data["lr"][0]), int(data["stepsize"]), 0.1, staircase=True
    )
    optimizer = CaffeSGD(schedule, momentum=0.9, rules=rules)
    params = [data[f"param_{name}"] for name in names]
    variables = [
        keras.Variable(param[0], name=name, dtype=dtype) for param, name in zip(params, names)
    ]
    for step, rate in enumerate(data["lr"]):
        assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-6)
        gradients = [
            keras.ops.convert_to_tensor(data[f"grad_{name}"][step].astype(dtype)) for name in names
        ]
        optimizer.apply_gradients(zip(gradients, variables))
        for variable, param in zip(variables, params):
            np.testing.assert_allclose(variable, param[step + 1], rtol=0, atol=atol)


def test_step_sgd_drops_the_rate_and_names_new_layers():
    optimizer = step_sgd(100, ["fc8"], learning_rate=1e-3, steps_per_drop=2000)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 1999, 2000, 4000, 7999)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-5, 1e-6], rtol=1e-5)
    assert optimizer._rule("fc8/kernel") == (10, 5e-4)
    assert optimizer._rule("fc8/bias") == (20, 0)
    assert optimizer._rule("conv1_1/bias") == (2, 0)


def test_schedule_by_hand():
    schedule = PolynomialSchedule(0.8, total_steps=4, power=2)
    rates = [float(schedule(step)) for step in range(6)]
    np.testing.assert_allclose(rates, [0.8, 0.45, 0.2, 0.05, 0.05, 0.05], rtol=1e-6)


def test_schedule_warms_up_to_the_polynomial():
    warm, plain = PolynomialSchedule(1.0, 10, warmup_steps=4), PolynomialSchedule(1.0, 10)
    ratios = [float(warm(step) / plain(step)) for step in range(6)]
    np.testing.assert_allclose(ratios, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-6)


def test_momentum_keeps_the_learning_rate_out_of_the_buffer():
    # PyTorch's rule with rates 1 and 0.5: 1, then 0.5 * (0.5 * 1 + 1); Keras' SGD ends at -2.
    optimizer = GroupedSGD(PolynomialSchedule(1.0, 2, power=1), momentum=0.5)
    variable = keras.Variable([0.0])
    for expected in [-1.0, -1.75]:
        optimizer.apply_gradients([(keras.ops.ones(1), variable)])
        np.testing.assert_allclose(variable, [expected], rtol=1e-6)


def test_a_variable_without_a_rule_is_an_error():
    optimizer = GroupedSGD(0.1, rules=[("a|b", 1, 0)])
    with pytest.raises(ValueError, match="no optimizer rule matches variable 'aa'"):
        optimizer.build([keras.Variable([0.0], name=name) for name in ["a", "aa"]])


def test_the_first_rule_counts():
    optimizer = GroupedSGD(1.0, rules=[("a", 2, 0), (".*", 1, 0.5)])
    variables = [keras.Variable([4.0], name=name) for name in "ab"]
    optimizer.apply_gradients([(keras.ops.ones(1), v) for v in variables])
    np.testing.assert_allclose(np.stack(variables), [[2.0], [1.0]])


@pytest.mark.parametrize("multiplier", [1.0, 10.0])
def test_grouped_adam_equals_adam_at_the_scaled_rate(multiplier):
    grouped = GroupedAdam(0.01, rules=[(".*", multiplier, 0.0)])
    plain = keras.optimizers.Adam(0.01 * multiplier)
    first, second = keras.Variable([1.0, -2.0, 3.0]), keras.Variable([1.0, -2.0, 3.0])
    for gradient in np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32):
        grouped.apply_gradients([(keras.ops.convert_to_tensor(gradient), first)])
        plain.apply_gradients([(keras.ops.convert_to_tensor(gradient), second)])
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_grouped_adam_couples_the_decay():
    decayed = GroupedAdam(0.01, rules=[(".*", 1.0, 0.5)])
    plain = keras.optimizers.Adam(0.01)
    first, second = keras.Variable([1.0, -2.0, 3.0]), keras.Variable([1.0, -2.0, 3.0])
    for gradient in np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32):
        decayed.apply_gradients([(keras.ops.convert_to_tensor(gradient), first)])
        plain.apply_gradients([(keras.ops.convert_to_tensor(gradient) + 0.5 * second, second)])
        np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b3_conv_branch2a/kernel", (1, 5e-4)),
        ("cls/bias", (2, 0)),
        ("fc8/kernel", (10, 5e-4)),
        ("pcm/f9/kernel", (10, 5e-4)),
        ("fc8/bias", (20, 0)),
        ("xf9/kernel", (1, 5e-4)),
        ("bn7/gamma", (1, 0)),
        ("bn7/beta", (1, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_by_role(path, expected):
    assert GroupedSGD(0.1, rules=role_rules(NEW_LAYERS, 5e-4))._rule(path) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {(10, 5e-4): 4, (1, 5e-4): 35}),
        # With conv1a and b2 to b2_2 trained there are 8 kernels more, and 37 BatchNorms.
        (
            {"frozen_stages": 0, "train_batchnorm": True},
            {(10, 5e-4): 4, (1, 5e-4): 43, (1, 0): 74},
        ),
    ],
    ids=["as_published", "from_scratch"],
)
def test_groups_of_the_seam_network(options, expected):
    network = seam_network(3, functools.partial(resnet38, width=1 / 64, **options))
    optimizer = poly_sgd(10, NEW_LAYERS)
    paths = collections.defaultdict(list)
    for variable in network.trainable_variables:
        paths[optimizer._rule(variable.path)].append(variable.path)
    assert {group: len(members) for group, members in paths.items()} == expected
    new = ["f8_3/kernel", "f8_4/kernel", "fc8/kernel", "pcm/f9/kernel"]
    assert sorted(paths[10, 5e-4]) == new


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: poly_sgd(5, ["new"], learning_rate=0.1, momentum=0.9, weight_decay=0.01),
            marks=pytest.mark.large,
        ),
        lambda: poly_adam(5, ["new"], weight_decay=0.01, new_layer_multiplier=3, warmup_steps=2),
        pytest.param(
            lambda: step_sgd(5, ["new"], learning_rate=0.1, steps_per_drop=2),
            marks=pytest.mark.large,
        ),
    ],
    ids=["poly_sgd", "poly_adam", "step_sgd"],
)
def test_a_saved_run_continues_exactly(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, name="old"), keras.layers.Dense(2, name="new")]
    )
    model.compile(make(), loss="mse")
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    model.fit(x, y[:, :2], epochs=3, verbose=0)
    model.save(tmp_path / "run.keras")
    copy = keras.models.load_model(tmp_path / "run.keras")
    assert type(copy.optimizer) is type(model.optimizer)
    assert copy.optimizer.get_config() == model.optimizer.get_config()
    assert int(copy.optimizer.iterations) == 3
    for network in (model, copy):
        network.fit(x, y[:, :2], epochs=2, verbose=0)
    for weight, expected in zip(copy.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(weight, expected)
