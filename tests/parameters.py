"""Parameters of tests: a few always, the others with scripts/test.sh --all."""

import pytest


def few_of(values, *few):
    """Return the values as parameters, of which all but a few are marked as large."""
    missing = [value for value in few if value not in values]
    assert not missing, missing
    large = pytest.mark.large
    return [value if value in few else pytest.param(value, marks=large) for value in values]
