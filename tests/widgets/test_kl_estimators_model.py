"""*KL estimators*: the Python side, what it accepts and carries."""

import math
import re

import numpy as np
import pytest
from in_python import embedded, expect_refused

from policyopt.widgets import KLEstimators

DEFAULTS = {"shift": 1.0, "spread": 1.0, "samples": 100, "seed": 0, "view": "value"}


def test_page_carries_the_settings():
    assert embedded(KLEstimators()) == DEFAULTS
    assert embedded(KLEstimators(np.float64(3), 2, np.int64(0), np.int64(7), "gradient")) == {
        "shift": 3.0,
        "spread": 2.0,
        "samples": 0,
        "seed": 7,
        "view": "gradient",
    }


def test_settings_can_be_assigned():
    figure = KLEstimators()
    figure.shift, figure.samples, figure.view = 0, 2000, "gradient"
    assert figure.page_data() == DEFAULTS | {"shift": 0.0, "samples": 2000, "view": "gradient"}


def test_repr():
    assert repr(KLEstimators(spread=math.sqrt(2), view="gradient")) == (
        "KLEstimators(shift=1, spread=1.41421, samples=100, seed=0, view='gradient')"
    )


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("shift", [-0.1, 3.1, float("nan"), "1", None, True], "a number in [0, 3]"),
        ("spread", [0, 0.49, 2.01, float("inf")], "a number in [0.5, 2]"),
        ("samples", [-1, 2001, 10.0, True, None], "an integer from 0 to 2000"),
        ("seed", [-1, 2**31, 0.0], "an integer from 0 to 2**31 - 1"),
        ("view", ["gradients", "", None, 0], "one of 'value', 'gradient'"),
    ],
)
def test_bad_arguments_are_named(name, values, allowed):
    for value in values:
        told = f"{re.escape(f'{name} is {value!r}; it must be ')}.*{re.escape(allowed)}"
        expect_refused(KLEstimators, name, value, told)
