"""*Policy gradient on a bandit*: the Python side, what it accepts and carries."""

import re

import numpy as np
import pytest
from in_python import embedded, expect_refused

from policyopt.widgets import BanditGradient

DEFAULTS = {
    "means": [1.0, 0.5, 0.0],
    "noise": 0.5,
    "learning_rate": 0.1,
    "offset": 0.0,
    "baseline": "none",
    "runs": 1,
    "seed": 0,
}


def test_page_carries_the_settings():
    assert embedded(BanditGradient()) == DEFAULTS
    figure = BanditGradient(np.array([2, -1, 0.25]), 0, 1, -5, "value", np.int64(30), np.int64(7))
    assert embedded(figure) == {
        "means": [2.0, -1.0, 0.25],
        "noise": 0.0,
        "learning_rate": 1.0,
        "offset": -5.0,
        "baseline": "value",
        "runs": 30,
        "seed": 7,
    }


def test_settings_can_be_assigned():
    figure = BanditGradient()
    figure.means = (0, 1, 2)
    figure.noise, figure.offset, figure.runs = 1, 2.5, 30
    assert figure.page_data() == DEFAULTS | {
        "means": [0.0, 1.0, 2.0],
        "noise": 1.0,
        "offset": 2.5,
        "runs": 30,
    }


def test_repr():
    assert repr(BanditGradient(baseline="mean", offset=5)) == (
        "BanditGradient(means=(1, 0.5, 0), noise=0.5, learning_rate=0.1, offset=5, baseline='mean', runs=1, "
        "seed=0)"
    )


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("means", [(1, 2), (1, 2, 3, 4), "abc", 3, (0, 0, float("nan")), (0, 0, 11)], "three numbers"),
        ("means", [(True, 0, 0), (0, 0, None)], "each in [-10, 10]"),
        ("noise", [-0.1, 2.5, float("nan"), "1", None, True], "a number in [0, 2]"),
        ("learning_rate", [0, 0.009, 1.1, float("inf")], "a number in [0.01, 1]"),
        ("offset", [-5.1, 5.1, float("-inf")], "a number in [-5, 5]"),
        ("baseline", ["exact", "", None, 0, ["none"]], "one of 'none', 'mean', 'value'"),
        ("runs", [0, 2, 29, 1.0, True, "30"], "one of 1, 30"),
        ("seed", [-1, 2**31, 0.0, True, None], "an integer from 0 to 2**31 - 1"),
    ],
)
def test_bad_arguments_are_named(name, values, allowed):
    for value in values:
        told = f"{re.escape(f'{name} is {value!r}; it must be ')}.*{re.escape(allowed)}"
        expect_refused(BanditGradient, name, value, told)
