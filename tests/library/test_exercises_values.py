"""The checkers of the chapter "Values": they pass what is right, and name what is wrong."""

from itertools import combinations

import numpy as np
import pytest

from policyopt.algorithms.q_learning import td_target
from policyopt.exercises import values as exercises
from policyopt.exercises.values import check_bellman_backup, check_q_target
from policyopt.tabular import TabularModel, action_values


def library_backup(transitions, rewards, values, gamma):
    start = np.eye(len(values))[0]
    return action_values(TabularModel(transitions, rewards, start), values, gamma).amax(dim=-1)


def library_target(rewards, next_q, terminated, truncated, gamma):
    return [td_target(*step, gamma=gamma) for step in zip(rewards, next_q, terminated.tolist(), strict=True)]


def loop_backup(transitions, rewards, values, gamma):
    new_values = []
    for rows, earned in zip(transitions, rewards, strict=True):
        new_values.append(max(r + gamma * (row * values).sum() for row, r in zip(rows, earned, strict=True)))
    return new_values


def in_place(transitions, rewards, values, gamma):
    new_values = list(values)
    for state in range(len(values)):
        new_values[state] = max(rewards[state] + gamma * transitions[state] @ np.array(new_values))
    return new_values


def from_nothing(transitions, rewards, values, gamma):
    new_values = []
    for rows, earned in zip(transitions, rewards, strict=True):
        best = 0
        for row, reward in zip(rows, earned, strict=True):
            best = max(best, reward + gamma * row @ values)
        new_values.append(best)
    return new_values


def one_by_one(rewards, next_q, terminated, truncated, gamma):
    targets = []
    for reward, row, over in zip(rewards, next_q, terminated, strict=True):
        targets.append(reward if over else reward + gamma * max(row))
    return targets


@pytest.mark.parametrize("right", [library_backup, loop_backup])
def test_a_right_backup_passes(right):
    result = check_bellman_backup(right)
    assert result, result.message


@pytest.mark.parametrize("right", [library_target, one_by_one])
def test_a_right_target_passes(right):
    result = check_q_target(right)
    assert result, result.message


def test_two_states_by_hand():
    """From state 0, action 1 earns 1 and leads to state 1 (value 4) half of the time, else to the end."""
    transitions = np.array([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    rewards, values = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([2.0, 4.0])
    assert exercises._bellman_backup(transitions, rewards, values, 0.5).tolist() == [2.0, 0.0]
    ends = (np.array([False, True, False, True]), np.array([False, False, True, True]))
    next_q = np.array([[2.0, 6.0], [9.0, 9.0], [4.0, -4.0], [9.0, 9.0]])
    assert exercises._q_target(np.ones(4), next_q, *ends, 0.5).tolist() == [4.0, 1.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p, r, v, g: (r + p @ v).max(axis=1), "not discounted"),
        (lambda p, r, v, g: (r + g * (p @ v)).mean(axis=1), "averages over the actions"),
        (lambda p, r, v, g: (r + g * (p @ v)).argmax(axis=1), "which action is best"),
        (lambda p, r, v, g: r.max(axis=1) + g * (p @ v).max(axis=1), "maximum is over the sum"),
        (lambda p, r, v, g: (r + g * v[p.argmax(axis=2)]).max(axis=1), "wrong on"),
        (lambda p, r, v, g: (r + g * (p @ v)).max(axis=0), "shape"),
        (lambda p, r, v, g: r + g * p @ v, "shape"),
        (in_place, "another algorithm"),
        (from_nothing, "never goes below 0"),
        (lambda p, r, v, g: np.maximum((r + g * (p @ v)).max(axis=1), v), "keeps the old value"),
        (lambda p, r, v, g: (r + g * (p * v).max(axis=2)).max(axis=1), "maximum over the next states"),
        (lambda p, r, v, g: (r + g * p.transpose(2, 1, 0) @ v).max(axis=1), "wrong axis"),
    ],
)
def test_a_wrong_backup_is_named(wrong, words):
    result = check_bellman_backup(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, q, te, tr, g: r + g * ~(te | tr) * q.max(axis=1), "truncation as a termination"),
        (lambda r, q, te, tr, g: np.where(te | tr, r, r + g * q.max(axis=1)), "truncation as a termination"),
        (lambda r, q, te, tr, g: r + g * q.max(axis=1), "bootstraps after a termination"),
        (lambda r, q, te, tr, g: r + g * (1 - tr) * q.max(axis=1), "the wrong way round"),
        (lambda r, q, te, tr, g: (r + g * q.max(axis=1)) * ~te, "still paid"),
        (lambda r, q, te, tr, g: r + g * ~te * q.mean(axis=1), "best of them"),
        (lambda r, q, te, tr, g: r + g * ~te * q.max(), "whole batch"),
        (lambda r, q, te, tr, g: -(r + g * ~te * q.max(axis=1)), "wrong sign"),
        (lambda r, q, te, tr, g: np.where(te & ~tr, r, r + g * q.max(axis=1)), "both flags"),
        (lambda r, q, te, tr, g: r + g * ~te * q[:, 0], "first of the next actions"),
        (lambda r, q, te, tr, g: r + g * ~te * np.maximum(q.max(axis=1), 0), "less than 0"),
        (lambda r, q, te, tr, g: r + g * q.max(axis=0), "ValueError"),
    ],
)
def test_a_wrong_target_is_named(wrong, words):
    result = check_q_target(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("solution", "draw", "mistakes"),
    [
        (exercises._bellman_backup, exercises._draw_model, exercises._BACKUP_MISTAKES),
        (exercises._q_target, exercises._draw_batch, exercises._TARGET_MISTAKES),
    ],
)
def test_every_mistake_differs_from_the_solution_and_from_the_others(solution, draw, mistakes):
    """On one input or another: those that a checker draws suffice to tell all of them apart."""
    rng = np.random.default_rng(0)
    functions = [solution, *mistakes.values()]
    answers = [
        [function(*arguments) for function in functions] for arguments in [draw(rng) for _ in range(9)]
    ]
    for one, other in combinations(range(len(functions)), 2):
        assert not all(np.allclose(found[one], found[other]) for found in answers), (one, other)


@pytest.mark.parametrize(
    ("checker", "mistakes"),
    [
        (check_bellman_backup, exercises._BACKUP_MISTAKES),
        (check_q_target, exercises._TARGET_MISTAKES),
    ],
)
def test_every_mistake_is_named(checker, mistakes):
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
