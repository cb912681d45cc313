"""The checkers of the chapter "PPO, the whole algorithm": they pass what is right, and name what is wrong."""

from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt.distributions import DiagonalGaussian
from policyopt.exercises import ppo as exercises
from policyopt.exercises.ppo import check_gaussian_log_prob, check_minibatches, check_ppo_loss
from policyopt.losses import actor_critic_loss, clipped_surrogate
from policyopt.rollout import Steps


def library_loss(
    log_probs, old_log_probs, advantages, values, value_targets, entropies, clip, value_coef, entropy_coef
):
    columns = log_probs, old_log_probs, advantages, values, value_targets, entropies
    new, old, advantages, values, targets, entropies = map(torch.from_numpy, columns)
    policy_loss = -clipped_surrogate((new - old).exp(), advantages, clip).mean()
    return actor_critic_loss(policy_loss, values, targets, entropies, value_coef, entropy_coef)[0]


def loop_loss(new, old, advantages, values, targets, entropies, clip, c1, c2):
    """Sample by sample, the clip by cases."""
    total = 0.0
    for i in range(len(new)):
        ratio, advantage = np.exp(new[i]) / np.exp(old[i]), advantages[i]
        allowed = min(ratio, 1 + clip) if advantage > 0 else max(ratio, 1 - clip)
        total += -allowed * advantage + c1 * (values[i] - targets[i]) ** 2 - c2 * entropies[i]
    return total / len(new)


def library_gaussian(actions, mean, log_std):
    return DiagonalGaussian(*map(torch.from_numpy, (mean, log_std))).log_prob(torch.from_numpy(actions))


def product_of_densities(actions, mean, log_std):
    std = np.exp(log_std)
    densities = np.exp(-((actions - mean) ** 2) / (2 * std**2)) / np.sqrt(2 * np.pi * std**2)
    return np.log(densities.prod(axis=1))


def split(count, size, rng):
    order = rng.permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


def library_split(count, size, rng):
    columns = torch.arange(count).repeat(4, 1)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return [part.obs for part in Steps(*columns).minibatches(size, generator)]


def test_a_loss_by_hand():
    """Ratios 2 and ½ with ε = 0.2: the first is capped at 1.2, the second hurts in full with Â = 1."""
    new, old = np.log([0.8, 0.25]), np.log([0.4, 0.5])
    ones = np.ones(2)
    loss = exercises._loss()(new, old, ones, 3 * ones, ones, 0.5 * ones, 0.2, 0.5, 0.1)
    assert loss == pytest.approx(-(1.2 + 0.5) / 2 + 0.5 * 4 - 0.1 * 0.5)


def test_a_log_density_by_hand():
    """At its mean a Gaussian with σ = 1 has the density 1/√2π in each of two components."""
    zeros = np.zeros((1, 2))
    found = exercises._gaussian()(zeros, zeros, np.zeros(2))
    assert found == pytest.approx(-np.log(2 * np.pi))


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_ppo_loss, library_loss),
        (check_ppo_loss, loop_loss),
        (check_gaussian_log_prob, library_gaussian),
        (check_gaussian_log_prob, product_of_densities),
        (check_minibatches, split),
        (check_minibatches, library_split),
    ],
)
def test_what_is_right_passes(checker, right):
    result = checker(right)
    assert result, result.message
    assert right.__name__ in result.message


def test_every_minibatch_drawn_has_both_signs_on_both_sides_of_the_clip():
    for seed in range(20):
        new, old, advantages, *_, clip, _, _ = exercises._draw_minibatch(np.random.default_rng(seed))
        ratio = np.exp(new - old)
        for sign in (-1, 1):
            there = ratio[np.sign(advantages) == sign]
            assert (there > 1 + clip).any()
            assert (there < 1 - clip).any()
            assert (abs(there - 1) < clip).any()


def clipped(ratio, advantages, eps):
    return np.clip(ratio, 1 - eps, 1 + eps) * advantages


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, -a, v, t, s, e, c, d), "wrong on"),
        (
            lambda n, o, a, v, t, s, e, c, d: (
                -clipped(np.exp(n - o), a, e).mean() + c * ((v - t) ** 2).mean() - d * s.mean()
            ),
            "clipped product alone",
        ),
        (
            lambda n, o, a, v, t, s, e, c, d: (
                -(np.minimum(np.exp(n - o), clipped(np.exp(n - o), 1, e)) * a).mean()
                + c * ((v - t) ** 2).mean()
                - d * s.mean()
            ),
            "takes the smaller ratio",
        ),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, 1e9, c, d), "does not clip"),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(o, n, a, v, t, s, e, c, d), "wrong way round"),
        (
            lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, e, c, -d),
            "entropy has the wrong sign",
        ),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, e, -c, d), "value loss has the wrong"),
        (lambda n, o, a, v, t, s, e, c, d: -loop_loss(n, o, a, v, t, s, e, c, d), "to be maximised"),
        (
            lambda n, o, a, v, t, s, e, c, d: len(n) * loop_loss(n, o, a, v, t, s, e, c, d),
            "adds up the terms",
        ),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, e, d, c), "exchanged"),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, e, c, 0), "leaves out the entropy"),
        (lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a, v, t, s, e, c / 2, d), "half of the squared"),
        (
            lambda n, o, a, v, t, s, e, c, d: loop_loss(n, o, a - a.mean(), v, t, s, e, c, d),
            "wrong on",
        ),
        (lambda n, o, a, v, t, s, e, c, d: a * np.exp(n - o), "expected a single number"),
    ],
)
def test_wrong_losses_are_named(wrong, words):
    result = check_ppo_loss(wrong)
    assert not result
    assert words in result.message


def log_terms(actions, mean, log_std):
    return -0.5 * ((actions - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda a, m, s: log_terms(a, m, s).mean(axis=1), "takes the mean over the components"),
        (lambda a, m, s: log_terms(a, m, s), "shape"),
        (lambda a, m, s: (log_terms(a, m, s) + s).sum(axis=1), "leaves out −log σ"),
        (
            lambda a, m, s: (log_terms(a, m, s) + 0.5 * np.log(2 * np.pi)).sum(axis=1),
            "leaves out the constant",
        ),
        (lambda a, m, s: (log_terms(a, m, s) + s / 2).sum(axis=1), "takes half of log σ"),
        (
            lambda a, m, s: (-0.5 * (a - m) ** 2 / np.exp(s) - s - 0.5 * np.log(2 * np.pi)).sum(axis=1),
            "divides the squared distance by σ",
        ),
        (
            lambda a, m, s: (log_terms(a, m, s) - 0.5 * np.log(2 * np.pi)).sum(axis=1),
            "factor ½ of log 2π",
        ),
        (lambda a, m, s: np.exp(log_terms(a, m, s).sum(axis=1)), "returns the density"),
        (lambda a, m, s: log_terms(a, m, 2 * s).sum(axis=1), "wrong on"),
        (lambda a, m, s: -log_terms(a, m, s).sum(axis=1), "wrong sign"),
    ],
)
def test_wrong_densities_are_named(wrong, words):
    result = check_gaussian_log_prob(wrong)
    assert not result
    assert words in result.message


def cut(order, size):
    return [order[start : start + size] for start in range(0, len(order), size)]


def drops_the_rest(count, size, rng):
    return [part for part in split(count, size, rng) if len(part) == size]


def shuffles_whole_parts(count, size, rng):
    *full, last = cut(np.arange(count), size)
    return [*(full[i] for i in rng.permutation(len(full))), last]


def shuffles_within_parts(count, size, rng):
    return [rng.permutation(part) for part in cut(np.arange(count), size)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (shuffles_whole_parts, "keeps neighbouring samples together"),
        (shuffles_within_parts, "keeps neighbouring samples together"),
        (drops_the_rest, "drops the samples that do not fill a minibatch"),
        (lambda count, size, rng: cut(np.arange(count), size), "does not shuffle"),
        (lambda count, size, rng: cut(rng.integers(count, size=count), size), "uses a sample twice"),
        (lambda count, size, rng: np.array_split(rng.permutation(count), size), "make parts of that size"),
        (lambda count, size, rng: cut(rng.permutation(count), size + 1), "all but the last must be"),
        (lambda count, size, rng: cut(rng.permutation(count), size)[:1], "leaves out"),
        (lambda count, size, rng: cut(1 + rng.permutation(count), size), "from 0 to count − 1"),
        (lambda count, size, rng: cut(np.random.default_rng().permutation(count), size), "from elsewhere"),
        (
            lambda count, size, rng: cut(np.random.default_rng(0).permutation(count), size),
            "same order in every",
        ),
        (lambda count, size, rng: rng.permutation(count), "a list of one-dimensional arrays"),
        (lambda count, size, rng: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_wrong_splits_are_named(wrong, words):
    result = check_minibatches(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize("checker", [check_ppo_loss, check_gaussian_log_prob, check_minibatches])
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


MISTAKES = [
    (check_ppo_loss, exercises._loss(), exercises._draw_minibatch, exercises._LOSS_MISTAKES),
    (check_gaussian_log_prob, exercises._gaussian(), exercises._draw_actions, exercises._GAUSSIAN_MISTAKES),
]


@pytest.mark.parametrize(("checker", "solution", "draw", "mistakes"), MISTAKES)
def test_every_mistake_differs_from_the_solution_and_from_the_others(checker, solution, draw, mistakes):
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(3)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair) for pair in found), (one, other)


@pytest.mark.parametrize(("checker", "solution", "draw", "mistakes"), MISTAKES)
def test_every_mistake_is_named(checker, solution, draw, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
