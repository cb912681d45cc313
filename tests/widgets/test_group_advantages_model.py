"""*Group advantages*: the Python side, what it accepts and carries."""

import math
import re

import numpy as np
import pytest
import torch
from in_python import embedded, expect_refused

from policyopt.widgets import GroupAdvantages


def test_page_carries_the_rewards_and_the_form():
    assert embedded(GroupAdvantages()) == {"rewards": [1.0, 0, 0, 1.0, 0, 0, 0, 0], "form": "grpo"}
    own = GroupAdvantages(np.array([0.5, -0.25]), "rloo")
    assert embedded(own) == {"rewards": [0.5, -0.25], "form": "rloo"}
    assert all(type(reward) is float for reward in own.rewards)


def test_both_can_be_assigned():
    figure = GroupAdvantages()
    figure.rewards = range(2)
    figure.form = "dr_grpo"
    assert figure.page_data() == {"rewards": [0.0, 1.0], "form": "dr_grpo"}
    figure.rewards = torch.linspace(-0.5, 1.5, 16, dtype=torch.float64).tolist()
    assert len(figure.rewards) == 16


def test_repr():
    assert repr(GroupAdvantages((1, 0, 0.25))) == "GroupAdvantages(rewards=(1, 0, 0.25), form='grpo')"


@pytest.mark.parametrize(
    "rewards",
    [
        [],
        [1],
        [0] * 17,
        [0, 1.6],
        [-0.51, 0],
        [0, math.nan],
        [math.inf, 0],
        [True, False],
        ["1", 0],
        [[0, 1], [1, 0]],
        1,
        None,
        "01",
    ],
)
def test_bad_rewards(rewards):
    shown = repr(rewards) if len(repr(rewards)) <= 60 else repr(rewards)[:59]
    message = f"{re.escape(f'rewards is {shown}')}.*; it must be 2 to 16 numbers, each in \\[-0.5, 1.5\\]"
    expect_refused(GroupAdvantages, "rewards", rewards, message)


@pytest.mark.parametrize("form", ["ppo", "GRPO", "", None, 0])
def test_bad_form(form):
    message = re.escape(f"form is {form!r}; it must be one of 'grpo', 'dr_grpo', 'rloo'")
    expect_refused(GroupAdvantages, "form", form, message)
