"""Settings of stages: what a command would refuse after days is refused at once."""

from wsss_tf.errors import UserError


def check(setting, value, fits, wanted):
    """Raise `UserError` unless `fits(value)`; `setting` and `wanted` are for its line."""
    if not fits(value):
        raise UserError(f"{setting} = {value!r}; give {wanted}.")


def check_count(setting, value, least=0):
    """Raise `UserError` unless the value is a whole number, `least` or more."""
    check(setting, value, lambda v: _is_number(v, int, least), f"a whole number, {least} or more")


def check_number(setting, value):
    """Raise `UserError` unless the value is a number, 0 or more."""
    check(setting, value, _is_number, "a number, 0 or more")


def check_positive(setting, value):
    """Raise `UserError` unless the value is a number above 0."""
    check(setting, value, _is_positive, "a positive number")


def check_threshold(setting, value):
    """Raise `UserError` unless the value is None or a number between 0 and 1."""

    def fits(value):
        return value is None or (_is_positive(value) and value < 1)

    check(setting, value, fits, "None or a number between 0 and 1")


def check_share(setting, value):
    """Raise `UserError` unless the value is a number from 0 to 1."""
    check(setting, value, lambda v: _is_number(v) and v <= 1, "a number from 0 to 1")


def check_scales(setting, value):
    """Raise `UserError` unless the value is a list of positive numbers."""
    check(setting, value, _are_scales, "a list of positive numbers")


def check_two(setting, value):
    """Raise `UserError` unless the value is None or two positive numbers, ascending."""
    check(
        setting,
        value,
        lambda v: v is None or _are_ascending(v),
        "two positive numbers, the lower one first",
    )


def check_thresholds(setting, value):
    """Raise `UserError` unless the value is None or two numbers between 0 and 1, ascending."""
    check(
        setting,
        value,
        lambda v: v is None or (_are_ascending(v) and v[1] < 1),
        "two numbers between 0 and 1, the lower one first",
    )


def check_choice(setting, value, choices):
    """Raise `UserError` unless the value is one of several."""
    check(setting, value, lambda v: v in choices, " or ".join(map(repr, choices)))


def check_files(setting, value):
    """Raise `UserError` unless the value is a list of gin files."""

    def fits(value):
        return _is_list(value) and all(isinstance(file, str) for file in value)

    check(setting, value, fits, "a list of gin files")


def check_one_of(*settings):
    """Raise `UserError` if two of several (setting, value) pairs are given."""
    given = [setting for setting, value in settings if value is not None]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} are both given; set one to None.")


def comma(numbers):
    """Return numbers as the value of a list flag."""
    return ",".join(f"{number:g}" for number in numbers)


def _is_list(value):
    return isinstance(value, (list, tuple)) and bool(value)


def _is_number(value, kind=(int, float), least=0):
    return isinstance(value, kind) and not isinstance(value, bool) and value >= least


def _is_positive(value):
    return _is_number(value) and value > 0


def _are_scales(values):
    return _is_list(values) and all(map(_is_positive, values))


def _are_ascending(values):
    return _are_scales(values) and len(values) == 2 and values[0] < values[1]
