"""The checkers of the chapter "Implementation details": they pass what is right, and name what is wrong."""

from itertools import combinations

import numpy as np
import pytest
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn

from policyopt import losses
from policyopt.exercises import implementation_details as exercises
from policyopt.exercises.implementation_details import (
    check_clipped_value_loss,
    check_normalized_minibatches,
    check_orthogonal_weights,
    check_update_statistics,
)
from policyopt.language import ppo

# Each checker with its solution, its inputs and the mistakes it knows.
CHECKERS = {
    check_clipped_value_loss: (
        exercises._clipped_value_loss,
        exercises._draw_values,
        exercises._CLIP_MISTAKES,
    ),
    check_update_statistics: (
        exercises._update_statistics,
        exercises._draw_statistics,
        exercises._STATISTICS_MISTAKES,
    ),
    check_normalized_minibatches: (
        exercises._normalized_minibatches,
        exercises._draw_advantages,
        exercises._MINIBATCH_MISTAKES,
    ),
    check_orthogonal_weights: (
        exercises._orthogonal_weights,
        exercises._draw_gaussian,
        exercises._ORTHOGONAL_MISTAKES,
    ),
}


# --- the clipped value loss ---


def library_loss(values, old_values, returns, clip):
    return ppo.clipped_value_loss(*map(torch.from_numpy, (values, old_values, returns)), clip)


def case_by_case(values, old_values, returns, clip):
    losses = []
    for value, old, target in zip(values, old_values, returns, strict=True):
        nearby = min(max(value, old - clip), old + clip)
        losses.append(max((value - target) ** 2, (nearby - target) ** 2))
    return losses


@pytest.mark.parametrize("right", [library_loss, case_by_case])
def test_right_losses_pass(right):
    result = check_clipped_value_loss(right)
    assert result, result.message


def test_three_losses_by_hand():
    """V_old = 0, c = 0.2, G = 1: within the range, beyond it towards G, beyond it away from G."""
    values = np.array([0.1, 0.5, -0.5])
    found = exercises._clipped_value_loss(values, np.zeros(3), np.ones(3), 0.2)
    assert found.tolist() == pytest.approx([0.81, 0.64, 2.25])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda v, o, g, c: np.minimum((v - g) ** 2, (o + (v - o).clip(-c, c) - g) ** 2), "the smaller"),
        (lambda v, o, g, c: (o + (v - o).clip(-c, c) - g) ** 2, "clipped value alone"),
        (lambda v, o, g, c: np.square(v - g), "nothing is clipped"),
        (lambda v, o, g, c: case_by_case(v, 0 * o, g, c), "the range lies around the old value"),
        (lambda v, o, g, c: case_by_case(v, g, g, c), "around the returns"),
        (lambda v, o, g, c: np.maximum((v - g) ** 2, ((v - o).clip(-c, c) - g) ** 2), "add the old value"),
        (lambda v, o, g, c: np.maximum((v - g) ** 2, (v.clip(max=o + c) - g) ** 2), "only upwards"),
        (lambda v, o, g, c: np.maximum((v - g) ** 2, (v.clip(min=o - c) - g) ** 2), "only downwards"),
        (lambda v, o, g, c: np.sqrt(case_by_case(v, o, g, c)), "does not square"),
        (lambda v, o, g, c: np.mean(case_by_case(v, o, g, c)), "returned a single number"),
        (lambda v, o, g, c: -np.array(case_by_case(v, o, g, c)), "wrong sign"),
        (lambda v, o, g, c: np.array(case_by_case(v, o, g, 2 * c)), "wrong on"),
    ],
)
def test_wrong_losses_are_named(wrong, words):
    result = check_clipped_value_loss(wrong)
    assert not result
    assert words in result.message


# --- running statistics ---


def gymnasium_s(mean, variance, count, batch):
    statistics = RunningMeanStd(shape=mean.shape)
    statistics.mean, statistics.var, statistics.count = mean, variance, count
    statistics.update(batch)
    return np.stack([statistics.mean, statistics.var])


def by_moments(mean, variance, count, batch):
    """By way of the sums of the observations and of their squares."""
    total = count + len(batch)
    first = (count * mean + batch.sum(axis=0)) / total
    return np.stack([first, mean_square(mean, variance, count, batch) - first**2])


def mean_square(mean, variance, count, batch):
    return (count * (variance + mean**2) + (batch**2).sum(axis=0)) / (count + len(batch))


@pytest.mark.parametrize("right", [gymnasium_s, by_moments])
def test_right_statistics_pass(right):
    result = check_update_statistics(right)
    assert result, result.message


def test_updated_statistics_are_those_of_all_observations():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(11, 3)) * [1.0, 10.0, 100.0] + [5.0, 0.0, -5.0]
    before = seen[:7].mean(axis=0), seen[:7].var(axis=0)
    mean, variance = exercises._update_statistics(*before, 7, seen[7:])
    assert np.allclose(mean, seen.mean(axis=0))
    assert np.allclose(variance, seen.var(axis=0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda m, v, n, x: [
                (n * a + b.sum(0)) / (n + len(x)) for a, b in ((m, x), (v, (x - x.mean(0)) ** 2))
            ],
            "leaves out that the two means differ",
        ),
        (lambda m, v, n, x: [x.mean(0), x.var(0)], "the batch alone"),
        (lambda m, v, n, x: [(m + x.mean(0)) / 2, (v + x.var(0)) / 2], "alike"),
        (lambda m, v, n, x: by_moments(m, v, n, x) ** [[1], [0.5]], "standard deviation in place"),
        (lambda m, v, n, x: by_moments(m, v, n, x)[0], "shape"),
        (lambda m, v, n, x: [by_moments(m, v, n, x)[0], mean_square(m, v, n, x)], "subtract the square"),
        (lambda m, v, n, x: [m, by_moments(m, v, n, x)[1]], "leaves the mean"),
        (lambda m, v, n, x: by_moments(m, v, n + 1, x), "wrong on"),
    ],
)
def test_wrong_statistics_are_named(wrong, words):
    result = check_update_statistics(wrong)
    assert not result
    assert words in result.message


# --- advantages in minibatches ---


def library_parts(advantages, size):
    return torch.cat([losses.normalize(part) for part in torch.from_numpy(advantages).split(size)])


def loop_over_parts(advantages, size):
    found = []
    for start in range(0, len(advantages), size):
        part = advantages[start : start + size]
        found += list((part - part.mean()) / part.std(ddof=1)) if len(part) > 1 else list(part)
    return found


@pytest.mark.parametrize("right", [library_parts, loop_over_parts])
def test_right_minibatches_pass(right):
    result = check_normalized_minibatches(right)
    assert result, result.message


def test_a_minibatch_by_hand():
    """2, 4, 6 have the mean 4 and the deviation 2; the rest is alone."""
    found = exercises._normalized_minibatches(np.array([2.0, 4.0, 6.0, 9.0]), 3)
    assert found.tolist() == pytest.approx([-1, 0, 1, 9])


def all_at_once(advantages, size):
    return (advantages - advantages.mean()) / advantages.std(ddof=1)


def with_numpy_s_std(advantages, size):
    parts = np.split(advantages, range(size, len(advantages), size))
    return np.concatenate([(p - p.mean()) / p.std() if len(p) > 1 else p for p in parts])


def even_parts(advantages, size):
    parts = np.array_split(advantages, range(0, len(advantages), size)[-1] // size + 1)
    return np.concatenate([losses.normalize(torch.from_numpy(part)) for part in parts])


def with_nan(advantages, size):
    def deviation(part):
        return np.sqrt(np.sum((part - part.mean()) ** 2) / (len(part) - 1))

    parts = np.split(advantages, range(size, len(advantages), size))
    with np.errstate(all="ignore"):
        return np.concatenate([(part - part.mean()) / deviation(part) for part in parts])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (all_at_once, "the whole batch at once"),
        (with_numpy_s_std, "ddof=1"),
        (with_nan, "single advantage as it is"),
        (even_parts, "about the same size"),
        (lambda a, size: a, "wrong on"),
        (lambda a, size: loop_over_parts(a, size)[: len(a) // size * size], "shape"),
        (lambda a, size: -np.array(loop_over_parts(a, size)), "wrong sign"),
    ],
)
def test_wrong_minibatches_are_named(wrong, words):
    result = check_normalized_minibatches(wrong)
    assert not result
    assert words in result.message


# --- orthogonal weights ---


def torch_s(gaussian, gain):
    """What torch does with the Gaussian numbers it draws, here given to it."""
    weights = torch.empty(gaussian.shape, dtype=torch.float64)
    wide = gaussian.shape[0] < gaussian.shape[1]
    original = torch.Tensor.normal_

    def given(self, *_, **__):
        return self.copy_(torch.from_numpy(gaussian))

    torch.Tensor.normal_ = given
    try:
        nn.init.orthogonal_(weights, gain)
    finally:
        torch.Tensor.normal_ = original
    assert weights.shape[0 if wide else 1] == min(gaussian.shape)
    return weights


def gram_schmidt(gaussian, gain):
    wide = gaussian.shape[0] < gaussian.shape[1]
    columns = []
    for column in gaussian if wide else gaussian.T:
        for other in columns:
            column = column - (other @ column) * other
        columns.append(column / np.linalg.norm(column))
    return gain * (np.array(columns) if wide else np.array(columns).T)


@pytest.mark.parametrize("right", [torch_s, gram_schmidt])
def test_right_weights_pass(right):
    result = check_orthogonal_weights(right)
    assert result, result.message


def test_the_smaller_side_is_orthogonal():
    rng = np.random.default_rng(0)
    high = exercises._orthogonal_weights(rng.normal(size=(5, 3)), 2.0)
    wide = exercises._orthogonal_weights(rng.normal(size=(3, 5)), 2.0)
    assert np.allclose(high.T @ high, 4 * np.eye(3))
    assert np.allclose(wide @ wide.T, 4 * np.eye(3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, gain: gram_schmidt(x, 1.0), "forgets the gain"),
        (lambda x, gain: -gram_schmidt(x, gain), "wrong sign"),
        (lambda x, gain: gain * x / np.linalg.norm(x, axis=1)[:, None], "rows of the right length"),
        (lambda x, gain: gain * np.linalg.qr(x)[0], "shape|the other way"),
        (lambda x, gain: gram_schmidt(x, gain).T, "shape"),
        (lambda x, gain: gain * np.eye(*x.shape), "wrong on"),
    ],
)
def test_wrong_weights_are_named(wrong, words):
    result = check_orthogonal_weights(wrong)
    assert not result
    assert any(word in result.message for word in words.split("|"))


# --- all of them ---


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_differs_from_the_solution_and_from_the_others(checker):
    solution, draw, mistakes = CHECKERS[checker]
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(8)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair, equal_nan=True) for pair in found), (one, other)


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_is_named(checker):
    _, _, mistakes = CHECKERS[checker]
    for words, mistake in mistakes.items():
        assert checker(mistake).message.endswith(words)
