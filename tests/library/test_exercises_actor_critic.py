"""The checkers of the chapter "Actor and critic": they pass what is right, and name what is wrong."""

from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt import returns
from policyopt.exercises import actor_critic as exercises
from policyopt.exercises.actor_critic import check_gae, check_td_errors


def library_td(rewards, values, next_values, terminated, truncated, gamma):
    arrays = map(torch.from_numpy, (rewards, values, next_values, terminated))
    return returns.td_errors(*arrays, gamma)


def library_gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    arrays = map(torch.from_numpy, (rewards, values, next_values, terminated, truncated))
    return returns.gae(*arrays, gamma, gae_lambda)


def loop_td(rewards, values, next_values, terminated, truncated, gamma):
    errors = rewards - values
    errors[~terminated] += gamma * next_values[~terminated]
    return errors


def by_definition(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """Every sum written out, from t to the end of its episode or of the array."""
    deltas = loop_td(rewards, values, next_values, terminated, truncated, gamma)
    advantages = np.zeros_like(deltas)
    steps, num_envs = deltas.shape
    for t in range(steps):
        for n in range(num_envs):
            for k in range(t, steps):
                advantages[t, n] += (gamma * gae_lambda) ** (k - t) * deltas[k, n]
                if terminated[k, n] or truncated[k, n]:
                    break
    return advantages


@pytest.mark.parametrize("right", [library_td, loop_td])
def test_right_errors_pass(right):
    result = check_td_errors(right)
    assert result, result.message


@pytest.mark.parametrize("right", [library_gae, by_definition])
def test_right_advantages_pass(right):
    result = check_gae(right)
    assert result, result.message


def test_three_steps_by_hand():
    """Two steps that terminate, then one that is truncated; γ = 0.5, λ = 0.5."""
    column = np.array([[1.0], [2.0], [3.0]])
    values, next_values = np.array([[2.0], [4.0], [1.0]]), np.array([[4.0], [8.0], [6.0]])
    ends = np.array([[False], [True], [False]]), np.array([[False], [False], [True]])
    errors = exercises._td_errors(column, values, next_values, *ends, 0.5)
    assert errors.flatten().tolist() == [1.0, -2.0, 5.0]
    advantages = exercises._gae(column, values, next_values, *ends, 0.5, 0.5)
    assert advantages.flatten().tolist() == [0.5, -2.0, 5.0]


def test_every_rollout_drawn_has_both_ends_and_consistent_values():
    for seed in range(20):
        _, values, following, terminated, truncated, *_ = exercises._draw_rollout(np.random.default_rng(seed))
        ended = terminated | truncated
        assert terminated.any(axis=0).all()
        assert truncated.any(axis=0).all()
        assert not (terminated & truncated).any()
        assert (following[:-1] == values[1:])[~ended[:-1]].all()
        assert (following[:-1] != values[1:])[ended[:-1]].all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, v, n, te, tr, g: r + g * np.where(te | tr, 0, n) - v, "truncation as a termination"),
        (lambda r, v, n, te, tr, g: r + n * (1 - te) - v, "not discounted"),
        (lambda r, v, n, te, tr, g: r + g * n * (1 - te) + v, "adds the value of the present state"),
        (lambda r, v, n, te, tr, g: r + g * n - v, "bootstraps after a termination"),
        (lambda r, v, n, te, tr, g: r + g * n * (1 - te), "that is the target"),
        (lambda r, v, n, te, tr, g: v - r - g * n * (1 - te), "wrong sign"),
        (
            lambda r, v, n, te, tr, g: r + g * np.vstack([v[1:], n[-1]]) * (1 - te) - v,
            "value in the next row",
        ),
        (
            lambda r, v, n, te, tr, g: r + g * n * (1 - te.any(axis=1)[:, None]) - v,
            "an end in one environment counts in all",
        ),
        (lambda r, v, n, te, tr, g: np.where(te, 0, r + g * n - v), "an error of 0 at terminations"),
        (
            lambda r, v, n, te, tr, g: np.where(tr, 0, r + g * n * (1 - te) - v),
            "an error of 0 at truncations",
        ),
        (lambda r, v, n, te, tr, g: np.where(te | tr, 0, r + g * n - v), "0 at the ends of episodes"),
        (lambda r, v, n, te, tr, g: (r + g * n * (1 - te) - v).sum(axis=0), "shape"),
        (lambda r, v, n, te, tr, g: r + g * n * (1 - te) - 2 * v, "wrong on"),
    ],
)
def test_wrong_errors_are_named(wrong, words):
    result = check_td_errors(wrong)
    assert not result
    assert words in result.message


def one_loop(
    *,
    stop_at=lambda te, tr: te | tr,
    reward_weight=lambda lam: 1.0,
    bootstrap=lambda te, tr: ~te,
    first=lambda n: 0.0,
    counts=lambda te, tr: True,
):
    """A student's GAE, with what the arguments change in it."""

    def student(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
        advantages, last = np.zeros_like(rewards), first(next_values)
        for t in range(len(rewards) - 1, -1, -1):
            ahead = gamma * next_values[t] * bootstrap(terminated[t], truncated[t])
            delta = reward_weight(gae_lambda) * rewards[t] + ahead - values[t]
            delta *= counts(terminated[t], truncated[t])
            last = delta + gamma * gae_lambda * last * ~stop_at(terminated[t], truncated[t])
            advantages[t] = last
        return advantages

    return student


def forwards(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    deltas = loop_td(rewards, values, next_values, terminated, truncated, gamma)
    advantages, last, ended = np.zeros_like(rewards), 0.0, np.zeros(rewards.shape[1], dtype=bool)
    for t in range(len(rewards)):
        last = deltas[t] + gamma * gae_lambda * last * ~ended
        advantages[t], ended = last, terminated[t] | truncated[t]
    return advantages


def test_a_loop_of_a_students_passes():
    result = check_gae(one_loop())
    assert result, result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (one_loop(stop_at=lambda te, tr: np.zeros_like(te)), "leaks across the ends of episodes"),
        (one_loop(stop_at=lambda te, tr: te), "leaks across truncations"),
        (one_loop(stop_at=lambda te, tr: tr), "leaks across terminations"),
        (forwards, "runs forward in time"),
        (one_loop(reward_weight=lambda lam: lam), "λ multiplies the rewards"),
        (one_loop(bootstrap=lambda te, tr: ~(te | tr)), "truncation as a termination"),
        (one_loop(bootstrap=lambda te, tr: True), "bootstraps after a termination"),
        (one_loop(first=lambda n: n[-1]), "starts with the value of the last next state"),
        (one_loop(stop_at=lambda te, tr: (te | tr).any()), "an end in one environment counts in all"),
        (one_loop(counts=lambda te, tr: ~te), "an error of 0 at terminations"),
        (one_loop(counts=lambda te, tr: ~tr), "an error of 0 at truncations"),
        (one_loop(counts=lambda te, tr: ~(te | tr)), "an error of 0 at the ends of episodes"),
        (lambda r, v, n, te, tr, g, lam: library_gae(r, v, n, te, tr, g, 1.0), "λ is missing"),
        (
            lambda r, v, n, te, tr, g, lam: library_gae(r, v, n, te, tr, g, lam).numpy() + v,
            "targets of the critic",
        ),
        (lambda r, v, n, te, tr, g, lam: library_td(r, v, n, te, tr, g), "that is λ = 0"),
        (lambda r, v, n, te, tr, g, lam: library_gae(r, v, n, te, tr, g, lam**2), "wrong on"),
    ],
)
def test_wrong_advantages_are_named(wrong, words):
    result = check_gae(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize("checker", [check_gae, check_td_errors])
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("solution", "inputs", "mistakes"),
    [
        (exercises._td_errors, slice(-1), exercises._TD_MISTAKES),
        (exercises._gae, slice(None), exercises._GAE_MISTAKES),
    ],
)
def test_every_mistake_differs_from_the_solution_and_from_the_others(solution, inputs, mistakes):
    rng = np.random.default_rng(0)
    cases = [exercises._draw_rollout(rng)[inputs] for _ in range(3)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair) for pair in found), (one, other)


@pytest.mark.parametrize(
    ("checker", "mistakes"),
    [(check_td_errors, exercises._TD_MISTAKES), (check_gae, exercises._GAE_MISTAKES)],
)
def test_every_mistake_is_named(checker, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
