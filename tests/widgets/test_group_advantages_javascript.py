"""*Group advantages*: the page's arithmetic, run by Node, against ``policyopt``."""

from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.language.variants import leave_one_out_advantages
from policyopt.returns import group_relative_advantages

ANSWER = "const answer = ([name, ...args]) => name === 'GRADES' ? page.GRADES : page[name](...args);"
FORMS = {
    "grpo": group_relative_advantages,
    "dr_grpo": partial(group_relative_advantages, divide_by_std=False),
    "rloo": leave_one_out_advantages,
}
in_node = partial(run_figure, "group_advantages", ANSWER)


def expected(rewards, form):
    return FORMS[form](torch.tensor(rewards, dtype=torch.float64)).tolist()


def right_and_wrong(right, size):
    return [1] * right + [0] * (size - right)


@pytest.fixture(scope="module")
def groups():
    """Random groups of every size: graded, right or wrong, of hardly any spread, and all equal."""
    rng = np.random.default_rng(0)
    found = []
    for size in range(2, 17):
        for _ in range(15):
            found.append(rng.uniform(-0.5, 1.5, size).tolist())
            found.append(rng.integers(2, size=size).astype(float).tolist())
            found.append((rng.uniform() + 1e-5 * rng.normal(size=size)).tolist())
            found.append([float(rng.uniform(-0.5, 1.5))] * size)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_advantages_are_those_of_the_library(groups, form):
    page = in_node(*(["advantages", rewards, form] for rewards in groups))
    for rewards, ours in zip(groups, page, strict=True):
        assert ours == pytest.approx(expected(rewards, form), rel=1e-9, abs=1e-9)
        assert sum(ours) == pytest.approx(0, abs=1e-9)
        if len(set(rewards)) == 1:
            assert ours == [0] * len(rewards)


def test_deviation_is_that_of_torch(groups):
    page = in_node(*(["deviationOf", rewards] for rewards in groups))
    for rewards, ours in zip(groups, page, strict=True):
        assert ours == pytest.approx(torch.tensor(rewards, dtype=torch.float64).std().item(), abs=1e-12)


def test_equal_rewards_whose_mean_is_rounded_are_exactly_zero():
    rewards = [0.1] * 3
    assert sum(rewards) / 3 != 0.1
    assert in_node(*(["advantages", rewards, form] for form in FORMS)) == [[0, 0, 0]] * 3
    assert in_node(*(["pushOf", rewards, form] for form in FORMS)) == [0, 0, 0]


def test_one_right_answer_by_hand():
    grpo, dr_grpo, rloo = in_node(*(["advantages", [1, 0, 0, 0], form] for form in FORMS))
    assert grpo == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], rel=1e-12)  # σ² = 0.75 / 3
    assert dr_grpo == [0.75, -0.25, -0.25, -0.25]
    assert rloo == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3], rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_push_is_flat_only_with_the_division(size):
    grpo, dr_grpo, rloo = in_node(*(["pushCurve", size, form] for form in FORMS))
    share = np.arange(size + 1) / size
    assert dr_grpo == pytest.approx(share * (1 - share), abs=1e-15)
    assert rloo == pytest.approx((size / (size - 1)) ** 2 * share * (1 - share), abs=1e-14)
    assert grpo[0] == grpo[-1] == 0
    assert grpo[1:-1] == pytest.approx([(size - 1) / size] * (size - 1), rel=1e-3)  # but for the 0.0001
    for right, push in enumerate(grpo):
        square = np.square(expected([float(reward) for reward in right_and_wrong(right, size)], "grpo"))
        assert push == pytest.approx(square.mean(), abs=1e-12)


def test_shifting_and_scaling_all(groups):
    groups = [rewards for rewards in groups if np.std(rewards) > 0.01]
    for form in FORMS:
        before = in_node(*(["advantages", rewards, form] for rewards in groups))
        lifted = in_node(*(["shifted", rewards, 0.2] for rewards in groups))
        halved = in_node(*(["scaled", rewards, 0.5] for rewards in groups))
        factor, tolerance = (1, 0.02) if form == "grpo" else (0.5, 1e-9)
        for old, up, half in zip(
            before,
            in_node(*(["advantages", rewards, form] for rewards in lifted)),
            in_node(*(["advantages", rewards, form] for rewards in halved)),
            strict=True,
        ):
            assert up == pytest.approx(old, abs=1e-9)
            assert half == pytest.approx([factor * advantage for advantage in old], rel=tolerance, abs=1e-11)


def test_shifts_leave_no_dust_and_know_their_limits():
    shifted, back, halved, no, yes = in_node(
        ["shifted", [0.1, 0.4], 0.2],
        ["shifted", [0.2, 1.2], -0.2],
        ["scaled", [0.3, -0.1], 0.5],
        ["fits", [0, 1.51]],
        ["fits", [-0.5, 1.5]],
    )
    assert shifted == [0.3, 0.6]  # not 0.30000000000000004 and 0.6000000000000001
    assert (back, halved, no, yes) == ([0, 1], [0.15, -0.05], False, True)


def test_share_is_that_of_the_right_ones_whatever_the_scale():
    cases = [[1, 0, 0, 0], [1, 1, 1, 0], [0.7, 0.2, 0.2, 0.2], [0, 0], [1, 1, 1], [0.5, 0, 1], [0.4, 0, 1, 1]]
    shares = in_node(*(["shareOf", rewards] for rewards in cases))
    assert shares == pytest.approx([0.25, 0.75, 0.25, 0, 1, 0.5, 0.6])


def test_bars_fit_their_scale(groups):
    reaches = in_node(*(["reachOf", rewards] for rewards in groups))
    for rewards, reach in zip(groups, reaches, strict=True):
        assert reach in (1, 1.5, 2.5, 4)
        largest = max(max(map(abs, expected(rewards, form))) for form in FORMS)
        assert largest <= reach + 1e-9
    usual = [right_and_wrong(right, size) for size in range(5, 9) for right in range(size + 1)]
    assert set(in_node(*(["reachOf", rewards] for rewards in usual))) == {2.5}


def test_what_it_says():
    say = [
        ([1, 0, 0, 1, 0, 0, 0, 0], "grpo"),
        ([1, 0, 0, 0], "dr_grpo"),
        ([1, 1, 0.5], "rloo"),
        ([0.5, 0, 1, 0.25, 1], "dr_grpo"),
        ([1, 0.5, 0], "rloo"),
        ([0.3] * 5, "grpo"),
        ([1, 0], "rloo"),
    ]
    assert in_node(*(["describe", *case] for case in say)) == [
        "The 2 right outputs get +1.62 each, the 6 wrong outputs get −0.54 each; their sum is 0. "
        "Dividing by σ made the differences from the mean 2.16 times as large.",
        "The one right output gets +0.75, the 3 wrong outputs get −0.25 each; their sum is 0. "
        "Each advantage is just the difference from the mean.",
        "The 2 outputs with reward 1 get +0.25 each, the one output with reward 0.5 gets −0.50; "
        "their sum is 0. Each is the difference from the mean of the other 2.",
        "Of 5 outputs 2 are above the mean and pushed up, 3 are below it and pushed down; their sum is 0. "
        "Each advantage is just the difference from the mean.",
        "Of 3 outputs 1 is above the mean and pushed up, 1 is below it and pushed down; their sum is 0. "
        "Each is the difference from the mean of the other 2.",
        "All 5 rewards are equal, so every advantage is exactly 0. Nothing is learned from this group.",
        "The one right output gets +1.00, the one wrong output gets −1.00; their sum is 0. "
        "Each is the difference from the mean of the other one.",
    ]


def test_numbers_are_short():
    values = [0.25, 1, -0.4634, 0.0004, -0.0001, 2]
    shown = in_node(*(["short", value] for value in values))
    assert shown == ["0.25", "1", "−0.463", "0", "0", "2"]


def test_grades_are_apart_and_in_range():
    [grades] = in_node(["GRADES"])
    assert len(set(grades)) == len(grades) == 16
    assert all(0 <= grade <= 1 for grade in grades)
