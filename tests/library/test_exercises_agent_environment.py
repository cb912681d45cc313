"""The checkers of the first chapter pass what is right and name what is wrong."""

import pytest

from policyopt.exercises.agent_environment import check_cut_returns, check_returns


def right(rewards, gamma, cut=False, estimate=0.0):
    total, collected = (estimate if cut else 0.0), []
    for reward in reversed(rewards):
        total = reward + gamma * total
        collected.append(total)
    return collected[::-1]


def unsorted(rewards, gamma):
    return right(rewards, gamma)[::-1]


def forwards(rewards, gamma):
    total, collected = 0.0, []
    for reward in rewards:
        total = reward + gamma * total
        collected.append(total)
    return collected


def whole(rewards, gamma):
    return [right(rewards, gamma)[0]] * len(rewards)


def from_the_start(rewards, gamma):
    return [sum(gamma**k * r for k, r in enumerate(rewards) if k >= t) for t in range(len(rewards))]


def too_late(rewards, gamma):
    return [*right(rewards, gamma)[1:], 0.0]


def too_often(rewards, gamma):
    return [gamma * g for g in right(rewards, gamma)]


def test_the_solutions_pass():
    assert check_returns(right)
    assert check_cut_returns(right)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda rewards, gamma: right(rewards, 1.0), "γ is missing"),
        (unsorted, "in the reverse order"),
        (forwards, "it sums over the past"),
        (whole, "the return of the whole episode"),
        (from_the_start, "it discounts from the start"),
        (too_late, "it begins one step too late"),
        (too_often, "it discounts once too often"),
        (lambda rewards, gamma: right(rewards, gamma)[0], "returned a single number"),
        (lambda rewards, gamma: [*right(rewards, gamma), 0.0], "returned an array of shape"),
    ],
)
def test_wrong_returns_are_named(wrong, words):
    assert words in check_returns(wrong).message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, g, cut, e: right(r, g), "a truncation is taken for a termination"),
        (lambda r, g, cut, e: right(r, g, True, e), "a termination is taken for a truncation"),
        (lambda r, g, cut, e: right(r, g, not cut, e), "the two ends are mixed up"),
        (lambda r, g, cut, e: right(r, g, cut, e / g), "the estimate is not discounted"),
        (lambda r, g, cut, e: right([*r[:-1], e], g) if cut else right(r, g), "takes the place of the last"),
        (lambda r, g, cut, e: right(r, 1.0) if not cut else None, "returned None"),
    ],
)  # fmt: skip
def test_wrong_ends_are_named(wrong, words):
    assert words in check_cut_returns(wrong).message


def test_a_mistake_inside_is_named_at_both_ends():
    def no_discount(rewards, gamma, cut, estimate):
        after = [gamma ** (len(rewards) - t) * estimate * cut for t in range(len(rewards))]
        return [g + more for g, more in zip(right(rewards, 1.0), after, strict=True)]

    assert "γ is missing" in check_cut_returns(no_discount).message
