"""The checkers of the chapter "Advantages relative to a group": they pass what is right, and name what is
wrong.
"""

import itertools
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from policyopt import returns
from policyopt.algorithms.grpo import GroupBatch, GRPOConfig, grpo_loss
from policyopt.exercises import group_relative as exercises
from policyopt.exercises.group_relative import (
    check_group_advantages,
    check_grpo_objective,
    check_prompt_weight,
)
from policyopt.networks import Actor


def library_advantages(rewards, divide_by_std):
    return returns.group_relative_advantages(torch.from_numpy(rewards), divide_by_std)


def loop_advantages(rewards, divide_by_std):
    advantages = np.zeros_like(rewards)
    for row, group in enumerate(rewards):
        mean = sum(group) / len(group)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        advantages[row] = [(r - mean) / (deviation + 1e-4 if divide_by_std else 1) for r in group]
    return advantages


def enumerated_weight(p, size):
    """Every group written out; the gradient of a coin's logit, in units of p(1 − p), which is that of p."""
    total = 0.0
    for group in itertools.product([0.0, 1.0], repeat=size):
        rewards = torch.tensor(group, dtype=torch.float64)
        probability = math.prod(p if right else 1 - p for right in group)
        advantages = returns.group_relative_advantages(rewards, epsilon=0.0)
        total += probability * (advantages * (rewards - p)).mean().item()
    return total / (p * (1 - p))


def library_objective(log_probs, old, reference, advantages, mask, clip, kl_coef):
    """GRPO's loss, for a policy that has a state of its own for each step, and two actions in it."""
    count = int(mask.sum())
    agent = Actor(Discrete(count), Discrete(2), ()).double()
    agent.encoder.forward = lambda obs: torch.nn.functional.one_hot(obs, agent.encoder.width).double()
    # The draws may exceed a probability of 1, so all three policies are made smaller by one factor.
    smaller = max(0.0, log_probs.max() + 0.1)
    chosen = torch.from_numpy(log_probs[mask] - smaller)
    with torch.no_grad():
        agent.policy_net[0].bias.zero_()
        agent.policy_net[0].weight.copy_(torch.stack([chosen, torch.log1p(-chosen.exp())]))
    lengths = mask.sum(axis=1, keepdims=True)
    spread = np.broadcast_to(advantages[:, None], mask.shape)
    batch = GroupBatch(
        obs=torch.arange(count),
        actions=torch.zeros(count, dtype=torch.int64),
        log_probs=torch.from_numpy(old[mask] - smaller),
        advantages=torch.from_numpy(spread[mask]),
        reference_log_probs=torch.from_numpy(reference[mask] - smaller),
        weights=torch.from_numpy(np.broadcast_to(lengths.mean() / lengths, mask.shape)[mask]),
    )
    with torch.no_grad():
        return -grpo_loss(agent, batch, GRPOConfig(clip=clip, kl_coef=kl_coef))[0]


def loop_objective(log_probs, old, reference, advantages, mask, clip, kl_coef):
    total = 0.0
    for i, advantage in enumerate(advantages):
        steps = []
        for t in np.flatnonzero(mask[i]):
            ratio = math.exp(log_probs[i, t] - old[i, t])
            gain = min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
            log_ratio = reference[i, t] - log_probs[i, t]
            steps.append(gain - kl_coef * (math.exp(log_ratio) - 1 - log_ratio))
        total += sum(steps) / len(steps)
    return total / len(advantages)


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_group_advantages, library_advantages),
        (check_group_advantages, loop_advantages),
        (check_prompt_weight, exercises._weight),
        (check_grpo_objective, library_objective),
        (check_grpo_objective, loop_objective),
    ],
)
def test_right_answers_pass(checker, right):
    result = checker(right)
    assert result, result.message


@pytest.mark.parametrize("size", range(2, 9))
def test_the_weight_is_that_of_all_groups(size):
    for p in (0.03, 0.4, 0.9):
        assert exercises._weight(p, size) == pytest.approx(enumerated_weight(p, size))


def test_numbers_by_hand():
    """Rewards 1, 0, 0, 1 have the mean 1/2 and σ² = (4 · 1/4) / 3; two outputs differ with probability
    2p(1 − p) and have then σ = 1/√2.
    """
    rewards = np.array([[1.0, 0.0, 0.0, 1.0]])
    assert exercises._advantages(rewards, False).tolist() == [[0.5, -0.5, -0.5, 0.5]]
    half = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert exercises._advantages(rewards, True)[0].tolist() == pytest.approx([half, -half, -half, half])
    assert exercises._weight(0.2, 2) == pytest.approx(1 / math.sqrt(2))
    assert exercises._weight(0.2, 3) == pytest.approx(2 / math.sqrt(3))
    # One output of one step, ρ = 3/2 clipped to 1.2, π_ref/π_θ = 2; another of one step, ρ = 1 = π_ref/π_θ.
    log_probs, old = np.log([[0.3, 0.5], [0.4, 0.5]]), np.log([[0.2, 0.1], [0.4, 0.1]])
    reference, mask = np.log([[0.6, 0.1], [0.4, 0.1]]), np.array([[True, False], [True, False]])
    value = exercises._objective(log_probs, old, reference, np.array([1.0, -1.0]), mask, 0.2, 0.5)
    assert value == pytest.approx((1.2 - 0.5 * (2 - 1 - math.log(2)) - 1) / 2)


def test_draws_hold_what_tells_mistakes_apart():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rewards, _ = exercises._draw_groups(rng)
        assert (np.ptp(rewards, axis=1) == 0).sum() == 1
        *_, mask, _, _ = exercises._draw_outputs(rng)
        lengths = mask.sum(axis=1)
        assert lengths.min() == 1
        assert lengths.max() == mask.shape[1]
        assert (np.diff(mask.astype(int), axis=1) <= 0).all()


def no_epsilon(rewards, divide_by_std):
    with np.errstate(invalid="ignore"):
        centred = rewards - rewards.mean(axis=1)[:, None]
        return centred / rewards.std(axis=1, ddof=1)[:, None] if divide_by_std else centred


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda r, d: (r - r.mean()) / (r.std(axis=1, ddof=1)[:, None] + 1e-4 if d else 1),
            "all groups together",
        ),
        (lambda r, d: (r - r.mean(axis=1)[:, None]) / (r.std(axis=1)[:, None] + 1e-4 if d else 1), "Bessel"),
        (lambda r, d: library_advantages(r, True), "divides whatever"),
        (lambda r, d: library_advantages(r, False), "plain difference"),
        (lambda r, d: -library_advantages(r, d), "wrong sign"),
        (lambda r, d: library_advantages(r, False) * r.shape[1] / (r.shape[1] - 1), "wrong on"),
        (
            lambda r, d: (
                np.array([[x - np.delete(row, i).mean() for i, x in enumerate(row)] for row in r])
                / (r.std(axis=1, ddof=1)[:, None] + 1e-4 if d else 1)
            ),
            "mean of the others",
        ),
        (lambda r, d: library_advantages(r.T.copy(), d).T, "those of the columns"),
        (lambda r, d: library_advantages(r, d)[0], "shape"),
        (no_epsilon, "standard deviation of 0"),
        (lambda r, d: np.nan_to_num(no_epsilon(r, d)), "or nothing"),
        (
            lambda r, d: (
                (r - r.mean(axis=1)[:, None]) / (np.maximum(r.std(axis=1, ddof=1)[:, None], 1e-4) if d else 1)
            ),
            "or nothing",
        ),
    ],
)
def test_wrong_advantages_are_named(wrong, words):
    result = check_group_advantages(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p, n: (p * (1 - p)) ** -0.5, "limit of large groups"),
        (lambda p, n: (n - 1) / n, "without the division"),
        (lambda p, n: enumerated_weight(p, n) * n / (n - 1), "own reward"),
        (lambda p, n: enumerated_weight(p, n) * math.sqrt((n - 1) / n), "Bessel"),
        (lambda p, n: enumerated_weight(p, n) / (1 - p**n - (1 - p) ** n), "mixed groups alone"),
        (lambda p, n: enumerated_weight(p, n) * p * (1 - p), "not divided by p(1 − p)"),
        (lambda p, n: -exercises._weight(p, n), "wrong sign"),
        (lambda p, n: exercises._weight(p, n + 1), "wrong on"),
    ],
)
def test_wrong_weights_are_named(wrong, words, monkeypatch):
    monkeypatch.setattr(
        exercises, "_draw_prompt", lambda rng: (rng.uniform(0.05, 0.95), int(rng.integers(2, 7)))
    )
    result = check_prompt_weight(wrong)
    assert not result
    assert words in result.message


def changed(*, inner=np.minimum, ratio=lambda new, old: np.exp(new - old), kl=None, mean=None):
    """A student's objective, with what the arguments change in it."""
    kl = kl or (lambda new, old, ref: np.expm1(ref - new) + new - ref)
    mean = mean or (
        lambda steps, mask: np.mean([row[kept].mean() for row, kept in zip(steps, mask, strict=True)])
    )

    def objective(log_probs, old, reference, advantages, mask, clip, kl_coef):
        rho, a = ratio(log_probs, old), advantages[:, None]
        gain = inner(rho * a, np.clip(rho, 1 - clip, 1 + clip) * a)
        return mean(gain - kl_coef * kl(log_probs, old, reference), mask)

    return objective


def smaller_ratio_first(log_probs, old, reference, advantages, mask, clip, kl_coef):
    """The smaller of a ratio and its clipped self is the ratio, lowered to 1 + ε where it is above."""
    lowered = np.minimum(log_probs, old + np.log1p(clip))
    gain = loop_objective(lowered, old, lowered, advantages, mask, 1e3, 0.0)
    return gain + loop_objective(log_probs, log_probs, reference, 0 * advantages, mask, clip, kl_coef)


def one_ratio_an_output(log_probs, old, reference, advantages, mask, clip, kl_coef):
    moved = old.copy()
    for i, kept in enumerate(mask):
        moved[i] += (log_probs - old)[i, kept].sum()
    gain = loop_objective(moved, old, moved, advantages, mask, clip, 0.0)
    return gain + loop_objective(log_probs, log_probs, reference, 0 * advantages, mask, clip, kl_coef)


def test_an_objective_of_a_students_passes():
    result = check_grpo_objective(changed())
    assert result, result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (changed(inner=np.maximum), "larger of the two"),
        (changed(inner=lambda plain, clipped: plain), "does not clip"),
        (changed(inner=lambda plain, clipped: clipped), "clipped product alone"),
        (changed(ratio=lambda new, old: np.exp(old - new)), "upside down: π_θ"),
        (changed(ratio=lambda new, old: new - old), "undoes the logarithm"),
        (changed(kl=lambda new, old, ref: new - ref), "k₁"),
        (changed(kl=lambda new, old, ref: 0.5 * (new - ref) ** 2), "k₂"),
        (changed(kl=lambda new, old, ref: np.expm1(new - ref) + ref - new), "inside the penalty upside down"),
        (changed(kl=lambda new, old, ref: np.expm1(old - new) + new - old), "distance from π_old"),
        (changed(kl=lambda new, old, ref: 0.0), "no penalty"),
        (changed(kl=lambda new, old, ref: -np.expm1(ref - new) - new + ref), "adds the penalty"),
        (changed(mean=lambda steps, mask: steps[mask].mean()), "one mean over all steps"),
        (changed(mean=lambda steps, mask: steps.mean()), "behind the end"),
        (smaller_ratio_first, "before it multiplies"),
        (one_ratio_an_output, "one ratio for a whole output"),
        (lambda *inputs: -loop_objective(*inputs), "wrong sign"),
        (lambda lp, old, ref, a, m, e, b: (lp - old) * a[:, None], "shape"),
        (lambda lp, old, ref, a, m, e, b: loop_objective(lp, old, ref, a, m, 2 * e, b), "wrong on"),
    ],
)
def test_wrong_objectives_are_named(wrong, words):
    result = check_grpo_objective(wrong)
    assert not result
    assert words in result.message


CHECKERS = [
    (check_group_advantages, exercises._advantages, exercises._draw_groups, exercises._ADVANTAGE_MISTAKES),
    (check_prompt_weight, exercises._weight, exercises._draw_prompt, exercises._WEIGHT_MISTAKES),
    (check_grpo_objective, exercises._objective, exercises._draw_outputs, exercises._OBJECTIVE_MISTAKES),
]


@pytest.mark.parametrize(("checker", "solution", "draw", "mistakes"), CHECKERS)
def test_a_result_in_place_of_a_function_is_refused(checker, solution, draw, mistakes):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


@pytest.mark.parametrize(("checker", "solution", "draw", "mistakes"), CHECKERS)
def test_every_mistake_differs_from_the_solution_and_from_the_others(checker, solution, draw, mistakes):
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(8)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair, equal_nan=True) for pair in found), (one, other)


@pytest.mark.parametrize(("checker", "solution", "draw", "mistakes"), CHECKERS)
def test_every_mistake_is_named(checker, solution, draw, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
