"""Optimizers with learning-rate multipliers and weight decay by the role of a variable."""

import re

import keras
from keras import ops


@keras.saving.register_keras_serializable("wsss_tf")
class PolynomialSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """lr(step) = base * (1 - step / total_steps) ^ power, constant once `total_steps` is reached.

    Args:
      base: learning rate at step 0.
      total_steps: length of the run; from there on the last value, that of total_steps - 1, stays.
      power: 0.9 in the papers here.
      warmup_steps: steps over which the rate first rises linearly; 0 in the papers.
    """

    def __init__(self, base, total_steps, power=0.9, warmup_steps=0):
        self.base = base
        self.total_steps = total_steps
        self.power = power
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        """Return the learning rate, a float32 scalar, of a step counted from 0."""
        step = ops.cast(step, "float32")
        rest = 1 - ops.minimum(step, self.total_steps - 1) / self.total_steps
        warmup = ops.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        return self.base * warmup * ops.power(rest, self.power)

    def get_config(self):
        return {
            "base": self.base,
            "total_steps": self.total_steps,
            "power": self.power,
            "warmup_steps": self.warmup_steps,
        }


class _RuledOptimizer:
    """Mix-in: look up (learning-rate multiplier, weight decay) by variable path, and apply them.

    `rules` is a sequence of (regex, multiplier, weight_decay); the first that matches a variable's
    whole path counts, and a variable that none matches is an error: nothing trains at a rate that
    nobody chose. The decay is coupled (gradient + decay * variable), as PyTorch's is; Keras' own
    `weight_decay` is decoupled.
    """

    def build(self, variables):
        if not self.built:
            self._resolved = [self._rule(variable.path) for variable in variables]
        super().build(variables)

    def _rule(self, path):
        for pattern, multiplier, decay in self.rules:
            if re.fullmatch(pattern, path):
                return multiplier, decay
        raise ValueError(f"no optimizer rule matches variable {path!r}.")

    def update_step(self, gradient, variable, learning_rate):
        multiplier, decay = self._resolved[self._get_variable_index(variable)]
        if decay:
            gradient = gradient + decay * ops.cast(variable, gradient.dtype)
        self._update(gradient, variable, learning_rate * multiplier)

    def get_config(self):
        return {**super().get_config(), "rules": self.rules}


@keras.saving.register_keras_serializable("wsss_tf")
class GroupedSGD(_RuledOptimizer, keras.optimizers.SGD):
    """SGD as PyTorch computes it, with rules by variable path.

    buffer = momentum * buffer + (gradient + decay * w);  w = w - lr * multiplier * buffer.
    Keras' SGD multiplies the learning rate into the buffer, which differs when the rate changes.

    Args:
      learning_rate: float or schedule.
      momentum: in [0, 1).
      rules: sequence of (regex, learning-rate multiplier, weight decay); see `role_rules`.

    Raises (in `build`):
      ValueError: a variable that no rule matches.
    """

    def __init__(self, learning_rate, momentum=0.0, rules=((".*", 1.0, 0.0),), **kwargs):
        super().__init__(learning_rate, momentum=momentum, **kwargs)
        self.rules = [tuple(rule) for rule in rules]

    def _update(self, gradient, variable, learning_rate):
        if self.momentum:
            buffer = self.momentums[self._get_variable_index(variable)]
            gradient = self.momentum * buffer + gradient
            self.assign(buffer, gradient)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * gradient)


@keras.saving.register_keras_serializable("wsss_tf")
class CaffeSGD(_RuledOptimizer, keras.optimizers.SGD):
    """SGD with momentum as Caffe computes it, with rules by variable path.

    buffer = momentum * buffer + lr * multiplier * (gradient + decay * w);  w = w - buffer.
    The rate is inside the buffer, so what is in it when the rate drops keeps the old one.

    Args and raises: as `GroupedSGD`.
    """

    def __init__(self, learning_rate, momentum=0.9, rules=((".*", 1.0, 0.0),), **kwargs):
        super().__init__(learning_rate, momentum=momentum, **kwargs)
        self.rules = [tuple(rule) for rule in rules]

    def _update(self, gradient, variable, learning_rate):
        change = ops.cast(learning_rate, variable.dtype) * gradient
        if self.momentum:
            buffer = self.momentums[self._get_variable_index(variable)]
            change = self.momentum * buffer + change
            self.assign(buffer, change)
        self.assign_sub(variable, change)


@keras.saving.register_keras_serializable("wsss_tf")
class GroupedAdam(_RuledOptimizer, keras.optimizers.Adam):
    """Adam with rules by variable path; decay is coupled, as in PyTorch's Adam.

    Args and raises: as `GroupedSGD`, with Adam's own `beta_1`, `beta_2` and `epsilon`.
    """

    def __init__(self, learning_rate, rules=((".*", 1.0, 0.0),), **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.rules = [tuple(rule) for rule in rules]

    def _update(self, gradient, variable, learning_rate):
        keras.optimizers.Adam.update_step(self, gradient, variable, learning_rate)


def role_rules(new_layers, weight_decay, new_layer_multiplier=10.0, batchnorm_multiplier=1.0):
    """Return the official implementations' four groups, and one for trained BatchNorm.

    Args:
      new_layers: names of the layers that start from random values.
      weight_decay: of kernels; biases and BatchNorm have none.
      new_layer_multiplier: learning-rate factor of their kernels; their biases get twice that.
      batchnorm_multiplier: of gamma and beta, where BatchNorm is not frozen; 0 keeps their values
        while its statistics are those of the batches, as in the retrained DeepLab.

    Returns:
      Rules for `GroupedSGD`: pretrained kernels x1, pretrained biases x2, new kernels x10, new
      biases x20; gamma and beta as said.
    """
    new = "(?:.*/)?(?:" + "|".join(map(re.escape, new_layers)) + ")"
    return [
        (f"{new}/kernel", new_layer_multiplier, weight_decay),
        (f"{new}/bias", 2 * new_layer_multiplier, 0.0),
        (".*/kernel", 1.0, weight_decay),
        (".*/bias", 2.0, 0.0),
        (".*/(?:gamma|beta)", batchnorm_multiplier, 0.0),
    ]


def poly_sgd(
    total_steps,
    new_layers,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    power=0.9,
    new_layer_multiplier=10.0,
    batchnorm_multiplier=1.0,
):
    """Return SGD with the polynomial schedule and groups by role.

    Args:
      total_steps: length of the schedule, in steps.
      new_layers, weight_decay, new_layer_multiplier, batchnorm_multiplier: as in `role_rules`.
      learning_rate, power: as in `PolynomialSchedule`.
      momentum: SEAM's and AffinityNet's real one is 5e-4 (their optimizer class hands the weight
        decay to SGD's momentum argument; the published results were obtained with it).
    """
    return GroupedSGD(
        PolynomialSchedule(learning_rate, total_steps, power),
        momentum=momentum,
        rules=role_rules(new_layers, weight_decay, new_layer_multiplier, batchnorm_multiplier),
    )


def uniform_sgd(
    total_steps,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    power=0.9,
    faster_layers=(),
    faster_multiplier=10.0,
):
    """Return SGD with the polynomial schedule and one decay for every variable.

    Args:
      total_steps, learning_rate, momentum, power: as in `poly_sgd`.
      weight_decay: of all variables, biases and norms too: PyTorch's SGD, which CPNet's host
        framework and IRN use, makes no difference unless told to.
      faster_layers: what names of layers begin with whose variables, all of them, have a rate of
        their own; in IRN its displacements, and the classifier of its CAM network.
      faster_multiplier: learning-rate factor of these.
    """
    faster = "|".join(map(re.escape, faster_layers))
    rules = [(f"(?:.*/)?(?:{faster})[^/]*/.*", faster_multiplier, weight_decay)] if faster else []
    return GroupedSGD(
        PolynomialSchedule(learning_rate, total_steps, power),
        momentum=momentum,
        rules=(*rules, (".*", 1.0, weight_decay)),
    )


def poly_adam(
    total_steps,
    new_layers,
    learning_rate=2e-3,
    weight_decay=0.0,
    power=0.9,
    new_layer_multiplier=1.0,
    warmup_steps=0,
    batchnorm_multiplier=1.0,
):
    """Return Adam with the polynomial schedule, for small networks trained from scratch.

    Args: as `poly_sgd`, and `warmup_steps` as in `PolynomialSchedule`.
    """
    return GroupedAdam(
        PolynomialSchedule(learning_rate, total_steps, power, warmup_steps),
        rules=role_rules(new_layers, weight_decay, new_layer_multiplier, batchnorm_multiplier),
    )


def step_sgd(
    total_steps,
    new_layers,
    learning_rate=1e-3,
    momentum=0.9,
    weight_decay=5e-4,
    steps_per_drop=2000,
    drop=0.1,
    new_layer_multiplier=10.0,
):
    """Return Caffe's SGD with a learning rate that drops in steps, and groups by role.

    Args:
      total_steps: length of the run; the schedule does not depend on it.
      new_layers, weight_decay, new_layer_multiplier: as in `role_rules`.
      learning_rate: of the first `steps_per_drop` steps, then times `drop`, and so on.
      momentum: as in `CaffeSGD`.
    """
    del total_steps
    return CaffeSGD(
        keras.optimizers.schedules.ExponentialDecay(
            learning_rate, steps_per_drop, drop, staircase=True
        ),
        momentum=momentum,
        rules=role_rules(new_layers, weight_decay, new_layer_multiplier),
    )
