"""The checkers of the chapter "Penalty and entropy": they pass what is right, and name what is wrong."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt.algorithms.ppo_penalty import PPOPenaltyConfig, adapt_kl_coef
from policyopt.distributions import Categorical, DiagonalGaussian
from policyopt.exercises import penalty_and_entropy as exercises
from policyopt.exercises.penalty_and_entropy import (
    check_adaptive_beta,
    check_entropy,
    check_entropy_gradient,
    check_gaussian_kl,
    check_kl,
)


def library_beta(beta, kl, target):
    return adapt_kl_coef(beta, kl, PPOPenaltyConfig(kl_target=target))


def categorical(probs):
    return Categorical(torch.from_numpy(probs).log())


def library_entropy(probs):
    return categorical(probs).entropy()


def library_kl(p, q):
    return categorical(p).kl(categorical(q))


def library_gaussian_kl(*arrays):
    mean_p, std_p, mean_q, std_q = map(torch.from_numpy, arrays)
    return DiagonalGaussian(mean_p, std_p.log()).kl(DiagonalGaussian(mean_q, std_q.log()))


def differentiated(logits):
    logits = torch.from_numpy(logits).requires_grad_()
    return torch.autograd.grad(Categorical(logits).entropy().sum(), logits)[0]


def loop_beta(beta, kl, target):
    if kl > 1.5 * target:
        beta *= 2
    elif kl < target / 1.5:
        beta *= 0.5
    return beta


def loop_entropy(probs):
    return [sum(-p * math.log(p) for p in row if p > 0) for row in probs]


def loop_kl(p, q):
    rows = zip(p, q, strict=True)
    return [sum(a * math.log(a / b) for a, b in zip(*row, strict=True) if a > 0) for row in rows]


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_adaptive_beta, library_beta),
        (check_adaptive_beta, loop_beta),
        (check_entropy, library_entropy),
        (check_entropy, loop_entropy),
        (check_kl, library_kl),
        (check_kl, loop_kl),
        (check_gaussian_kl, library_gaussian_kl),
        (check_entropy_gradient, differentiated),
    ],
)
def test_what_is_right_passes(checker, right):
    result = checker(right)
    assert result, result.message


def test_solutions_by_hand():
    assert [exercises._next_beta(3.0, kl, 0.01) for kl in (0.006, 0.007, 0.014, 0.016)] == [1.5, 3, 3, 6]
    halves, sure = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    assert exercises._entropy(halves)[0] == pytest.approx(math.log(2))
    assert exercises._entropy(sure)[0] == 0
    assert exercises._kl(sure, halves)[0] == pytest.approx(math.log(2))
    assert exercises._kl(halves, np.array([[0.8, 0.2]]))[0] == pytest.approx(math.log(1.25))
    zero, one, two = (np.array([[value]]) for value in (0.0, 1.0, 2.0))
    assert exercises._gaussian_kl(zero, one, zero, two)[0] == pytest.approx(math.log(2) - 3 / 8)
    assert exercises._gaussian_kl(two, one, zero, one)[0] == pytest.approx(2.0)
    quarters = np.log([[0.75, 0.25]])
    pull = 3 / 16 * math.log(3)  # π (1 − π) times the log-odds, from the likelier to the rarer action
    assert exercises._entropy_gradient(quarters)[0] == pytest.approx([-pull, pull])


def test_every_case_of_the_rule_is_drawn():
    rng = np.random.default_rng(0)
    ratios = np.array([kl / target for _, kl, target in (exercises._draw_update(rng) for _ in range(50))])
    counts, _ = np.histogram(ratios, [0, 0.5, 1 / 1.5, 1, 1.5, 2, np.inf])
    assert (counts > 0).all()


def silently(function):
    def quiet(*arguments):
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quiet


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda b, k, t: b * 2 if k < t / 1.5 else b / 2 if k > t * 1.5 else b, "the wrong way"),
        (lambda b, k, t: b / 2 if k < t else b * 2, "at every update"),
        (lambda b, k, t: b * 2 if k > 1.5 * t else b, "never lowers"),
        (lambda b, k, t: b / 2 if k < t / 1.5 else b, "never raises"),
        (lambda b, k, t: b / 1.5 if k < t / 2 else b * 1.5 if k > t * 2 else b, "two numbers"),
        (lambda b, k, t: b / 1.5 if k < t / 1.5 else b * 1.5 if k > t * 1.5 else b, "factor of 1.5"),
        (lambda b, k, t: b * k / t, "scales β"),
        (lambda b, k, t: b * math.sqrt(k / t), "by the root"),
        (lambda b, k, t: library_beta(b, k, 0.01), "built in"),
        (lambda b, k, t: b / 2 if k < t / 2 else b * 2 if k > t * 1.5 else b, "half the target"),
        (lambda b, k, t: b / 2 if k < t * 1.5 else b * 2, "multiplies the target by 1.5"),
        (lambda b, k, t: b, "leaves β"),
        (lambda b, k, t: None, "None"),
        (lambda b, k, t: b + 1, "wrong on"),
    ],
)
def test_wrong_rules_are_named(wrong, words):
    result = check_adaptive_beta(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (silently(lambda p: -(p * np.log(p)).sum(axis=1)), "came out as NaN"),
        (lambda p: -(p * np.log2(np.maximum(p, 1e-12))).sum(axis=1), "bits"),
        (lambda p: -(p * np.log(np.maximum(p, 1e-12))).mean(axis=1), "mean over the actions"),
        (lambda p: (p * np.log(np.maximum(p, 1e-12))).sum(axis=1), "wrong sign"),
        (lambda p: np.exp(-(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)), "effective number"),
        (lambda p: Categorical(torch.from_numpy(p)).entropy(), "for logits"),
        (lambda p: -(p * np.log(np.maximum(p, 1e-12))).sum(), "shape"),
        (lambda p: 1 - p.max(axis=1), "wrong on"),
    ],
)
def test_wrong_entropies_are_named(wrong, words):
    result = check_entropy(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (silently(lambda p, q: (q * np.log(q / p)).sum(axis=1)), "exchanged"),
        (lambda p, q: (q * np.log(q / np.where(p > 0, p, 1))).sum(axis=1), "exchanged"),
        (silently(lambda p, q: (p * np.log(p / q)).sum(axis=1)), "came out as NaN"),
        (lambda p, q: -(p * np.log(q)).sum(axis=1), "cross-entropy"),
        (lambda p, q: (p * np.log(np.maximum(p, 1e-12) / q)).mean(axis=1), "mean over the actions"),
        (lambda p, q: (p * np.log2(np.maximum(p, 1e-12) / q)).sum(axis=1), "bits"),
        (lambda p, q: -library_kl(p, q), "wrong sign"),
        (lambda p, q: library_entropy(q) - library_entropy(p), "difference of the two entropies"),
        (lambda p, q: library_kl(p, q).mean(), "shape"),
    ],
)
def test_wrong_divergences_are_named(wrong, words):
    result = check_kl(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m, s, n, u: library_gaussian_kl(n, u, m, s), "exchanged"),
        (lambda m, s, n, u: library_gaussian_kl(m, s, n, u) + m.shape[1] / 2, "a ½ is missing"),
        (
            lambda m, s, n, u: (np.log(u / s) + (s**2 + (m - n) ** 2) / (2 * u**2)).sum(1) - 0.5,
            "last ½ off once",
        ),
        (lambda m, s, n, u: library_gaussian_kl(m, s, n, u) / m.shape[1], "mean over the components"),
        (
            lambda m, s, n, u: library_gaussian_kl(m, s, n, u).numpy() - np.log(u / s).sum(1),
            "leaves out the log",
        ),
        (lambda m, s, n, u: library_gaussian_kl(m, s, m, u), "leaves out the distance"),
        (lambda m, s, n, u: 2 * library_gaussian_kl(m, s, n, u), "twice"),
        (
            lambda m, s, n, u: (np.log(u / s) + 0.5 * (s**2 / u**2 + (m - n) ** 2 / s**2 - 1)).sum(1),
            "in widths of p",
        ),
        (lambda m, s, n, u: np.log(u / s) + 0.5 * (s**2 + (m - n) ** 2) / u**2 - 0.5, "shape"),
    ],
)
def test_wrong_gaussian_divergences_are_named(wrong, words):
    result = check_gaussian_kl(wrong)
    assert not result
    assert words in result.message


def softmax(logits):
    return torch.from_numpy(logits).softmax(dim=1).numpy()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: -np.log(softmax(x)) - 1, "by the probabilities"),
        (lambda x: -softmax(x) * (np.log(softmax(x)) + 1), "add up to 0"),
        (lambda x: differentiated(x).numpy() / softmax(x), "leaves out the factor"),
        (lambda x: -softmax(x) * np.log(softmax(x)), "leaves out the entropy"),
        (lambda x: np.exp(x) * (-x - (-np.exp(x) * x).sum(1, keepdims=True)), "divide by their sum"),
        (lambda x: -differentiated(x), "wrong sign"),
        (lambda x: library_entropy(softmax(x)), "shape"),
    ],
)
def test_wrong_gradients_are_named(wrong, words):
    result = check_entropy_gradient(wrong)
    assert not result
    assert words in result.message


CHECKERS = [check_adaptive_beta, check_entropy, check_kl, check_gaussian_kl, check_entropy_gradient]
ALL_MISTAKES = [
    exercises._BETA_MISTAKES,
    exercises._ENTROPY_MISTAKES,
    exercises._KL_MISTAKES,
    exercises._GAUSSIAN_MISTAKES,
    exercises._GRADIENT_MISTAKES,
]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


@pytest.mark.parametrize(("checker", "mistakes"), list(zip(CHECKERS, ALL_MISTAKES, strict=True)))
def test_every_mistake_is_named(checker, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)


@pytest.mark.parametrize(
    ("solution", "draw", "mistakes"),
    [
        (exercises._next_beta, exercises._draw_update, exercises._BETA_MISTAKES),
        (exercises._entropy, exercises._draw_probs, exercises._ENTROPY_MISTAKES),
        (exercises._gaussian_kl, exercises._draw_gaussians, exercises._GAUSSIAN_MISTAKES),
        (
            exercises._entropy_gradient,
            lambda rng: (rng.normal(size=(6, 4)),),
            exercises._GRADIENT_MISTAKES,
        ),
        (
            exercises._kl,
            lambda rng: (*exercises._draw_probs(rng, (6, 4)), rng.dirichlet(np.ones(4), 6)),
            exercises._KL_MISTAKES,
        ),
    ],
)
def test_every_mistake_differs_from_the_solution_and_from_the_others(solution, draw, mistakes):
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(30)]
    mistakes = [mistake for words, mistake in mistakes.items() if "NaN" not in words]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes)]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair) for pair in found), (one, other)
