"""The checkers of the chapter "Human feedback": they pass what is right, and name what is wrong."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt.exercises import rlhf as exercises
from policyopt.exercises.rlhf import (
    check_best_of_n,
    check_memory,
    check_preference_loss,
    check_token_rewards,
)
from policyopt.language.ppo import token_rewards
from policyopt.language.reward_model import bradley_terry_loss

ALL = {
    check_preference_loss: (exercises._draw_scores, exercises._loss, exercises._LOSS_MISTAKES),
    check_token_rewards: (exercises._draw_outputs, exercises._earned, exercises._EARNED_MISTAKES),
    check_memory: (exercises._draw_models, exercises._memory, exercises._MEMORY_MISTAKES),
    check_best_of_n: (exercises._draw_choices, exercises._best, exercises._BEST_MISTAKES),
}


def library_loss(chosen, rejected):
    return bradley_terry_loss(torch.from_numpy(chosen), torch.from_numpy(rejected))


def library_rewards(rewards, log_probs, reference_log_probs, mask, kl_coef):
    arrays = map(torch.from_numpy, (rewards, log_probs, reference_log_probs, mask))
    return token_rewards(*arrays, kl_coef)


def loop_rewards(rewards, log_probs, reference_log_probs, mask, kl_coef):
    earned = np.zeros(mask.shape)
    for i, row in enumerate(mask):
        written = [t for t, is_written in enumerate(row) if is_written]
        for t in written:
            earned[i, t] = -kl_coef * (log_probs[i, t] - reference_log_probs[i, t])
        earned[i, written[-1]] += rewards[i]
    return earned


def listed_memory(parameters, value_model, reference, reward_model, frozen_bytes):
    total = 0
    for is_there in (True, value_model):
        total += sum([4, 4, 4, 4]) * parameters if is_there else 0
    for is_there in (reference, reward_model):
        total += frozen_bytes * parameters if is_there else 0
    return total


def loop_best(rewards, tastes, n):
    found = []
    for first in range(0, len(rewards), n):
        places = range(first, first + n)
        found.append(tastes[max(places, key=lambda place: rewards[place])])
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_preference_loss, library_loss),
        (check_token_rewards, library_rewards),
        (check_token_rewards, loop_rewards),
        (check_memory, listed_memory),
        (check_best_of_n, loop_best),
    ],
)
def test_right_answers_pass(checker, right):
    result = checker(right)
    assert result, result.message


def test_solutions_by_hand():
    scores = np.array([0.0, math.log(3), 1000.0]), np.array([0.0, 0.0, 0.0])
    assert exercises._loss(*scores) == pytest.approx([math.log(2), math.log(4 / 3), 0.0])
    ours, reference = np.log([[0.8, 0.5, 0.9]]), np.log([[0.4, 0.5, 0.1]])
    mask = np.array([[True, True, False]])
    earned = exercises._earned(np.array([1.0]), ours, reference, mask, 0.5)
    assert earned == pytest.approx(np.array([[-0.5 * math.log(2), 1.0, 0.0]]))
    assert exercises._memory(10, True, True, False, 2) == 340
    assert exercises._best(np.array([1, 2, 4, 3]), np.array([0.1, 0.2, 0.3, 0.4]), 2) == pytest.approx(0.25)


def naive_loss(chosen, rejected):
    with np.errstate(all="ignore"):
        odds = np.exp(chosen - rejected)
        return -np.log(odds / (1 + odds))  # inf / inf and log 0


def overflowing_loss(chosen, rejected):
    with np.errstate(all="ignore"):
        return np.log(1 + np.exp(rejected - chosen))


def clipped_loss(chosen, rejected, smallest):
    return -np.log(np.clip(1 / (1 + np.exp(np.minimum(rejected - chosen, 700.0))), smallest, 1.0))


@pytest.mark.parametrize(
    ("checker", "wrong", "words"),
    [
        (check_preference_loss, naive_loss, "not finite"),
        (check_preference_loss, overflowing_loss, "hundreds apart"),
        (check_preference_loss, lambda w, lo: library_loss(lo, w), "prefers the rejected"),
        (check_preference_loss, lambda w, lo: library_loss(w, lo).mean(), "shape"),
        (check_preference_loss, lambda w, lo: -library_loss(w, lo), "needs a minus"),
        (check_preference_loss, lambda w, lo: clipped_loss(w, lo, 1e-8), "lose their distance"),
        (check_preference_loss, lambda w, lo: clipped_loss(w, lo, 1e-12), "lose their distance"),
        (check_preference_loss, lambda w, lo: library_loss(2 * w, 2 * lo), "wrong on"),
        (
            check_token_rewards,
            lambda r, p, q, m, b: np.where(m, -b * (p - q), 0) + np.eye(m.shape[1])[-1] * r[:, None],
            "in the last column",
        ),
        (
            check_token_rewards,
            lambda r, p, q, m, b: np.where(m, r[:, None] - b * (p - q), 0),
            "at every token",
        ),
        (check_token_rewards, lambda r, p, q, m, b: loop_rewards(r, q, p, m, b), "pays for drifting"),
        (check_token_rewards, lambda r, p, q, m, b: loop_rewards(r, p, q, m, 0.0), "leaves out the penalty"),
        (check_token_rewards, lambda r, p, q, m, b: loop_rewards(r, np.fmax(p, q), q, m, b), "off at 0"),
        (
            check_token_rewards,
            lambda r, p, q, m, b: loop_rewards(r, np.exp(p), np.exp(q), m, b),
            "of the probabilities",
        ),
        (
            check_token_rewards,
            lambda r, p, q, m, b: r - b * ((p - q) * m).sum(axis=1),
            "shape",
        ),
        (check_token_rewards, lambda r, p, q, m, b: loop_rewards(r, p, q, m, b**2), "wrong on"),
        (check_memory, lambda n, v, f, r, b: 16 * n * (1 + v + f + r), "for trained"),
        (check_memory, lambda n, v, f, r, b: 16 * n + b * n * (v + f + r), "for frozen"),
        (check_memory, lambda n, v, f, r, b: n * (8 + 8 * v + b * f + b * r), "moments are missing"),
        (check_memory, lambda n, v, f, r, b: 32 * n + b * n * (f + r), "where there is none"),
        (check_memory, lambda n, v, f, r, b: 16 * n * (1 + v) + b * n * max(f, r), "where there are two"),
        (check_memory, lambda n, v, f, r, b: n / 1e9 * (16 + 16 * v + b * f + b * r), "in GB"),
        (check_best_of_n, lambda r, t, n: r.reshape(-1, n).max(axis=1).mean(), "mean reward"),
        (check_best_of_n, lambda r, t, n: t.reshape(-1, n).max(axis=1).mean(), "which nobody sees"),
        (check_best_of_n, lambda r, t, n: t[r.argmax()], "once among all"),
        (
            check_best_of_n,
            lambda r, t, n: t.reshape(-1, n)[:, r.reshape(-1, n).argmax(1)].mean(),
            "every row",
        ),
        (check_best_of_n, lambda r, t, n: t[np.argsort(r)[-n:]].mean(), "wrong on"),
    ],
)
def test_wrong_answers_are_named(checker, wrong, words):
    result = checker(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize("checker", ALL)
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


@pytest.mark.parametrize("checker", ALL)
def test_every_mistake_is_named_and_differs_from_the_others(checker):
    draw, solution, mistakes = ALL[checker]
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(20)]
    answers = [[np.asarray(f(*case), dtype=float) for case in cases] for f in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair) for pair in found), (one, other)
