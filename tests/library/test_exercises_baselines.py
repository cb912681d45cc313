"""The checkers of the chapter on baselines pass what is right and name what is wrong."""

import numpy as np
import pytest

from policyopt.exercises.baselines import check_leave_one_out, check_optimal_baseline


def leave_one_out(returns):
    n = len(returns)
    return np.array([returns[i] - np.delete(returns, i).mean() for i in range(n)])


def optimal_baseline(scores, returns):
    return np.average(returns, weights=(scores**2).sum(axis=1))


def test_by_hand():
    np.testing.assert_allclose(leave_one_out(np.array([1.0, 3.0, 8.0])), [-4.5, -1.5, 6.0])
    scores, returns = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([10.0, 5.0])
    assert optimal_baseline(scores, returns) == pytest.approx((1 * 10 + 4 * 5) / 5)


def test_solutions_pass():
    assert check_leave_one_out(leave_one_out)
    assert check_leave_one_out(lambda r: len(r) / (len(r) - 1) * (r - r.mean()))
    assert check_optimal_baseline(optimal_baseline)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda r: r - r.mean(), "mean of all returns"),
        (lambda r: r - (r.sum() - r) / len(r), "how many others"),
        (lambda r: r - r.sum() / (len(r) - 1), "still in that sum"),
        (lambda r: (r.sum() - r) / (len(r) - 1), "returns the baselines"),
        (lambda r: -leave_one_out(r), "sign is turned round"),
        (lambda r: (len(r) / (len(r) - 1)) * (r - r.mean()) / r.std(), "standard deviation"),
        (lambda r: r.mean(), "single number"),
        (lambda r: 2 * leave_one_out(r), "wrong on"),
    ],
)
def test_wrong_leave_one_out_is_named(function, words):
    found = check_leave_one_out(function)
    assert not found
    assert words in found.message


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda g, r: r.mean(), "plain mean"),
        (lambda g, r: np.average(r, weights=np.linalg.norm(g, axis=1)), "not by its square"),
        (lambda g, r: ((g**2).sum(axis=1) * r).mean(), "does not divide by the sum (or"),
        (lambda g, r: ((g**2).sum(axis=1) * r).sum(), "adds up the weighted returns"),
        (lambda g, r: ((g**2).sum(axis=1) * r).mean() / (g**2).sum(), "in one place"),
        (lambda g, r: np.average(r, weights=g.sum(axis=1) ** 2), "components before squaring"),
        (lambda g, r: (r @ g**2 / (g**2).sum(axis=0)).mean(), "squared components of a score first"),
        (lambda g, r: np.average(r, weights=1 / (g**2).sum(axis=1)), "where it should multiply"),
        (lambda g, r: (g**2 * r[:, None]).mean(axis=0) / (g**2).mean(axis=0), "expected a single number"),
        (lambda g, r: -optimal_baseline(g, r), "wrong sign"),
    ],
)
def test_wrong_optimal_baseline_is_named(function, words):
    found = check_optimal_baseline(function)
    assert not found
    assert words in found.message
