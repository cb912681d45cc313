"""The checkers of the chapter "The clipped surrogate": they pass what is right, and name what is wrong."""

from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt import losses
from policyopt.exercises import clipped_surrogate as exercises
from policyopt.exercises.clipped_surrogate import (
    check_clipped_surrogate,
    check_effective_sample_size,
    check_ratio_gradient,
)


def library_surrogate(ratio, advantages, clip):
    return losses.clipped_surrogate(torch.from_numpy(ratio), torch.from_numpy(advantages), clip)


def by_cases(ratio, advantages, clip):
    best = np.where(advantages > 0, 1 + clip, 1 - clip)
    return np.where((ratio - best) * advantages > 0, best * advantages, ratio * advantages)


def autograd(ratio, advantages, clip):
    ratio = torch.from_numpy(ratio).requires_grad_()
    losses.clipped_surrogate(ratio, torch.from_numpy(advantages), clip).sum().backward()
    return ratio.grad


def differences(ratio, advantages, clip):
    ahead, behind = (by_cases(ratio + step, advantages, clip) for step in (1e-6, -1e-6))
    return (ahead - behind) / 2e-6


def in_a_loop(log_probs, old_log_probs):
    """The largest weight is made 1, which changes nothing."""
    logs = [sum(new - old) for new, old in zip(log_probs.T, old_log_probs.T, strict=True)]
    weights = [np.exp(log - max(logs)) for log in logs]
    return sum(weights) ** 2 / sum(weight**2 for weight in weights)


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_clipped_surrogate, library_surrogate),
        (check_clipped_surrogate, by_cases),
        (check_ratio_gradient, autograd),
        (check_ratio_gradient, differences),
        (check_effective_sample_size, in_a_loop),
    ],
)
def test_right_answers_pass(checker, right):
    result = checker(right)
    assert result, result.message


def test_the_four_cases_by_hand():
    """ε = 0.2: good and too far up, bad and too far down are done; good and down, bad and up are not."""
    ratio, advantages = np.array([1.5, 0.5, 0.5, 1.5, 1.1]), np.array([2.0, -2.0, 2.0, -2.0, -2.0])
    expected = np.array([2.4, -1.6, 1.0, -3.0, -2.2])
    np.testing.assert_allclose(exercises._clipped_surrogate(ratio, advantages, 0.2), expected)
    assert exercises._ratio_gradient(ratio, advantages, 0.2).tolist() == [0, 0, 2, -2, -2]


def test_sizes_by_hand():
    """Two steps of three episodes with the weights 2, 1 and 1: 4² / 6."""
    old = np.log(np.full((2, 3), 0.25))
    new = np.log(np.array([[0.5, 0.5, 0.25], [0.25, 0.125, 0.25]]))
    assert exercises._effective_sample_size(new, old) == pytest.approx(16 / 6)
    assert exercises._effective_sample_size(old, old) == pytest.approx(3)


def test_every_case_is_drawn_and_no_ratio_lies_near_a_border():
    for seed in range(20):
        ratio, advantages, clip = exercises._draw_samples(np.random.default_rng(seed))
        for side in (ratio < 1 - clip, np.abs(ratio - 1) < clip, ratio > 1 + clip):
            assert (advantages[side] > 0).sum() == (advantages[side] < 0).sum() == 4
        assert (np.abs(np.abs(ratio - 1) - clip) > 0.01).all()


def no_clamp_below(ratio, advantages, clip):
    return np.where(advantages > 0, np.minimum(ratio, 1 + clip), ratio) * advantages


def no_clamp_above(ratio, advantages, clip):
    return np.where(advantages < 0, np.maximum(ratio, 1 - clip), ratio) * advantages


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, a, e: np.clip(r, 1 - e, 1 + e) * a, "clipped term alone"),
        (lambda r, a, e: np.maximum(r * a, np.clip(r, 1 - e, 1 + e) * a), "takes the larger"),
        (lambda r, a, e: a * r, "the unclipped term alone"),
        (lambda r, a, e: np.minimum(r, 1 + e) * a, "takes the smaller ratio"),
        (no_clamp_below, "no lower border"),
        (no_clamp_above, "no upper border"),
        (lambda r, a, e: np.minimum(r * a, (r * a).clip(1 - e, 1 + e)), "clips the product"),
        (lambda r, a, e: np.minimum(r * a, r.clip(-e, e) * a), "[−ε, ε]"),
        (lambda r, a, e: by_cases(np.exp(r), a, e), "not its logarithm"),
        (lambda r, a, e: by_cases(r, abs(a), e), "ignores the sign"),
        (lambda r, a, e: by_cases(r, a, 0.2), "whatever ε is"),
        (lambda r, a, e: -by_cases(r, a, e), "wrong sign"),
        (lambda r, a, e: by_cases(r, a, e).mean(), "a single number"),
        (lambda r, a, e: by_cases(r, a, 2 * e), "wrong on"),
    ],
)
def test_wrong_objectives_are_named(wrong, words):
    result = check_clipped_surrogate(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, a, e: a * (abs(r - 1) <= e), "everywhere outside the range"),
        (lambda r, a, e: a - autograd(r, a, e).numpy() + a * (abs(r - 1) <= e), "on the wrong sides"),
        (lambda r, a, e: a * (abs(r - 1) > e), "inside the range"),
        (lambda r, a, e: a * (r <= 1 + e), "whatever the advantage; a bad action"),
        (lambda r, a, e: a * (r >= 1 - e), "whatever the advantage; a good action"),
        (lambda r, a, e: a * ((a < 0) | (r <= 1 + e)), "bad actions have a border"),
        (lambda r, a, e: a * ((a > 0) | (r >= 1 - e)), "good actions have a border"),
        (lambda r, a, e: a, "without the clip"),
        (lambda r, a, e: autograd(r, a, e).numpy() * r, "by log π"),
        (lambda r, a, e: autograd(r, a, e) != 0, "how large is it"),
        (lambda r, a, e: np.sign(autograd(r, a, e).numpy()), "the sign alone"),
        (by_cases, "returns the objective"),
        (
            lambda r, a, e: np.where(autograd(r, a, e) == 0, by_cases(r, a, e), a),
            "value of the objective where it is flat",
        ),
        (lambda r, a, e: abs(autograd(r, a, e)), "lost the sign"),
        (lambda r, a, e: autograd(r, a, e) / len(r), "each sample's own objective"),
        (lambda r, a, e: -autograd(r, a, e), "wrong sign"),
        (lambda r, a, e: autograd(r, a, e).sum(), "a single number"),
    ],
)
def test_wrong_derivatives_are_named(wrong, words):
    result = check_ratio_gradient(wrong)
    assert not result
    assert words in result.message


def from_weights(weights):
    return np.sum(weights) ** 2 / np.sum(weights**2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda new, old: from_weights(np.exp(new - old).prod(axis=1)), "wrong axis"),
        (lambda new, old: from_weights(np.exp(new - old)), "every action by itself"),
        (lambda new, old: from_weights(np.exp(np.mean(new - old, axis=0))), "mean of the logarithms"),
        (lambda new, old: from_weights(np.exp(new - old).sum(axis=0)), "adds the ratios"),
        (lambda new, old: from_weights(np.exp(old.sum(axis=0) - new.sum(axis=0))), "upside down: the policy"),
        (lambda new, old: from_weights(np.exp(new).prod(axis=0)), "the new probabilities alone"),
        (lambda new, old: from_weights((new - old).sum(axis=0)), "forgets the exponential"),
        (lambda new, old: from_weights(np.prod(new / old, axis=0)), "divides logarithms"),
        (lambda new, old: in_a_loop(new, old) / new.shape[1], "returns a share"),
        (lambda new, old: 1 / in_a_loop(new, old), "at most the number of episodes"),
        (
            lambda new, old: new.shape[1] ** 2 / np.sum(np.exp(2 * (new - old).sum(axis=0))),
            "weights' mean for 1",
        ),
        (lambda new, old: np.exp((new - old).sum(axis=0)), "expected a single number"),
        (lambda new, old: in_a_loop(new, old) + 1, "wrong on"),
    ],
)
def test_wrong_sizes_are_named(wrong, words):
    result = check_effective_sample_size(wrong)
    assert not result
    assert words in result.message


CHECKERS = [
    (
        check_clipped_surrogate,
        exercises._clipped_surrogate,
        exercises._draw_samples,
        exercises._SURROGATE_MISTAKES,
    ),
    (check_ratio_gradient, exercises._ratio_gradient, exercises._draw_samples, exercises._GRADIENT_MISTAKES),
    (
        check_effective_sample_size,
        exercises._effective_sample_size,
        exercises._draw_episodes,
        exercises._ESS_MISTAKES,
    ),
]


@pytest.mark.parametrize("checker", [row[0] for row in CHECKERS])
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


@pytest.mark.parametrize(("solution", "draw", "mistakes"), [row[1:] for row in CHECKERS])
def test_every_mistake_differs_from_the_solution_and_from_the_others(solution, draw, mistakes):
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(3)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.shape(a) == np.shape(b) and np.allclose(a, b) for a, b in found), (one, other)


@pytest.mark.parametrize(("checker", "mistakes"), [(row[0], row[3]) for row in CHECKERS])
def test_every_mistake_is_named(checker, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
